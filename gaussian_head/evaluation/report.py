"""The report of a measurement: what was compared, every figure, what it was given, what it ran on (schema 2)."""

from __future__ import annotations

import json
import math
import os
import platform
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from gaussian_head.errors import UserError
from gaussian_head.evaluation.measure import Measured
from gaussian_head.evaluation.metric import Better, Curve, Entry, Figure
from gaussian_head.media.files import write_bytes

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA = 2
NAME, TRACES_NAME = "report.json", "traces.json"
REGIONS = {"full": "whole picture", "head": "head", "mouth": "mouth"}
"""Regions of the picture, in the order of every table, and how they are called."""
ARROWS = {"higher": "↑", "lower": "↓", "zero": "→0", "neither": ""}
"""Which way is better, in a heading."""
PACKAGES = (
    "gaussian-head", "torch", "numpy", "scipy", "opencv-contrib-python", "av", "mediapipe", "scikit-image",
    "pytorch-msssim", "python_speech_features", "jiwer",
)  # fmt: skip
FORM = re.compile(r"\{:[-+ ,]?(\.\d\d?)?[efg%]?\}")
"""Formats a report may ask for: nothing that fills the memory or looks into objects."""
TRUTH = "ground truth"
"""The row of the true footage itself, by the metrics that compare with nothing."""
TRAINED_KEYS = (
    "subject",
    "preset",
    "device",
    "timing_s",
    "render_fps",
    "peak_rss_mb",
    "condition",
    "speech",
    "neck_gap",
)

Traces = dict[str, dict[str, dict[str, list[float | None]]]]
"""Values frame by frame, by row, entry and region."""


@dataclass(frozen=True)
class Row:
    """One thing that was measured: a video, or one way of driving a head."""

    figures: dict[str, dict[str, Figure]]
    """By entry and region."""
    from_ground_truth: tuple[str, ...] = ()
    """What of the truth it was given, such as `pose`."""
    unavailable: dict[str, str] = field(default_factory=dict)
    """Entries that could not be computed, and why."""
    curves: dict[str, Curve] = field(default_factory=dict)
    """Figures over something that was varied, by entry."""


def row_from(measured: Measured, from_ground_truth: Iterable[str] = ()) -> Row:
    """Arrange what `measure` found; a value that is not finite counts as missing.

    Args:
        measured: Figures and what was unavailable.
        from_ground_truth: What of the truth the measured pictures were made with.
    """
    figures: dict[str, dict[str, Figure]] = {}
    for figure in measured.figures:
        value, reason = _finite(figure.value), figure.reason
        if value is None and not reason:
            reason = "not finite"
        trace = tuple(_finite(v) for v in figure.trace)
        kept = Figure(figure.entry, figure.region, value, figure.counted, figure.excluded, reason, trace)
        figures.setdefault(figure.entry, {})[figure.region] = kept
    return Row(figures, tuple(from_ground_truth), dict(measured.unavailable), dict(measured.curves))


@dataclass(frozen=True)
class TrainedFacts:
    """What a report says of a trained head beside its figures."""

    subject: str
    preset: str
    device: str
    timing_s: dict[str, float | None]
    """Seconds by stage; None where not recorded."""
    render_fps: float
    peak_rss_mb: float
    condition: str = "landmarks"
    """What tells the fields how the mouth moves (`HeadConfig.condition`)."""
    speech: dict[str, str | float | int] = field(default_factory=dict)
    """What turns sound into landmarks, and its figures (`driving.predictor.speech_figures`)."""
    neck_gap: dict[str, float] = field(default_factory=dict)
    """Share of the neck that is lost in the worst of six poses beyond the footage, by torso (`neck_gap.py`)."""


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that decide figures; null where one is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def describe_machine() -> dict[str, str]:
    """Return processor, cores, memory and system of this machine; no names of hosts or people."""
    processor = platform.processor()
    told = Path("/proc/cpuinfo")
    if told.is_file():
        named = re.search(r"^model name\s*:\s*(.+)$", told.read_text(errors="replace"), re.MULTILINE)
        processor = named[1].strip() if named else processor
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": processor or platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
    }


