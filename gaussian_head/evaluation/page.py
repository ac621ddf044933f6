"""The report as one HTML file that a person looks at: no network, no scripts, light and dark."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from gaussian_head.evaluation import plot
from gaussian_head.evaluation.metric import Entry, Figure
from gaussian_head.evaluation.plot import Line, line_plot
from gaussian_head.evaluation.report import ARROWS, REGIONS, SCHEMA, Report, Traces, format_value
from gaussian_head.media.files import write_bytes
from gaussian_head.media.image import encode_jpeg

NAME = "report.html"
PICTURE_QUALITY = 92
DIRECTIONS = {
    "higher": "higher is better",
    "lower": "lower is better",
    "zero": "closer to zero is better",
    "neither": "to be compared with the truth's",
}

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fdfdfc; --ink: #23272e; --faint: #68707c; --grid: #e3e5e8; --wash: #f4f5f6; --warn: #9a5b00;
  --line-1: #2468a8; --line-2: #d06a12; --line-3: #2c8a57; --line-4: #9a4596; --line-5: #7c6a1c; --line-6: #5c6470;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #16181c; --ink: #dfe2e6; --faint: #98a0ab; --grid: #31353c; --wash: #1e2126; --warn: #e2ac57;
    --line-1: #6cb0ee; --line-2: #f2a15c; --line-3: #6bc995; --line-4: #d592d0; --line-5: #cfbb62; --line-6: #a3abb7;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 3rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; font-weight: 600; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; font-weight: 600; margin: 3rem 0 .8rem; }
h3 { font-size: .95rem; font-weight: 600; margin: 1.6rem 0 .5rem; color: var(--faint); }
p { margin: .4rem 0 .8rem; max-width: 46rem; }
.lead, .note { color: var(--faint); }
.note, ol.sources { font-size: .85rem; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin-top: 1rem; font-size: .9rem; }
a { color: var(--line-1); text-decoration: none; }
a:hover { text-decoration: underline; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
table.figures { min-width: min(100%, 34rem); }
th, td { padding: .32rem 1.1rem .32rem 0; text-align: left; vertical-align: baseline; font-weight: 400; }
thead th { color: var(--faint); font-size: .85rem; border-bottom: 1px solid var(--grid); white-space: nowrap; }
tbody th { white-space: nowrap; }
tbody tr + tr > * { border-top: 1px solid var(--grid); }
tbody th.region { padding-top: 1.3rem; font-weight: 600; border-top: 0 !important; }
tbody tr.first > * { border-top: 1px solid var(--grid); }
td.number, th.number { text-align: right; white-space: nowrap; }
td.number:last-child, th.number:last-child { padding-right: 0; }
td.wrap { overflow-wrap: anywhere; }
td.hash { font: .8rem ui-monospace, monospace; overflow-wrap: anywhere; }
abbr { text-decoration: none; cursor: help; }
sup, sup a { font-size: .7rem; color: var(--faint); line-height: 0; }
.unit { color: var(--faint); font-size: .85rem; }
.warn { color: var(--warn); }
ul.missing { padding-left: 1.1rem; margin: .4rem 0; font-size: .92rem; }
ul.missing li { margin: .25rem 0; overflow-wrap: anywhere; }
ol.sources { padding-left: 1.6rem; color: var(--faint); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.4rem; margin: .4rem 0 1rem; }
dl { font-size: .92rem; }
dt { color: var(--faint); }
dd { margin: 0; overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); gap: 1.4rem 2rem; }
figure { margin: 0; min-width: 0; }
figcaption { font-size: .88rem; margin-bottom: .3rem; }
figure.sheet { margin-top: 1.4rem; }
figure.sheet img { display: block; height: auto; max-width: max(100%, 100rem); border: 1px solid var(--grid); }
details > summary { cursor: pointer; margin: 1.4rem 0 .8rem; font-size: .95rem; font-weight: 600; color: var(--faint); }
@media (max-width: 36rem) {
  main { padding: 1.6rem 1rem 3rem; }
  h1 { font-size: 1.5rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; }
  th, td { padding-right: .8rem; }
  tbody th { white-space: normal; }
}
@media print { details { display: block; } nav { display: none; } }
"""


def write_page(report: Report, traces: Traces, pictures: dict[str, UInt8[np.ndarray, "H W 3"]], path: Path) -> None:
    """Write the page.

    Args:
        report: What it tells.
        traces: Values frame by frame, as `Report.traces` or `traces.json` has them.
        pictures: Contact sheets by caption; put into the file.
        path: Where, usually `report.html` beside the report.
    """
    sections = {
        "What was compared": _compared(report),
        "Figures": _figures(report),
        "Not available": _missing(report),
        "Frame by frame": _traces(report, traces),
        "Over a shift in time": _curves(report),
        "Pictures": "".join(_picture(caption, picture) for caption, picture in pictures.items()),
        "Time and memory": _speed(report),
        "What it ran on": _provenance(report),
    }
    told = {title: body for title, body in sections.items() if body}
    links = "".join(f'<a href="#{_anchor(title)}">{title}</a>' for title in told)
    body = "".join(f'<section id="{_anchor(title)}"><h2>{title}</h2>{part}</section>' for title, part in told.items())
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        # whatever a file name or a reason says, this page loads nothing and runs nothing
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(report.title)}</title><style>{STYLE}{plot.STYLE}</style></head>\n"
        f'<body><main><header><h1>{_text(report.title)}</h1><p class="lead">{_lead(report)}</p>'
        f"<nav>{links}</nav></header>\n{body}\n</main></body></html>\n"
    )
    write_bytes(path, page.encode())


