"""Command: measure a trained head on the frames it has not seen, any video, or a folder of videos.

python -m gaussian_head.evaluate -S data/<ID> -M output/<name>
python -m gaussian_head.evaluate --pred result.mp4 [--gt truth.mp4] [--align shortest]
python -m gaussian_head.evaluate --pred results/ --gt truths/ --protocol self [--annotations list.csv]
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from rich.console import Console

from gaussian_head.data.subject import Subject
from gaussian_head.device import choose_device
from gaussian_head.driving.regression import SpeechRegression, load_features
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.errors import UserError, configure_logging, run_command
from gaussian_head.evaluation import registry, timing
from gaussian_head.evaluation.clip import Align
from gaussian_head.evaluation.compare import find_drops, parse_limits, unguarded
from gaussian_head.evaluation.contact_sheet import choose_frames, draw_contact_sheet
from gaussian_head.evaluation.held_out import FindMesh, HeldOut
from gaussian_head.evaluation.measure import measure
from gaussian_head.evaluation.measure_clip import ONE_LOOK, measure_clip
from gaussian_head.evaluation.page import write_page
from gaussian_head.evaluation.report import Report, Row, TrainedFacts, row_from
from gaussian_head.evaluation.sets import measure_set
from gaussian_head.geometry.landmarks import mouth_aperture
from gaussian_head.media.image import write_png
from gaussian_head.networks.face_mesh import FaceMeshDetector
from gaussian_head.networks.weights import loaded_hashes
from gaussian_head.progress import track
from gaussian_head.render.clip import RenderClock
from gaussian_head.render.trained import TrainedHead, load_trained

ORACLE_GIVEN = ("pose", "landmarks", "hair_points", "action_units", "torso", "background")
PREDICTED_GIVEN = ("pose", "upper_face_landmarks", "hair_points", "action_units", "torso", "background")
PAGE_NAME = "report.html"


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
    report = measure_trained(options) if options.model else measure_video(options)
    if options.compare is not None:
        guard(report, Report.load(options.compare), options.max_drop)


def check(options: EvaluateOptions) -> None:
    """Refuse options that do not go together.

    Raises:
        UserError: Says which.
    """
    trained, video = (options.source, options.model), options.pred
    if (video is None) == (None in trained) and not (video is None and any(trained)):
        raise UserError("give either -S data/<ID> and -M output/<name>, or --pred VIDEO (and --gt VIDEO).")
    if any(trained) and (None in trained or options.gt or options.protocol):
        raise UserError("-S and -M belong together, and go without --gt and --protocol.")
    if options.protocol is None and options.annotations:
        raise UserError("--annotations goes with --protocol.")
    if bool(options.compare) != bool(options.max_drop) or (options.compare and options.protocol):
        raise UserError("--compare and --max-drop belong together, and go without --protocol.")
    if unknown := sorted(set(options.metrics) - set(registry.entries())):
        raise UserError(f"--metrics: no metric {', '.join(unknown)}; there are: {', '.join(registry.entries())}.")


def measure_trained(options: EvaluateOptions) -> Report:
    """Measure a trained head on its subject's val frames, driven by what was tracked and by the sound."""
    device = choose_device(options.device)
    trained = load_trained(options.model)
    trained.head.to(device)
    subject = Subject(options.source, trained.size)
    if trained.subject != subject.layout.subject:
        raise UserError(f"{options.model} was trained on {trained.subject}, not on {subject.layout.subject}; "
                        f"give -S data/{trained.subject}.")  # fmt: skip
    clock, sheets = RenderClock(), {}
    shown = choose_frames(subject.val, mouth_aperture(subject.landmarks[subject.val].numpy()))
    with find_faces() as find_true_mesh:
        held_out = HeldOut(subject, shown, find_true_mesh)
        oracle = DrivingSequence.from_subject(subject, subject.val)
        rows = {"oracle": _measure_row(options, "oracle", ORACLE_GIVEN, held_out, trained, oracle, clock, sheets)}
        try:
            heard = predicted_motion(subject, options.model, oracle)
        except FileNotFoundError as error:
            rows["predicted"] = Row({}, (), dict.fromkeys(wanted_entries(options), str(error)))
        else:
            rows["predicted"] = _measure_row(
                options, "predicted", PREDICTED_GIVEN, held_out, trained, heard, RenderClock(), sheets
            )
    for name, sheet in sheets.items():
        write_png(options.model / sheet_name(name), sheet)
    recorded = timing.read_timing(options.model)
    facts = TrainedFacts(
        subject=trained.subject,
        preset=trained.preset,
        device=str(device),
        timing_s={"process": timing.process_seconds(subject.layout)} | {s: recorded.get(s) for s in timing.STAGES},
        render_fps=clock.fps,
        peak_rss_mb=max(timing.peak_rss_mb(), recorded.get("peak_rss_mb", 0.0)),
    )
    compared = {
        "frames": f"{len(subject.val)} held out, of {subject.frames}",
        "size_px": [subject.width, subject.height],
        "fps": oracle.fps,
        "picture": "rendered, 8 bits, before any video encoding",
        "truth": "gt_imgs of the subject folder",
    }
    title = f"{trained.subject} ({trained.preset}), frames held out"
    report = Report(title, rows, registry.entries(), compared, loaded_hashes(), facts)
    return publish(report, options.model, sheets)