@dataclass(frozen=True)
class Report:
    """Everything `report.json` says; see docs/evaluation.md."""

    title: str
    rows: dict[str, Row]
    entries: dict[str, Entry]
    """The registry; only entries that occur in a row are written."""
    compared: dict[str, Any]
    """What was compared with what, as JSON values; dictionaries inside (the two clips) become columns of the page."""
    weights: dict[str, str] = field(default_factory=dict)
    """SHA-256 of every file of weights that was used, by file name."""
    trained: TrainedFacts | None = None
    versions: dict[str, str | None] = field(default_factory=versions)
    machine: dict[str, str] = field(default_factory=describe_machine)

    @property
    def occurring(self) -> dict[str, Entry]:
        """Return the entries with a figure, or a reason for having none, in the registry's order.

        Raises:
            ValueError: A row has a figure that is not in the registry.
        """
        named = {name for row in self.rows.values() for name in (*row.figures, *row.unavailable)}
        if unknown := sorted(named - set(self.entries)):
            raise ValueError(f"figures without an entry: {', '.join(unknown)}; register them.")
        return {name: entry for name, entry in self.entries.items() if name in named}

    def figure(self, row: str, entry: str, region: str = "full") -> Figure | None:
        """Return a figure, or None where the row has none of that entry and region."""
        return self.rows[row].figures.get(entry, {}).get(region) if row in self.rows else None

    def measured_in(self, region: str) -> list[Entry]:
        """Return the entries that have a value in that region in at least one row."""
        return [
            entry
            for name, entry in self.occurring.items()
            if any((found := self.figure(row, name, region)) and found.value is not None for row in self.rows)
        ]

    def document(self) -> dict[str, Any]:
        """Return the JSON values of `report.json`."""
        return {
            "schema": SCHEMA,
            "title": self.title,
            **({} if self.trained is None else asdict(self.trained)),
            "rows": {name: _row_document(row) for name, row in self.rows.items()},
            "entries": {name: _entry_document(entry) for name, entry in self.occurring.items()},
            "compared": self.compared,
            "versions": self.versions,
            "machine": self.machine,
            "weights": self.weights,
        }

    def traces(self) -> Traces:
        """Return the JSON values of `traces.json`: every figure that has values frame by frame."""
        found: Traces = {}
        for name, row in self.rows.items():
            for entry, regions in row.figures.items():
                for region, figure in regions.items():
                    if figure.trace:
                        values = [None if v is None else _short(v) for v in figure.trace]
                        found.setdefault(name, {}).setdefault(entry, {})[region] = values
        return found

    def save(self, folder: Path) -> Path:
        """Write `traces.json`, then `report.json`, each whole or not at all; return the report's path."""
        write_bytes(folder / TRACES_NAME, (json.dumps(self.traces(), allow_nan=False) + "\n").encode())
        document = json.dumps(self.document(), indent=1, allow_nan=False, ensure_ascii=False)
        write_bytes(folder / NAME, (document + "\n").encode())
        return folder / NAME

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read a `report.json`; the figures come without their traces.

        Raises:
            FileNotFoundError: No such file.
            UserError: It is damaged, or of another schema.
        """
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; write it with: python -m gaussian_head.evaluate")
        try:
            document = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
            _check(document, dict, "the report")
            if document.get("schema") != SCHEMA:
                found = document.get("schema")
                raise UserError(f"{path} is of schema {found}, expected {SCHEMA}; evaluate again.")
            return _report_from(document)
        except UserError:
            raise
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            told = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{path} is no report of schema {SCHEMA} ({told}); evaluate again.") from error

    def table(self) -> Table:
        """Return the figures for the terminal: a line for each entry and region, a column for each row."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=escape(self.title), title_justify="left")
        table.add_column("figure", no_wrap=True)
        table.add_column("region", no_wrap=True)
        for row in self.rows:
            table.add_column(escape(row), justify="right", no_wrap=True)
        for name, entry in self.occurring.items():
            unit = f", {entry.unit}" if entry.unit else ""
            title = escape(f"{entry.title}{unit} {ARROWS[entry.better]}".strip())
            for region in REGIONS:
                figures = [self.figure(row, name, region) for row in self.rows]
                if any(figure is not None and figure.value is not None for figure in figures):
                    cells = ("" if figure is None else format_value(figure.value, entry) for figure in figures)
                    table.add_row(title, region, *cells)
                    title = ""
        return table

    def remarks(self) -> list[str]:
        """Say what each row was given, what was left out, what could not be measured, and how fast it was."""
        lines = [
            f"{name}: from ground truth: {', '.join(row.from_ground_truth) or 'nothing'}"
            for name, row in self.rows.items()
            if row.figures and name != TRUTH
        ]
        lines += [f"{row}: {', '.join(what)}: {how}" for row, how, what in self.left_out()]
        for reason, names in self.missing().items():
            whole = [row for row in names if not self.rows[row].figures]
            lines += [f"{row}: unavailable: {reason}" for row in whole]
            rest = {row: titles for row, titles in names.items() if row not in whole}
            for titles in dict.fromkeys(map(tuple, rest.values())):
                where = [row for row, its in rest.items() if tuple(its) == titles]
                prefix = "" if self.are_all(where) else f"{', '.join(where)}: "
                lines.append(f"{prefix}unavailable: {', '.join(titles)}: {reason}")
        if self.trained is None:
            return lines
        timing = self.trained.timing_s.items()
        told = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in timing if seconds is not None)
        speed = f"render loop {self.trained.render_fps:.1f} frames/s, peak memory {self.trained.peak_rss_mb:.0f} MB"
        gaps = ", ".join(f"{torso} {gap:.2%}" for torso, gap in self.trained.neck_gap.items())
        neck = [f"neck lost where the head turns beyond its footage, at worst: {gaps}"] if gaps else []
        return [*lines, *neck, f"time: {told or 'not recorded'}", speed]

    def are_all(self, rows: Iterable[str]) -> bool:
        """Say whether these are all rows but the true footage's own."""
        return {*rows, TRUTH} == {*self.rows, TRUTH}

    def missing(self) -> dict[str, dict[str, list[str]]]:
        """Return why entries have no value anywhere in a row: titles by reason and row."""
        found: dict[str, dict[str, list[str]]] = {}
        for name, row in self.rows.items():
            for key, entry in self.occurring.items():
                figures = row.figures.get(key, {}).values()
                if any(figure.value is not None for figure in figures):
                    continue
                reasons = [row.unavailable[key]] if key in row.unavailable else [f.reason for f in figures]
                for reason in dict.fromkeys(reasons):
                    found.setdefault(reason, {}).setdefault(name, []).append(entry.title)
        return found

    def left_out(self) -> list[tuple[str, str, list[str]]]:
        """Return which figures rest on fewer frames than the clip has: row, how many and why, the figures."""
        found: dict[tuple[str, str], list[str]] = {}
        for name, row in self.rows.items():
            for key, entry in self.occurring.items():
                for region, figure in row.figures.get(key, {}).items():
                    if figure.excluded and figure.value is not None:
                        total = figure.counted + figure.excluded
                        how = f"{figure.excluded} of {total} frames left out ({figure.reason})"
                        where = "" if region == "full" else f" ({REGIONS[region]})"
                        found.setdefault((name, how), []).append(entry.title + where)
        return [(name, how, what) for (name, how), what in found.items()]


