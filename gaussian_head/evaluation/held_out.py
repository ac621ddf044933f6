"""A trained head on the frames it has not seen, rendered and laid beside the true ones."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from gaussian_head.data.layout import SPEECH_HZ, VIDEO_FPS
from gaussian_head.data.subject import Frame, Subject
from gaussian_head.driving.features import load_features
from gaussian_head.driving.predictor import speech_figures
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.driving.speech import SpeechDriver
from gaussian_head.evaluation import registry, timing
from gaussian_head.evaluation.contact_sheet import choose_frames, draw_contact_sheet
from gaussian_head.evaluation.measure_clip import FindMesh, measure_with_faces, mouth_mask
from gaussian_head.evaluation.metric import ClipFacts, Look, Mesh, Metric, Pair, Region, Rgb, Side
from gaussian_head.evaluation.neck_gap import neck_gap, turn_head
from gaussian_head.evaluation.report import TRUTH, Report, Row, TrainedFacts, row_from
from gaussian_head.geometry.cameras import project
from gaussian_head.geometry.landmarks import mouth_aperture
from gaussian_head.media.audio import fit_length, load_audio, write_wav
from gaussian_head.networks.weights import loaded_hashes
from gaussian_head.progress import track
from gaussian_head.render.backdrop import Backdrop, Behind, own_scene
from gaussian_head.render.clip import RenderClock, render_clip
from gaussian_head.render.torso import torso_backdrop
from gaussian_head.render.trained import TrainedHead, has_torso

GIVEN = {
    "oracle": ("pose", "landmarks", "hair_points", "action_units", "torso", "background"),
    "predicted": ("pose", "upper_face_landmarks", "hair_points", "action_units", "torso", "background"),
    "synthetic": ("background",),
}
"""Ways of driving a head through its val frames, and what of the truth each is given beside the sound."""


def measure_held_out(
    subject: Subject, trained: TrainedHead, run: Path, metrics: Sequence[type[Metric]] = registry.METRICS
) -> tuple[Report, dict[str, Rgb]]:
    """Measure a head on its subject's val frames, driven in three ways, beside the true frames.

    Row `oracle` moves as tracked. In `predicted` the mouth comes from the sound, the rest is tracked. In `synthetic`
    all is generated, as for any new sound: it looks elsewhere and blinks at other times than the true frames.

    Args:
        subject: The person the head was trained on.
        trained: The head, on the device that renders.
        run: Its run folder: holds the speech predictor and the stages' times.
        metrics: What to measure.

    Returns:
        The report, and a contact sheet by row.
    """
    held_out = HeldOut(subject, trained)
    config = trained.head.config
    tracked = DrivingSequence.from_subject(subject, subject.val, config.audio_features)
    driven, missing = {"oracle": tracked}, ""
    try:
        driven |= _driven_by_sound(subject, run, tracked, config.audio_features)
    except FileNotFoundError as error:
        missing = str(error)
    rows: dict[str, Row] = {}
    for name, usual in GIVEN.items():
        given = GIVEN["predicted"] if (name, config.condition) == ("oracle", "audio") else usual
        if name not in driven:
            rows[name] = Row({}, unavailable=dict.fromkeys((e.name for m in metrics for e in m.entries), missing))
            continue
        rows[name], truth = held_out.measure(name, driven[name], given, metrics)
        if truth is not None and TRUTH not in rows:
            rows = {TRUTH: truth, **rows}
    recorded = timing.read_timing(run)
    facts = TrainedFacts(
        subject=trained.subject,
        preset=trained.preset,
        device=str(trained.head.space.rest.device),
        timing_s={"process": timing.process_seconds(subject.layout)} | {s: recorded.get(s) for s in timing.STAGES},
        render_fps=round(held_out.clock.fps, 2),
        peak_rss_mb=max(timing.peak_rss_mb(), recorded.get("peak_rss_mb", 0.0)),
        condition=config.condition,
        speech=speech_figures(run / "driving"),
        neck_gap=_neck_gaps(subject, trained, run, config.audio_features),
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


def _driven_by_sound(
    subject: Subject, run: Path, tracked: DrivingSequence, head_hears: str | None
) -> dict[str, DrivingSequence]:
    """Hear the whole clip, as `synthesize --audio` does, with the ways of the train frames; return the val frames."""
    driver = SpeechDriver.load(run, subject, subject.train, head_hears=head_hears)
    features = load_features(subject, driver.predictor.facts.extractor)
    speech = None
    if subject.layout.speech.is_file():
        speech = fit_length(load_audio(subject.layout.speech, SPEECH_HZ), subject.frames * SPEECH_HZ // VIDEO_FPS)
    said = driver.articulate(features, speech, DrivingSequence.from_subject(subject, list(range(subject.frames))))
    generated = driver.drive(features, speech)
    shown = {name: part[subject.val] for name, part in generated.parts().items()}
    return {
        "predicted": tracked.with_landmarks(said.landmarks[subject.val]),
        "synthetic": replace(generated, **shown),
    }


def _neck_gaps(subject: Subject, trained: TrainedHead, run: Path, head_hears: str | None) -> dict[str, float]:
    """Turn the middle val frame's head beyond the footage; return how much of the neck is lost at worst, by torso."""
    middle = DrivingSequence.from_subject(subject, [subject.val[len(subject.val) // 2]], head_hears)
    torsos: dict[str, Behind] = {"footage": Backdrop(subject.layout, subject.width, subject.height, None)}
    if has_torso(run):
        torsos["model"] = torso_backdrop(run, subject, trained.head.space.rest.device, None)
    lost = {}
    for name, torso in torsos.items():
        gap = np.max(neck_gap(trained.head, turn_head(middle), torso)) - neck_gap(trained.head, middle, torso)[0]
        if np.isfinite(gap):  # the neck is in the picture
            lost[name] = round(max(0.0, float(gap)), 6)
    return lost


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