def _measure_row(
    options: EvaluateOptions, name: str, given: tuple[str, ...], held_out: HeldOut, trained: TrainedHead,
    motion: DrivingSequence, clock: RenderClock, sheets: dict[str, np.ndarray],
) -> Row:  # fmt: skip
    kept: dict[int, np.ndarray] = {}
    with find_faces() as find_mesh, tempfile.TemporaryDirectory() as folder:
        pairs = held_out.pairs(trained.head, motion, clock, find_mesh, kept)
        facts = held_out.facts(motion, Path(folder))
        measured = measure(track(pairs, len(motion), f"row {name}"), facts, wanted_metrics(options))
    sheets[name] = draw_contact_sheet(held_out.truths, kept, name)
    return row_from(measured, given)


def predicted_motion(subject: Subject, run: Path, oracle: DrivingSequence) -> DrivingSequence:
    """Return the val frames' motion with lips, chin and lower cheeks predicted from the sound.

    Raises:
        FileNotFoundError: The run has no fitted regression, or the subject no features of its kind.
    """
    regression = SpeechRegression.load(run / "driving")
    features = load_features(subject, regression.facts.extractor)
    return oracle.with_landmarks(regression.predict(features, rest=subject.landmarks)[subject.val])


def measure_video(options: EvaluateOptions) -> Report:
    """Measure any video or folder of frames."""
    device = choose_device(options.device)
    out = options.out or Path("output/evaluation") / options.pred.stem
    result = measure_clip(
        options.pred, options.gt, options.align, options.metrics or None, fps=options.fps, device=device
    )
    row = row_from(result.measured)
    title = options.pred.name if options.gt is None else f"{options.pred.name} against {options.gt.name}"
    report = Report(title, {options.pred.stem: row}, registry.entries(), result.compared, loaded_hashes())
    return publish(report, out, {options.pred.stem: result.sheet} if result.sheet is not None else {})


def measure_folder(options: EvaluateOptions) -> None:
    """Measure all videos of a folder by a paper's protocol."""
    out = options.out or Path("output/evaluation") / f"{options.pred.name}_{options.protocol}"
    measure_set(
        options.pred, options.gt, options.annotations, options.protocol, out, options.processes, options.align
    )


def wanted_metrics(options: EvaluateOptions) -> list[type[registry.Metric]]:
    """Return the classes that give the figures asked for."""
    names = set(wanted_entries(options))
    return [metric for metric in registry.METRICS if names & {entry.name for entry in metric.entries}]


def wanted_entries(options: EvaluateOptions) -> tuple[str, ...]:
    """Return the names of the figures asked for."""
    return options.metrics or tuple(registry.entries())


@contextmanager
def find_faces() -> Iterator[FindMesh]:
    """Give a function that follows the face of one clip; without mediapipe, one that finds none."""
    with ExitStack() as stack:
        try:
            yield stack.enter_context(FaceMeshDetector(ONE_LOOK)).detect
        except UserError:
            yield lambda rgb: None


def publish(report: Report, folder: Path, sheets: dict[str, np.ndarray]) -> Report:
    """Write the report and its page, and print the table and where they are."""
    path = report.save(folder)
    write_page(report, report.traces(), sheets, folder / PAGE_NAME)
    console = Console()
    console.print(report.table(console.width))
    for remark in report.remarks():
        print(remark)
    for name in sheets:
        print(folder / sheet_name(name))
    print(folder / PAGE_NAME)
    print(path)
    return report


def sheet_name(row: str) -> str:
    """Return the file name of a row's contact sheet; the oracle's is the contact sheet."""
    return "contact_sheet.png" if row == "oracle" else f"contact_sheet_{row}.png"


def guard(now: Report, before: Report, max_drop: str) -> None:
    """Leave with status 1 and a line for every figure that got worse by more than it may.

    Raises:
        SystemExit: Something did.
    """
    limits = parse_limits(max_drop, set(now.entries) | set(before.entries))
    for name in unguarded(before, limits):
        print(f"--max-drop: {name} guards nothing: the earlier report has no value for it")
    drops = find_drops(now, before, limits)
    for drop in drops:
        print(drop)
    if drops:
        raise SystemExit(1)
    print(f"no figure of {', '.join(limit.name for limit in limits)} got worse by more than it may")


def main() -> None:
    """Parse the command line and run."""
    configure_logging()
    options = tyro.cli(EvaluateOptions)
    run_command(lambda: evaluate(options), debug=options.debug)


if __name__ == "__main__":
    main()
