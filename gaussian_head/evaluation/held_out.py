"""A trained head on the frames it has not seen, rendered and laid beside the true ones."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gaussian_head.data.layout import SPEECH_HZ
from gaussian_head.data.subject import Frame, Subject
from gaussian_head.driving.features import load_features
from gaussian_head.driving.predictor import load_predictor
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.evaluation import registry, timing
from gaussian_head.evaluation.contact_sheet import choose_frames, draw_contact_sheet
from gaussian_head.evaluation.measure_clip import FindMesh, measure_with_faces, mouth_mask
from gaussian_head.evaluation.metric import ClipFacts, Look, Mesh, Metric, Pair, Region, Rgb, Side
from gaussian_head.evaluation.report import TRUTH, Report, Row, TrainedFacts, row_from
from gaussian_head.geometry.cameras import project
from gaussian_head.geometry.landmarks import mouth_aperture
from gaussian_head.media.audio import load_audio, write_wav
from gaussian_head.networks.weights import loaded_hashes
from gaussian_head.progress import track
from gaussian_head.render.backdrop import Backdrop, own_scene
from gaussian_head.render.clip import RenderClock, render_clip
from gaussian_head.render.trained import TrainedHead

ORACLE_GIVEN = ("pose", "landmarks", "hair_points", "action_units", "torso", "background")
PREDICTED_GIVEN = ("pose", "upper_face_landmarks", "hair_points", "action_units", "torso", "background")


def measure_held_out(
    subject: Subject, trained: TrainedHead, run: Path, metrics: Sequence[type[Metric]] = registry.METRICS
) -> tuple[Report, dict[str, Rgb]]:
    """Measure a head on its subject's val frames: row `oracle` moved as tracked, row `predicted` by the sound.

    Args:
        subject: The person the head was trained on.
        trained: The head, on the device that renders.
        run: Its run folder: holds the speech predictor and the stages' times.
        metrics: What to measure.

    Returns:
        The report, and a contact sheet by row.
    """
    held_out = HeldOut(subject, trained)
    rows = {}
    told = trained.head.config
    tracked = DrivingSequence.from_subject(subject, subject.val, told.audio_features)
    given = PREDICTED_GIVEN if told.condition == "audio" else ORACLE_GIVEN
    rows["oracle"], truth = held_out.measure("oracle", tracked, given, metrics)
    try:
        heard = _hear(subject, run, tracked)
    except FileNotFoundError as error:
        names = (entry.name for metric in metrics for entry in metric.entries)
        rows["predicted"] = Row({}, unavailable=dict.fromkeys(names, str(error)))
    else:
        rows["predicted"], _ = held_out.measure("predicted", heard, PREDICTED_GIVEN, metrics)
    if truth is not None:
        rows[TRUTH] = truth
    recorded = timing.read_timing(run)
    facts = TrainedFacts(
        subject=trained.subject,
        preset=trained.preset,
        device=str(trained.head.space.rest.device),
        timing_s={"process": timing.process_seconds(subject.layout)} | {s: recorded.get(s) for s in timing.STAGES},
        render_fps=round(held_out.clock.fps, 2),
        peak_rss_mb=max(timing.peak_rss_mb(), recorded.get("peak_rss_mb", 0.0)),
    )
    compared = {
        "split": "val",
        "frames": len(subject.val),
        "fps": tracked.fps,
        "size_px": [subject.width, subject.height],
        "picture": "rendered, 8 bits, no video encoding in between",
        "truth": "frames of the subject folder, over its static background",
    }
    title = f"{trained.subject} ({trained.preset}), frames held out"
    return Report(title, rows, registry.entries(), compared, loaded_hashes(), facts), held_out.sheets


def _hear(subject: Subject, run: Path, tracked: DrivingSequence) -> DrivingSequence:
    """Take lips, chin and lower cheeks of the val frames from the sound."""
    predictor = load_predictor(run / "driving")
    features = load_features(subject, predictor.facts.extractor)
    return tracked.with_landmarks(predictor.predict(features, rest=subject.landmarks)[subject.val])


@dataclass
class HeldOut:
    """The val frames of a subject; regions come from its parsing and its tracked lips, not from the pictures."""

    subject: Subject
    trained: TrainedHead
    clock: RenderClock = field(default_factory=RenderClock)
    """Of the first row: how fast the head renders."""
    sheets: dict[str, Rgb] = field(default_factory=dict)
    """Contact sheet by row."""
    _true_meshes: dict[int, Mesh | None] = field(default_factory=dict)

    def measure(
        self, name: str, motion: DrivingSequence, given: tuple[str, ...], metrics: Sequence[type[Metric]]
    ) -> tuple[Row, Row | None]:
        """Render the frames in one way and measure them.

        Args:
            name: Of the row.
            motion: What moves the head in the val frames.
            given: What of it is ground truth.
            metrics: What to measure.

        Returns:
            The row, and that of the true frames alone, if faces can be found here.
        """
        clock = RenderClock() if self.sheets else self.clock
        kept: tuple[dict[int, Rgb], dict[int, Rgb]] = ({}, {})

        def pairs(*finders: FindMesh) -> Iterator[Pair]:
            return track(self._pairs(motion, clock, finders, kept), len(motion), f"row {name}")

        with tempfile.TemporaryDirectory() as folder:
            measured, truth = measure_with_faces(pairs, self._facts(motion, Path(folder)), metrics)
        self.sheets[name] = draw_contact_sheet(*kept, name)
        return row_from(measured, given), None if truth is None else row_from(truth, ("everything",))

    def _facts(self, motion: DrivingSequence, folder: Path) -> ClipFacts:
        subject = self.subject
        sound = self._cut_sound(folder / "val.wav", motion.fps)
        picture = Side(sound=sound, viewmats=motion.viewmats.cpu().numpy())
        truth = Side(sound=sound, viewmats=subject.viewmats[subject.val].numpy())
        return ClipFacts(float(motion.fps), subject.width, subject.height, has_truth=True, picture=picture, truth=truth)

    def _pairs(
        self, motion: DrivingSequence, clock: RenderClock, finders: tuple[FindMesh, ...],
        kept: tuple[dict[int, Rgb], dict[int, Rgb]],
    ) -> Iterator[Pair]:  # fmt: skip
        subject = self.subject
        shown = choose_frames(subject.val, mouth_aperture(subject.landmarks[subject.val].numpy()))
        backdrop = Backdrop(subject.layout, subject.width, subject.height, own_scene(subject.layout))
        pictures = render_clip(self.trained.head, motion, backdrop, clock)
        for index, (k, picture) in enumerate(zip(subject.val, pictures, strict=True)):
            frame = subject.frame(k)
            truth = np.ascontiguousarray(frame.image.permute(1, 2, 0).numpy())
            if k in shown:
                kept[0][k], kept[1][k] = truth, picture
            true_look = Look(truth, lambda rgb, k=k: self._true_mesh(k, rgb, finders[1]))
            yield Pair(index, Look(picture, finders[0]), true_look, self._regions(frame))

    def _true_mesh(self, k: int, rgb: Rgb, find_mesh: FindMesh) -> Mesh | None:
        """Look at a true picture once, whatever the number of rows."""
        if k not in self._true_meshes:
            self._true_meshes[k] = find_mesh(rgb)
        return self._true_meshes[k]

    def _regions(self, frame: Frame) -> dict[str, Region]:
        subject, k = self.subject, frame.index
        points, _ = project(subject.landmarks[k].numpy(), subject.viewmats[k].numpy(), subject.K.numpy())
        masks = {"head": frame.head[0].numpy() > 0.5, "mouth": mouth_mask(points, subject.width, subject.height)}
        return {name: Region(mask) for name, mask in masks.items() if mask.any()}

    def _cut_sound(self, path: Path, fps: float | int) -> Path | None:
        layout, val = self.subject.layout, self.subject.val
        if not layout.speech.is_file() or val != list(range(val[0], val[-1] + 1)):
            return None  # frames of another tool's folder may be scattered: their sound is no speech
        speech = load_audio(layout.speech, SPEECH_HZ)
        begin, end = (round(k / fps * SPEECH_HZ) for k in (val[0], val[-1] + 1))
        write_wav(path, speech[begin:end], SPEECH_HZ)
        return path
