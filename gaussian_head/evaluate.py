"""Command: measure a trained head on the frames it has not seen.

python -m gaussian_head.evaluate -S data/<ID> -M output/<name>
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from jaxtyping import UInt8

from gaussian_head.data.subject import Subject
from gaussian_head.device import choose_device
from gaussian_head.driving.regression import SpeechRegression, correlation, load_features
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.errors import UserError, configure_logging, run_command
from gaussian_head.evaluation import page, timing
from gaussian_head.evaluation.compare import Limit, find_drops, parse_limits, unguarded
from gaussian_head.evaluation.contact_sheet import choose_frames, draw_apertures, draw_contact_sheet
from gaussian_head.evaluation.held_out import ENTRIES, Lips, RowFigures, measure_row, true_picture
from gaussian_head.evaluation.landmark_distance import LipDetector
from gaussian_head.evaluation.metric import Figure
from gaussian_head.evaluation.page import write_page
from gaussian_head.evaluation.report import Report, Row, TrainedFacts, row_from
from gaussian_head.geometry.landmarks import mouth_aperture
from gaussian_head.media.image import write_png
from gaussian_head.progress import track
from gaussian_head.render.backdrop import Backdrop, own_scene
from gaussian_head.render.clip import RenderClock, render_clip
from gaussian_head.render.trained import TrainedHead, load_trained

ORACLE_GIVEN = ("pose", "landmarks", "hair_points", "action_units", "torso", "background")
PREDICTED_GIVEN = ("pose", "upper_face_landmarks", "hair_points", "action_units", "torso", "background")


@dataclass(frozen=True)
class EvaluateOptions:
    """Measure a trained head on the val split: table, report.json, report.html, contact sheets."""

    source: Annotated[Path, tyro.conf.arg(aliases=["-S"])]
    """Subject folder the head was trained on."""
    model: Annotated[Path, tyro.conf.arg(aliases=["-M"])]
    """Run folder of the training; the report goes there."""
    device: str = "auto"
    """cpu, cuda or cuda:NUMBER; auto: a GPU where there is one."""
    compare: Path | None = None
    """Earlier report.json that this one must not fall behind; needs --max-drop."""
    max_drop: str = ""
    """How far it may: psnr=0.3,psnr@mouth=0.5,lmd@mouth=5%. Else the exit status is 1."""
    debug: bool = False
    """Show the traceback of an error."""


class Evaluation:
    """One run's measurements on one subject's val frames."""

    def __init__(self, subject: Subject, trained: TrainedHead, run: Path) -> None:
        """Find the frames to show, and the lips of the true pictures."""
        self.subject, self.trained, self.run = subject, trained, run
        self.aperture = mouth_aperture(subject.landmarks[subject.val].numpy())
        self.shown = choose_frames(subject.val, self.aperture)
        self.clock = RenderClock()
        self.written: list[Path] = []
        self.sheets: dict[str, UInt8[np.ndarray, "S R 3"]] = {}
        self.true_lips: dict[int, Lips] = {}
        self.lips_unavailable: str | None = None
        try:
            detector = LipDetector()
        except UserError as error:
            self.lips_unavailable = str(error)
            return
        with detector:
            for k in track(subject.val, len(subject.val), "lips of the true frames"):
                if (lips := detector(true_picture(subject.frame(k)))) is not None:
                    self.true_lips[k] = lips

    def oracle(self) -> Row:
        """Measure with everything tracked."""
        figures = self._measure("oracle", DrivingSequence.from_subject(self.subject, self.subject.val), self.clock)
        return row_from(figures.measured(self.lips_unavailable), ORACLE_GIVEN)

    def predicted(self) -> Row:
        """Measure with lips, chin and lower cheeks predicted from the sound."""
        try:
            regression = SpeechRegression.load(self.run / "driving")
            features = load_features(self.subject, regression.facts.extractor)
        except FileNotFoundError as error:
            return Row({}, unavailable=dict.fromkeys(ENTRIES, str(error)))
        landmarks = regression.predict(features, rest=self.subject.landmarks)[self.subject.val]
        aperture = mouth_aperture(landmarks.numpy())
        motion = DrivingSequence.from_subject(self.subject, self.subject.val).with_landmarks(landmarks)
        measured = self._measure("predicted", motion, RenderClock()).measured(self.lips_unavailable)
        r = correlation(aperture, self.aperture)
        opening = Figure("aperture_correlation", "full", r, len(self.aperture))
        self._write("aperture.png", draw_apertures(self.subject.val, self.aperture, aperture, r))
        return row_from(replace(measured, figures=(*measured.figures, opening)), PREDICTED_GIVEN)

    def _measure(self, name: str, motion: DrivingSequence, clock: RenderClock) -> RowFigures:
        subject = self.subject
        backdrop = Backdrop(subject.layout, subject.width, subject.height, own_scene(subject.layout))
        pictures = track(render_clip(self.trained.head, motion, backdrop, clock), len(motion), f"row {name}")
        if self.lips_unavailable:
            figures = measure_row(pictures, subject, subject.val, set(self.shown), None)
        else:
            with LipDetector() as detector:
                figures = measure_row(pictures, subject, subject.val, set(self.shown), (detector, self.true_lips))
        truths = {k: true_picture(subject.frame(k)) for k in self.shown}
        sheet = draw_contact_sheet(truths, figures.kept, name)
        self.sheets[f"{name}: ground truth, render, difference"] = sheet
        self._write(sheet_name(name), sheet)
        return figures

    def _write(self, name: str, picture: UInt8[np.ndarray, "H W 3"]) -> None:
        write_png(self.run / name, picture)
        self.written.append(self.run / name)


@dataclass(frozen=True)
class Guard:
    """An earlier report, and how far the new one may fall behind it."""

    before: Report
    limits: tuple[Limit, ...]

    @classmethod
    def load(cls, options: EvaluateOptions) -> Guard | None:
        """Read what the command line names, before anything is measured; None where it names nothing.

        Raises:
            FileNotFoundError: The earlier report does not exist.
            UserError: It is damaged, a limit is not understood, or one of the two options is missing.
        """
        if options.compare is None and not options.max_drop:
            return None
        if options.compare is None or not options.max_drop:
            raise UserError("--compare and --max-drop belong together; give both, or neither.")
        before = Report.load(options.compare)
        return cls(before, parse_limits(options.max_drop, before.entries.keys() | ENTRIES.keys()))

    def check(self, report: Report) -> None:
        """Print what got worse, one line each.

        Raises:
            SystemExit: Something did; with status 1.
        """
        for name in unguarded(self.before, self.limits):
            print(f"{name}: the earlier report has no value; nothing is guarded", file=sys.stderr)
        drops = find_drops(report, self.before, self.limits)
        for drop in drops:
            print(drop, file=sys.stderr)
        if drops:
            sys.exit(1)


def sheet_name(row: str) -> str:
    """Return the file name of a row's contact sheet; the oracle's is the contact sheet."""
    return "contact_sheet.png" if row == "oracle" else f"contact_sheet_{row}.png"


def evaluate(options: EvaluateOptions) -> None:
    """Measure, write and print; see `EvaluateOptions`."""
    from rich.console import Console

    guard = Guard.load(options)
    device = choose_device(options.device)
    trained = load_trained(options.model)
    trained.head.to(device)
    subject = Subject(options.source, trained.size)
    if trained.subject != subject.layout.subject:
        raise UserError(f"{options.model} was trained on {trained.subject}, not on {subject.layout.subject}; "
                        f"give -S data/{trained.subject}.")  # fmt: skip
    evaluation = Evaluation(subject, trained, options.model)
    rows = {"oracle": evaluation.oracle(), "predicted": evaluation.predicted()}
    recorded = timing.read_timing(options.model)
    facts = TrainedFacts(
        subject=trained.subject,
        preset=trained.preset,
        device=str(device),
        timing_s={"process": timing.process_seconds(subject.layout)} | {s: recorded.get(s) for s in timing.STAGES},
        render_fps=round(evaluation.clock.fps, 2),
        peak_rss_mb=max(timing.peak_rss_mb(), recorded.get("peak_rss_mb", 0.0)),
    )
    compared = {"split": "val", "frames": len(subject.val), "size_px": [subject.width, subject.height]}
    report = Report(f"{facts.subject} ({facts.preset}), frames held out", rows, ENTRIES, compared, trained=facts)
    path = report.save(options.model)
    write_page(report, report.traces(), evaluation.sheets, options.model / page.NAME)
    console = Console()
    console.print(report.table(console.width))
    for remark in report.remarks():
        print(remark)
    for picture in evaluation.written:
        print(picture)
    print(options.model / page.NAME)
    print(path)
    if guard is not None:
        guard.check(report)


def main() -> None:
    """Parse the command line and run."""
    configure_logging()
    options = tyro.cli(EvaluateOptions)
    run_command(lambda: evaluate(options), debug=options.debug)


if __name__ == "__main__":
    main()
