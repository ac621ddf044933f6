"""Command: put the reports of several runs into one page.

python -m gaussian_head.benchmark output/a output/b --out docs/benchmarks.md
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from gaussian_head.errors import UserError, configure_logging, run_command
from gaussian_head.evaluation.report import COLUMNS, NAME, SCHEMA, format_figure, format_row
from gaussian_head.media.files import write_bytes

HEADER = """# Benchmarks

Written by `bash scripts/benchmark.sh VIDEO...`, which runs the demo on the procedural subject (`demo`) and on each
video. Figures are means over the frames held out, at the size of the preset; [evaluation.md](evaluation.md) says what
each means and what each row was given. Times are wall-clock seconds on {machine}.
"""


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
        UserError: A report is of another schema, or no run was named.
    """
    if not options.runs:
        raise UserError("name at least one run folder, for example output/demo.")
    reports = [_read(run / NAME) for run in options.runs]
    machine = f"a machine with {os.cpu_count()} cores ({', '.join(sorted({report['device'] for report in reports}))})"
    parts = [HEADER.format(machine=machine), _figures(reports), _times(reports), _versions(reports)]
    write_bytes(options.out, "\n".join(parts).encode())
    print(options.out)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; run scripts/evaluate.sh on that run first.")
    report = json.loads(path.read_text())
    if report.get("schema") != SCHEMA:
        raise UserError(f"{path} is of schema {report.get('schema')}, expected {SCHEMA}; evaluate the run again.")
    return report


def _figures(reports: list[dict[str, Any]]) -> str:
    rows = [
        [report["subject"], report["preset"], name, *format_row(row),
         format_figure(row.get("lips", {}).get("aperture_correlation"), "{:.2f}")]
        for report in reports
        for name, row in report["rows"].items()
    ]  # fmt: skip
    return _table(["subject", "preset", "row", *(title for title, *_ in COLUMNS), "aperture correlation"], rows)


def _times(reports: list[dict[str, Any]]) -> str:
    stages = list(dict.fromkeys(stage for report in reports for stage in report["timing_s"]))
    rows = [
        [report["subject"], *(format_figure(report["timing_s"].get(stage), "{:.0f}") for stage in stages),
         f"{sum(seconds or 0 for seconds in report['timing_s'].values()):.0f}", f"{report['render_fps']:.0f}",
         f"{report['peak_rss_mb']:.0f}"]
        for report in reports
    ]  # fmt: skip
    return _table(["subject", *stages, "sum", "render frames/s", "peak memory, MB"], rows)


def _versions(reports: list[dict[str, Any]]) -> str:
    told = {f"{name} {version}" for report in reports for name, version in report["versions"].items() if version}
    return f"Versions: {', '.join(sorted(told))}.\n"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def main() -> None:
    """Parse the command line and run."""
    options = tyro.cli(BenchmarkOptions)
    configure_logging()
    run_command(lambda: write_page(options), debug=options.debug)


if __name__ == "__main__":
    main()
