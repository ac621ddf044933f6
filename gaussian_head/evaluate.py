"""Command: measure a trained head on the frames it has not seen, any video, or a folder of videos.

python -m gaussian_head.evaluate -S data/<ID> -M output/<name>
python -m gaussian_head.evaluate --pred result.mp4 [--gt truth.mp4] [--align shortest]
python -m gaussian_head.evaluate --pred results/ --gt truths/ --protocol self [--annotations list.csv]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from gaussian_head.data.subject import Subject
from gaussian_head.device import choose_device
from gaussian_head.errors import UserError, configure_logging, run_command
from gaussian_head.evaluation import page, registry
from gaussian_head.evaluation.clip import Align
from gaussian_head.evaluation.compare import Guard
from gaussian_head.evaluation.contact_sheet import draw_contact_sheet
from gaussian_head.evaluation.held_out import measure_held_out
from gaussian_head.evaluation.measure_clip import measure_clip
from gaussian_head.evaluation.metric import Metric, Rgb
from gaussian_head.evaluation.protocols import PROTOCOLS
from gaussian_head.evaluation.report import TRUTH, Report, row_from
from gaussian_head.evaluation.set_figures import missing_columns, set_tables
from gaussian_head.evaluation.sets import NAME as SET_NAME
from gaussian_head.evaluation.sets import measure_set, require_whole
from gaussian_head.media.image import write_png
from gaussian_head.networks.weights import loaded_hashes
from gaussian_head.render.trained import load_trained

OUT = Path("output/evaluation")
SHOWN = 8
"""Frames on a contact sheet."""


@dataclass(frozen=True)
class EvaluateOptions:
    """Measure talking heads: a table, report.json, traces.json and report.html.

    Either a trained head (-S, -M), or one video or folder of frames (--pred, and --gt for what it should be), or two
    folders of videos (--pred, --gt, --protocol).
    """

    source: Annotated[Path | None, tyro.conf.arg(aliases=["-S"])] = None
    """Subject folder that a head was trained on."""
    model: Annotated[Path | None, tyro.conf.arg(aliases=["-M"])] = None
    """Run folder of its training; the report goes there."""
    pred: Path | None = None
    """What is judged: a video, a folder of frames, or (with --protocol) a folder of these."""
    gt: Path | None = None
    """What it should be, likewise."""
    out: Path | None = None
    """Folder for the report; default: output/evaluation/<name of --pred>."""
    align: Align = "strict"
    """Where frame counts, sizes or rates differ: an error, cut the longer one, or fit the truth to the prediction."""
    fps: float = 25.0
    """Rate of folders of frames."""
    protocol: Literal["vico", "self", "cross", "diffused"] | None = None
    """List of metrics, and the averaging, of a paper, over all videos of a folder."""
    annotations: Path | None = None
    """With --protocol: CSV that lists the clips; default: all clips of --pred."""
    processes: int = 1
    """With --protocol: clips measured at once."""
    metrics: tuple[str, ...] = ()
    """Names of the figures wanted; default: all that can be measured."""
    compare: Path | None = None
    """Earlier report.json that this one must not fall behind."""
    max_drop: str = ""
    """With --compare: how much worse figures may get, as in "psnr=0.3,ssim@mouth=1%,lmd=5%"."""
    device: str = "auto"
    """cpu, cuda or cuda:NUMBER; auto: a GPU where there is one."""
    debug: bool = False
    """Show the traceback of an error."""


def evaluate(options: EvaluateOptions) -> None:
    """Measure, write, print and compare; see `EvaluateOptions`."""
    check(options)
    if options.protocol is not None:
        measure_folder(options)
        return
    guard = Guard.load(options.compare, options.max_drop, registry.entries())
    report = measure_head(options) if options.model is not None else measure_video(options)
    if guard is not None:
        enforce(guard, report)


def check(options: EvaluateOptions) -> None:
    """Refuse options that do not go together.

    Raises:
        UserError: Says which.
    """
    head, videos = (options.source, options.model), (options.pred, options.gt, options.protocol, options.annotations)
    if any(head) and any(videos):
        raise UserError("-S and -M measure a trained head, --pred, --gt and --protocol videos; give one or the other.")
    if None in head and options.pred is None:
        raise UserError("give -S data/<ID> and -M output/<name>, or --pred VIDEO (and --gt VIDEO).")
    if options.annotations and not options.protocol:
        raise UserError("--annotations lists the clips of a set; give --protocol too.")
    if options.protocol and (options.compare or options.max_drop or options.metrics):
        raise UserError(
            "--protocol says itself what is measured, and goes without --compare, --max-drop and --metrics."
        )
    if unknown := sorted(set(options.metrics) - set(registry.entries())):
        raise UserError(f"--metrics: no metric {', '.join(unknown)}; there are: {', '.join(registry.entries())}.")


def measure_head(options: EvaluateOptions) -> Report:
    """Measure a trained head on its subject's val frames."""
    trained = load_trained(options.model)
    trained.head.to(choose_device(options.device))
    subject = Subject(options.source, trained.size)
    if trained.subject != subject.layout.subject:
        raise UserError(f"{options.model} was trained on {trained.subject}, not on {subject.layout.subject}; "
                        f"give -S data/{trained.subject}.")  # fmt: skip
    report, sheets = measure_held_out(subject, trained, options.model, wanted_metrics(options))
    return publish(report, options.model, sheets)