def format_value(value: float | None, entry: Entry) -> str:
    """Write a value as its entry says, or a dash where there is none."""
    return "-" if value is None else entry.form.format(value)


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _short(value: float) -> float:
    """Keep six digits: more than any of these figures has meaning, a third of the file."""
    return float(f"{value:.6g}")


def _row_document(row: Row) -> dict[str, Any]:
    def figure_document(figure: Figure) -> dict[str, Any]:
        value = None if figure.value is None else _short(figure.value)
        return {"value": value, "counted": figure.counted, "excluded": figure.excluded, "reason": figure.reason}

    return {
        "from_ground_truth": list(row.from_ground_truth),
        "figures": {
            entry: {region: figure_document(figure) for region, figure in regions.items()}
            for entry, regions in row.figures.items()
        },
        "unavailable": row.unavailable,
        "curves": {
            entry: {
                "x_label": curve.x_label, "x": list(curve.x), "y_label": curve.y_label,
                "y": [None if _finite(y) is None else _short(y) for y in curve.y],
            }
            for entry, curve in row.curves.items()
        },
    }  # fmt: skip


def _entry_document(entry: Entry) -> dict[str, Any]:
    return {
        "title": entry.title, "unit": entry.unit, "better": entry.better, "needs": sorted(entry.needs),
        "reference": entry.reference, "form": entry.form,
    }  # fmt: skip


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no figure")


def _check(value: Any, kinds: type | tuple[type, ...], what: str) -> Any:  # noqa: ANN401 -- any JSON value
    """Return a JSON value of the expected kind, else raise."""
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise TypeError(f"{what} is of type {type(value).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{what} is {value}")
    return value