def _lead(report: Report) -> str:
    if report.trained is None:
        return f"Evaluation of {_text(_listed(list(report.rows)))}"
    facts = report.trained
    return _text(f"Evaluation of the head of {facts.subject}, preset {facts.preset}, on {facts.device}")


def _compared(report: Report) -> str:
    """Tell what was compared: single facts as a list, the clips side by side; then what came from ground truth."""
    clips = {name: value for name, value in report.compared.items() if isinstance(value, dict)}
    facts = {name: value for name, value in report.compared.items() if name not in clips}
    parts = []
    if clips:
        keys = list(dict.fromkeys(key for clip in clips.values() for key in clip))
        head = "".join(f"<th>{_text(_words(name))}</th>" for name in clips)
        lines = "".join(
            f"<tr><th>{_text(_words(key))}</th>"
            + "".join(f'<td class="wrap">{_fact(key, clip.get(key))}</td>' for clip in clips.values())
            + "</tr>"
            for key in keys
        )
        parts.append(
            f'<div class="scroll"><table><thead><tr><th></th>{head}</tr></thead><tbody>{lines}</tbody></table></div>'
        )
    if facts:
        parts.append(_list({_words(key): _fact(key, value) for key, value in facts.items()}))
    given = {
        name: _text(", ".join(_words(what) for what in row.from_ground_truth) or "nothing")
        for name, row in report.rows.items()
        if row.figures
    }
    parts.append(f"<h3>Taken from ground truth</h3>{_list(given)}")
    return "".join(parts)


def _figures(report: Report) -> str:
    """Tell the figures: a line for each metric, a column for each row of the report, the regions one below another."""
    shown = {region: entries for region in REGIONS if (entries := report.measured_in(region))}
    if not shown:
        return "<p>No figure could be computed.</p>"
    sources = list(dict.fromkeys(entry.reference for entries in shown.values() for entry in entries))
    rows = [name for name, row in report.rows.items() if row.figures]
    head = "".join(f'<th class="number">{_text(name)}</th>' for name in rows)
    lines = []
    for region, entries in shown.items():
        title = REGIONS[region].capitalize()
        lines.append(f'<tr><th class="region" colspan="{len(rows) + 2}" scope="colgroup">{title}</th></tr>')
        for i, entry in enumerate(entries):
            number = sources.index(entry.reference) + 1
            note = f'<sup><a href="#source-{number}">{number}</a></sup>'
            cells = "".join(_cell(report.figure(row, entry.name, region), entry) for row in rows)
            first = ' class="first"' if i == 0 else ""
            lines.append(f"<tr{first}><th>{_title(entry)}{note}</th>{_unit(entry)}{cells}</tr>")
    notes = "".join(f'<li id="source-{i}">{_text(source)}</li>' for i, source in enumerate(sources, 1))
    told = [f"{row}: {', '.join(what)}: {how}" for row, how, what in report.left_out()]
    items = "".join(f"<li>{_text(line)}</li>" for line in told)
    left_out = f'<h3 class="warn">* Frames left out</h3><ul class="note">{items}</ul>' if told else ""
    return (
        '<p class="note">Means over the frames counted. ↑ higher is better, ↓ lower is better, →0 closer to zero is '
        "better; without an arrow, a figure is to be compared with the truth’s.</p>"
        f"{_table(f'<th>metric</th><th>unit</th>{head}', ''.join(lines), kind='figures')}{left_out}"
        f'<h3>Definitions</h3><ol class="sources">{notes}</ol>'
    )


def _title(entry: Entry) -> str:
    arrow = f" {ARROWS[entry.better]}" if ARROWS[entry.better] else ""
    hint = f"{entry.name}: {DIRECTIONS[entry.better]}. {entry.reference}"
    return f'<abbr title="{_text(hint)}">{_text(entry.title)}{arrow}</abbr>'


def _unit(entry: Entry) -> str:
    return f'<td class="unit">{_text(entry.unit)}</td>'


def _cell(figure: Figure | None, entry: Entry) -> str:
    if figure is None:
        return '<td class="number"></td>'
    hint = f"{figure.counted} frames counted"
    if figure.excluded:
        hint += f", {figure.excluded} left out"
    if figure.reason:
        hint += f": {figure.reason}"
    mark = '<span class="warn">*</span>' if figure.excluded else ""
    return f'<td class="number" title="{_text(hint)}">{_text(format_value(figure.value, entry))}{mark}</td>'