def measure_video(options: EvaluateOptions) -> Report:
    """Measure any video or folder of frames."""
    measured = measure_clip(
        options.pred, options.gt, options.align, options.metrics or None, fps=options.fps,
        device=choose_device(options.device), shown=SHOWN,
    )  # fmt: skip
    name = options.pred.stem
    title = options.pred.name if options.gt is None else f"{options.pred.name} against {options.gt.name}"
    rows = {name: row_from(measured)}
    if measured.truth is not None:
        rows[TRUTH] = row_from(measured.truth, ("everything",))
    report = Report(title, rows, registry.entries(), measured.compared, loaded_hashes())
    sheet = draw_contact_sheet(measured.truths, measured.pictures, name)
    return publish(report, options.out or OUT / name, {name: sheet})


def measure_folder(options: EvaluateOptions) -> None:
    """Measure all videos of a folder by a paper's protocol."""
    from rich.console import Console

    out = options.out or OUT / f"{options.pred.name}_{options.protocol}"
    document = measure_set(
        options.pred, options.gt, options.annotations, PROTOCOLS[options.protocol], out,
        processes=options.processes, align=options.align, fps=options.fps,
    )  # fmt: skip
    console = Console()
    for table in set_tables(document, console.width):
        console.print(table)
    for line in missing_columns(document):
        print(line)
    print(out / SET_NAME)
    require_whole(document)


def wanted_metrics(options: EvaluateOptions) -> list[type[Metric]]:
    """Return the classes that give the figures asked for."""
    wanted = set(options.metrics or registry.entries())
    return [metric for metric in registry.METRICS if wanted & {entry.name for entry in metric.entries}]


def publish(report: Report, folder: Path, sheets: dict[str, Rgb]) -> Report:
    """Write the report, its page and pictures; print the table and where they are."""
    from rich.console import Console

    path = report.save(folder)
    page.write_page(report, report.traces(), sheets, folder / page.NAME)
    for row, sheet in sheets.items():
        write_png(folder / sheet_name(row), sheet)
    Console().print(report.table())
    for remark in report.remarks():
        print(remark)
    for written in (*map(sheet_name, sheets), page.NAME):
        print(folder / written)
    print(path)
    return report


def enforce(guard: Guard, report: Report) -> None:
    """Tell what got worse than the earlier report, one line each.

    Raises:
        SystemExit: Something did; with status 1.
    """
    for name in guard.unguarded():
        print(f"{name}: the earlier report has no value; nothing is guarded", file=sys.stderr)
    drops = guard.check(report)
    for drop in drops:
        print(drop, file=sys.stderr)
    if drops:
        sys.exit(1)


def sheet_name(row: str) -> str:
    """Return the file name of a row's contact sheet; a trained head's rows driven by sound have names of their own."""
    return f"contact_sheet_{row}.png" if row in ("predicted", "synthetic") else "contact_sheet.png"


def main() -> None:
    """Parse the command line and run."""
    configure_logging()
    options = tyro.cli(EvaluateOptions)
    run_command(lambda: evaluate(options), debug=options.debug)


if __name__ == "__main__":
    main()
