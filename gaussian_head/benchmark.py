"""Command: put the reports of several runs into one page.

python -m gaussian_head.benchmark output/a output/b --out docs/benchmarks.md
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gaussian_head.errors import UserError, configure_logging, run_command
from gaussian_head.evaluation.metric import Entry
from gaussian_head.evaluation.report import ARROWS, NAME, REGIONS, Report, format_value
from gaussian_head.media.files import write_bytes

HEADER = """# Benchmarks

Written by `bash scripts/benchmark.sh VIDEO...`, which runs the demo on the procedural subject (`demo`) and on each
video. Figures are means over the frames held out, at the size of the preset (in brackets);
[evaluation.md](evaluation.md) says what each means and what each row was given. Arrows tell which way is better.
"""

NECKS = ("neck gap, torso of footage", "torso of model")


@dataclass(frozen=True)
class BenchmarkOptions:
    """Write one page of figures and times from the reports of several runs."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders that hold a report.json."""
    out: Path
    """The page, Markdown."""
    debug: bool = False
    """Show the traceback of an error."""


def write_page(options: BenchmarkOptions) -> None:
    """Write the page; see `BenchmarkOptions`.

    Raises:
        FileNotFoundError: A run has no report.
        UserError: A report is damaged, of another schema, or not of a trained head; or no run was named.
    """
    if not options.runs:
        raise UserError("name at least one run folder, for example output/demo.")
    reports = [_read(run / NAME) for run in options.runs]
    rows = list(dict.fromkeys(name for report in reports for name in report.rows))
    parts = [HEADER, *(_quality(reports, row) for row in rows), _speech(reports), _times(reports), _versions(reports)]
    write_bytes(options.out, "\n".join(filter(None, parts)).encode())
    print(options.out)


def _read(path: Path) -> Report:
    report = Report.load(path)
    if report.trained is None:
        raise UserError(f"{path} is not of a trained head; give folders that scripts/train.sh wrote and "
                        "scripts/evaluate.sh measured.")  # fmt: skip
    return report


def _run_title(report: Report) -> str:
    """Name a run by its subject, its preset, and what its fields are told by, where that is not landmarks alone."""
    facts = report.trained
    condition = "" if facts.condition == "landmarks" else f", {facts.condition}"
    return f"{facts.subject} ({facts.preset}{condition})"


def _quality(reports: list[Report], row: str) -> str:
    """Tell every figure of one row that has a value anywhere: a line a figure, a column a subject."""
    entries: dict[str, Entry] = {}
    for report in reports:
        entries |= report.occurring
    lines = []
    for entry in entries.values():
        for region, title in REGIONS.items():
            figures = [report.figure(row, entry.name, region) for report in reports]
            values = [None if figure is None else figure.value for figure in figures]
            if any(value is not None for value in values):
                name = " ".join(part for part in (entry.title, ARROWS[entry.better]) if part)
                lines.append([name, entry.unit, title, *(format_value(value, entry) for value in values)])
    subjects = list(map(_run_title, reports))
    table = _table(["metric", "unit", "region", *subjects], lines, words=3)
    told = _by_subject([
        (report, ", ".join(report.rows[row].from_ground_truth).replace("_", " ") or "nothing")
        for report in reports
        if row in report.rows and report.rows[row].figures
    ])  # fmt: skip
    missing = {
        f"{', '.join(by_row[row])} ({reason})": None
        for report in reports
        for reason, by_row in report.missing().items()
        if row in by_row
    }
    remark = f"From ground truth: {told or '-'}."
    return f"## Row `{row}`\n\n{remark}\n\n{table}" + (f"\nWithout a value: {'; '.join(missing)}.\n" if missing else "")


def _speech(reports: list[Report]) -> str:
    """Tell how well each predictor hears: a line a figure, a column a subject."""
    names = list(dict.fromkeys(name for report in reports for name in report.trained.speech))
    if not names:
        return ""
    lines = []
    for name in names:
        values = [report.trained.speech.get(name, "-") for report in reports]
        told = [f"{value:.3f}" if isinstance(value, float) else str(value) for value in values]
        lines.append([name.replace("_", " "), *told])
    remark = (
        "Mouth opening (correlation) and lips (mean distance, mm), predicted from sound in frames held out: train, "
        "each frame\nby what has not seen its stretch; val, the val frames."
    )
    table = _table(["figure", *map(_run_title, reports)], lines, words=1)
    return f"## From sound to landmarks\n\n{remark}\n\n{table}"


def _times(reports: list[Report]) -> str:
    stages = list(dict.fromkeys(stage for report in reports for stage in report.trained.timing_s))
    lines = []
    for report in reports:
        facts = report.trained
        seconds = [facts.timing_s.get(stage) for stage in stages]
        whole = sum(value or 0 for value in seconds)
        cells = ["-" if value is None else f"{value:.0f}" for value in (*seconds, whole)]
        gaps = [f"{facts.neck_gap[torso]:.2%}" if torso in facts.neck_gap else "-" for torso in ("footage", "model")]
        speed = [f"{facts.render_fps:.0f}", f"{facts.peak_rss_mb:.0f}", *gaps]
        lines.append([_run_title(report), facts.device, *cells, *speed])
    machines = _by_subject([(report, _machine(report)) for report in reports])
    table = _table(["subject", "device", *stages, "sum", "render frames/s", "peak memory, MB", *NECKS], lines, words=2)
    told = "Wall-clock seconds by stage. Neck gap: share of the neck lost at worst where the head turns beyond footage."
    return f"## Time and memory\n\n{told}\nMachine: {machines}.\n\n{table}"


def _machine(report: Report) -> str:
    facts = report.machine
    return f"{facts.get('processor', 'unknown')}, {facts.get('cores', '?')} cores, {facts.get('memory', '?')}, " + (
        facts.get("system", "?")
    )


def _by_subject(told: list[tuple[Report, str]]) -> str:
    """Say something once where it is the same for all, else subject by subject."""
    if len({what for _, what in told}) == 1:
        return told[0][1]
    return "; ".join(f"{report.trained.subject}: {what}" for report, what in told)


def _versions(reports: list[Report]) -> str:
    told = {f"{name} {version}" for report in reports for name, version in report.versions.items() if version}
    return f"Versions: {', '.join(sorted(told))}.\n"


def _table(header: list[str], lines: list[list[str]], words: int) -> str:
    """Lay out a table whose first columns are words and whose others are numbers."""
    ruler = ["---" if i < words else "---:" for i in range(len(header))]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in (header, ruler, *lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"


def main() -> None:
    """Parse the command line and run."""
    options = tyro.cli(BenchmarkOptions)
    configure_logging()
    run_command(lambda: write_page(options), debug=options.debug)


if __name__ == "__main__":
    main()