def _missing(report: Report) -> str:
    lines = []
    for reason, by_row in report.missing().items():
        for titles in dict.fromkeys(map(tuple, by_row.values())):
            where = [row for row, its in by_row.items() if tuple(its) == titles]
            what = "Everything" if all(not report.rows[row].figures for row in where) else ", ".join(titles)
            only = "" if report.are_all(where) else f" ({_listed(where)})"
            lines.append(f'<li>{_text(what + only)} <span class="lead">– {_text(reason)}</span></li>')
    return f'<ul class="missing">{"".join(lines)}</ul>' if lines else ""


def _traces(report: Report, traces: Traces) -> str:
    inks = {row: i for i, row in enumerate(report.rows)}
    parts = []
    for region, title in REGIONS.items():
        plots = []
        for name, entry in report.occurring.items():
            lines = [
                Line(row if len(traces) > 1 else "", range(len(values)), values, inks.get(row, 0))
                for row, by_entry in traces.items()
                if (values := by_entry.get(name, {}).get(region))
            ]
            if lines:
                svg = line_plot(lines, f"{entry.title}, {title}, frame by frame", "measured frame")
                plots.append(_plot(entry, svg))
        if plots:
            summary = f"<summary>{title.capitalize()}</summary>"
            parts.append(f'<details open>{summary}<div class="plots">{"".join(plots)}</div></details>')
    return "".join(parts)


def _curves(report: Report) -> str:
    inks = {row: i for i, row in enumerate(report.rows)}
    plots = []
    for name, entry in report.occurring.items():
        curves = {row: held.curves[name] for row, held in report.rows.items() if name in held.curves}
        if curves:
            first = next(iter(curves.values()))
            lines = [Line(row, curve.x, curve.y, inks[row]) for row, curve in curves.items()]
            svg = line_plot(lines, f"{entry.title} over {first.x_label}", first.x_label, first.y_label, marks=True)
            plots.append(f"<figure><figcaption>{_title(entry)}</figcaption>{svg}</figure>")
    return f'<div class="plots">{"".join(plots)}</div>' if plots else ""


def _plot(entry: Entry, svg: str) -> str:
    unit = f' <span class="unit">{_text(entry.unit)}</span>' if entry.unit else ""
    return f"<figure><figcaption>{_title(entry)}{unit}</figcaption>{svg}</figure>"


def _picture(caption: str, picture: UInt8[np.ndarray, "H W 3"]) -> str:
    height, width = picture.shape[:2]
    source = b64encode(encode_jpeg(picture, PICTURE_QUALITY)).decode()
    return (
        f'<figure class="sheet"><figcaption>{_text(caption)}</figcaption><div class="scroll">'
        f'<img alt="{_text(caption)}" width="{width}" height="{height}" src="data:image/jpeg;base64,{source}">'
        "</div></figure>"
    )


def _speed(report: Report) -> str:
    if report.trained is None:
        return ""
    timing = report.trained.timing_s.items()
    facts = {_words(stage): "not recorded" if seconds is None else f"{seconds:.0f} s" for stage, seconds in timing}
    facts["render loop"] = f"{report.trained.render_fps:.1f} frames/s"
    facts["peak memory"] = f"{report.trained.peak_rss_mb:.0f} MB"
    return _list({name: _text(value) for name, value in facts.items()})


def _provenance(report: Report) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items() if version)
    facts = {name: _text(value) for name, value in report.machine.items()} | {"versions": _text(versions)}
    hashes = "".join(
        f'<tr><td>{_text(file)}</td><td class="hash">{_text(digest)}</td></tr>'
        for file, digest in report.weights.items()
    )
    weights = _table("<th>weights</th><th>SHA-256</th>", hashes) if hashes else ""
    none = "" if hashes else '<p class="note">No figure above needed weights.</p>'
    return f'{_list(facts)}{weights}{none}<p class="note">Report of schema {SCHEMA}.</p>'


def _table(head: str, body: str, kind: str = "facts") -> str:
    """Put cells and lines, HTML already, into a table that scrolls where it is too wide."""
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _list(facts: dict[str, str]) -> str:
    """Lay out facts; the values are HTML already."""
    return "<dl>" + "".join(f"<dt>{_text(name)}</dt><dd>{value}</dd>" for name, value in facts.items()) + "</dl>"


def _fact(key: str, value: Any) -> str:  # noqa: ANN401 -- any JSON value
    if value is None:
        return "–"
    if isinstance(value, list):
        return _text((" × " if key.endswith("size_px") else ", ").join(map(str, value)))
    return _text(f"{value:g}" if isinstance(value, float) else str(value))


def _words(key: str) -> str:
    return key.replace("_px", ", px").replace("_", " ")


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else ""


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _text(value: str) -> str:
    return escape(value, quote=True)