def _mapping(document: dict[str, Any], key: str, kinds: type | tuple[type, ...]) -> dict[str, Any]:
    """Return the dictionary under a key, its values of the expected kind."""
    return {name: _check(value, kinds, f"{key}.{name}") for name, value in _check(document[key], dict, key).items()}


def _report_from(document: dict[str, Any]) -> Report:
    known = {"schema", "title", "rows", "entries", "compared", "versions", "machine", "weights", *TRAINED_KEYS}
    if unknown := sorted(set(document) - known):
        raise ValueError(f"unknown fields: {', '.join(unknown)}")
    report = Report(
        title=_check(document["title"], str, "title"),
        rows={name: _row_from(row, f"rows.{name}") for name, row in _mapping(document, "rows", dict).items()},
        entries={name: _entry_from(name, entry) for name, entry in _mapping(document, "entries", dict).items()},
        compared=_check(document["compared"], dict, "compared"),
        weights=_mapping(document, "weights", str),
        trained=_trained_from(document) if set(TRAINED_KEYS) & set(document) else None,
        versions=_mapping(document, "versions", (str, type(None))),
        machine=_mapping(document, "machine", str),
    )
    report.occurring  # noqa: B018 -- raises where a figure has no entry
    return report


def _trained_from(document: dict[str, Any]) -> TrainedFacts:
    return TrainedFacts(
        *(_check(document[key], str, key) for key in ("subject", "preset", "device")),
        timing_s=_mapping(document, "timing_s", (int, float, type(None))),
        render_fps=float(_check(document["render_fps"], (int, float), "render_fps")),
        peak_rss_mb=float(_check(document["peak_rss_mb"], (int, float), "peak_rss_mb")),
        # earlier reports lack these
        condition=_check(document.get("condition", "landmarks"), str, "condition"),
        speech=_mapping({"speech": {}} | document, "speech", (str, int, float)),
        neck_gap=_mapping({"neck_gap": {}} | document, "neck_gap", (int, float)),
    )


def _row_from(document: dict[str, Any], where: str) -> Row:
    figures = {}
    for entry, regions in _mapping(document, "figures", dict).items():
        if unknown := sorted(set(regions) - set(REGIONS)):
            raise ValueError(f"{where}.{entry}: unknown regions {', '.join(unknown)}")
        figures[entry] = {
            region: _figure_from(entry, region, _check(figure, dict, f"{where}.{entry}.{region}"))
            for region, figure in regions.items()
        }
    curves = {
        entry: _curve_from(curve, f"{where}.curves.{entry}")
        for entry, curve in _mapping(document, "curves", dict).items()
    }
    given = _check(document["from_ground_truth"], list, f"{where}.from_ground_truth")
    given = tuple(_check(name, str, f"{where}.from_ground_truth") for name in given)
    return Row(figures, given, _mapping(document, "unavailable", str), curves)


def _figure_from(entry: str, region: str, document: dict[str, Any]) -> Figure:
    where = f"{entry}.{region}"
    value = _check(document["value"], (int, float, type(None)), f"{where}.value")
    counted, excluded = (_check(document[key], int, f"{where}.{key}") for key in ("counted", "excluded"))
    reason = _check(document["reason"], str, f"{where}.reason")
    return Figure(entry, region, None if value is None else float(value), counted, excluded, reason)


def _curve_from(document: dict[str, Any], where: str) -> Curve:
    labels = [_check(document[key], str, f"{where}.{key}") for key in ("x_label", "y_label")]
    x = tuple(_check(value, (int, float), f"{where}.x") for value in _check(document["x"], list, f"{where}.x"))
    y = _check(document["y"], list, f"{where}.y")
    y = tuple(_check(value, (int, float, type(None)), f"{where}.y") for value in y)
    if len(x) != len(y):
        raise ValueError(f"{where} has {len(x)} x and {len(y)} y")
    return Curve(labels[0], x, y, labels[1])


def _entry_from(name: str, document: dict[str, Any]) -> Entry:
    title, unit, better, reference, form = (
        _check(document[key], str, f"entries.{name}.{key}") for key in ("title", "unit", "better", "reference", "form")
    )
    if better not in get_args(Better):
        raise ValueError(f"entries.{name}.better is {better}")
    if not FORM.fullmatch(form):
        raise ValueError(f"entries.{name}.form is {form}")
    needs = frozenset(_check(document["needs"], list, f"entries.{name}.needs"))
    return Entry(name, title, unit, better, needs, reference, form)
