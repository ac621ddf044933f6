"""The six steps for one clip: what each needs, makes, and does (specs/one_shot.md 7.1).

What the entry's programs got wrong is mended: every frame is worked on whatever the batch (8, bug 7), clips shorter and
longer than 90 frames come out whole and without jumps (bug 8).
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from gaussian_head.errors import UserError
from gaussian_head.geometry.coefficients import FaceCoefficients
from gaussian_head.media.image import read_rgb, write_png
from gaussian_head.media.mat import read_deep3d, write_deep3d
from gaussian_head.media.video import VideoWriter, add_sound, frame_times, probe_video, read_frames, read_frames_at
from gaussian_head.oneshot.challenge.keypoints import read_keypoints, write_keypoints
from gaussian_head.oneshot.challenge.layout import FPS, Clip, Handover
from gaussian_head.oneshot.challenge.workers import Motion, WorkerName, Workers
from gaussian_head.oneshot.source.crop import Box, cut

Progress = Callable[[Iterable[ndarray], int, str], Iterator[ndarray]]
"""Passes frames on and shows how far they are: (frames, total, label)."""
INTERMEDIATE_CRF, RESULT_CRF = 10, 14
"""H.264 quality of videos that a later step looks at, and of the result (which no later step codes again)."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step(ABC):
    """One of the six."""

    workers: Workers
    files: Handover
    progress: Progress

    number = 0
    title = ""

    @property
    @abstractmethod
    def needs(self) -> tuple[WorkerName, ...]:
        """Return who works."""

    @abstractmethod
    def inputs(self, clip: Clip) -> list[Path]:
        """Return the files that are read."""

    @abstractmethod
    def outputs(self, clip: Clip) -> list[Path]:
        """Return the files that are written, in that order."""

    @abstractmethod
    def make(self, clip: Clip) -> None:
        """Do the work.

        Raises:
            FileNotFoundError: An input is missing.
            UserError: An input is broken, or shows no face.
        """

    def frames(self, clip: Clip) -> int:
        """Return how many frames the outputs have."""
        return clip.frames

    def is_done(self, clip: Clip) -> bool:
        """Return whether the outputs are there, whole, and not older than inputs and weights."""
        made, outputs = [*self.inputs(clip), *self._weights()], self.outputs(clip)
        if not all(path.is_file() for path in (*made, *outputs)):
            return False
        if min(_time(path) for path in outputs) < max(_time(path) for path in made):
            return False
        return all(self._is_whole(path, clip) for path in outputs)

    def _weights(self) -> list[Path]:
        return [path for name in self.needs for path in self.workers.weights(name)]

    def _is_whole(self, path: Path, clip: Clip) -> bool:
        try:
            found = _count(path)
        except (UserError, OSError) as error:
            logger.warning("%s is made again: %s", path, error)
            return False
        if found != self.frames(clip):
            logger.warning("%s is made again: it has %d frames instead of %d.", path, found, self.frames(clip))
        return found == self.frames(clip)

    def _first(self, clip: Clip) -> FaceCoefficients:
        return self._coefficients(self.files.coefficients("first_frames", clip), 1)

    def _coefficients(self, path: Path, frames: int) -> FaceCoefficients:
        found = FaceCoefficients.from_deep3d(*read_deep3d(path))
        if len(found) != frames:
            raise UserError(f"{path} must hold {frames} frames, got {len(found)}; make it again.")
        return found

    def _follow(self, motion: Motion, stage: str, clip: Clip, expressions: Float32[ndarray, "N 64"] | None) -> None:
        """Write the coefficients of the first frame as a sound moves it."""
        first = self._first(clip)
        rows = np.concatenate(list(motion.move(clip.speech(), first, crop=True, expressions=expressions)))
        if len(rows) != clip.frames:
            raise ValueError(f"{clip.name}: expected motion of {clip.frames} frames, got {len(rows)}.")
        side = self.workers.side_px
        write_deep3d(self.files.coefficients(stage, clip), *first.moved(rows).deep3d(side, side))

    def _render(self, stage: str, clip: Clip, crf: int) -> None:
        """Draw the ORIGINAL first frame, moved by a stage's coefficients."""
        moved = self._coefficients(self.files.coefficients(stage, clip), clip.frames)
        renderer = self.workers.renderer
        picture = read_rgb(self.files.first_frame(clip))
        first = np.float32(self._first(clip).motion(renderer.needs_crop)[0])
        drawn = renderer.animate(picture, first, np.float32(moved.motion(renderer.needs_crop)))
        self._write(self.files.video(stage, clip), drawn, clip, crf)

    def _write(self, path: Path, frames: Iterable[UInt8[ndarray, "S S 3"]], clip: Clip, crf: int) -> None:
        side = self.workers.side_px
        with VideoWriter(path, FPS, side, side, crf=crf) as writer:
            for frame in self.progress(frames, clip.frames, f"step {self.number}, {clip.name}"):
                writer.write(frame)

    def _look(self, pictures: Callable[[], Iterable[ndarray]], stage: str, clip: Clip, shown: Path) -> None:
        """Write keypoints and coefficients of pictures."""
        keypoints, extractor = self.files.keypoints(stage, clip), self.workers.extractor
        label = f"step {self.number}, {clip.name}"
        total = self.frames(clip)
        found = list(self.progress(extractor.landmarks(pictures()), total, f"{label}: landmarks"))
        write_keypoints(keypoints, found)
        known = read_keypoints(keypoints)
        missing = sum(points is None for points in known)
        if missing == len(known):
            raise UserError(f"no face found in {shown}; give a picture of a face, lit and large.")
        if missing:
            logger.warning("%s: %d of %d frames show no face; their neighbours stand in.", shown, missing, len(known))
        faces = extractor.coefficients(self.progress(pictures(), total, f"{label}: coefficients"), known)
        side = self.workers.side_px
        write_deep3d(self.files.coefficients(stage, clip), *faces.deep3d(side, side))


class FirstFrames(Step):
    """Keypoints and coefficients of the first frame, as the renderer takes it."""

    number, title = 1, "keypoints and coefficients of first frames"
    needs: tuple[WorkerName, ...] = ("extractor",)

    def inputs(self, clip: Clip) -> list[Path]:
        """See `Step`."""
        return [clip.picture]

    def outputs(self, clip: Clip) -> list[Path]:
        """See `Step`."""
        files, stage = self.files, "first_frames"
        return [files.first_frame(clip), files.keypoints(stage, clip), files.coefficients(stage, clip)]

    def frames(self, clip: Clip) -> int:
        """Return 1."""
        return 1

    def make(self, clip: Clip) -> None:
        """See `Step`."""
        picture = clip.first_frame()
        height, width = picture.shape[:2]
        if height != width:
            logger.warning("%s has %d x %d px; its edges are repeated to make it square.", clip.picture, width, height)
        longer = max(height, width)
        left, top = (width - longer) // 2, (height - longer) // 2
        square = cut(picture, Box(left, top, left + longer, top + longer), self.workers.side_px)
        write_png(self.files.first_frame(clip), square)
        self._look(lambda: [square], "first_frames", clip, clip.picture)


class FromAudio(Step):
    """Expressions from sound; in method 2 rendered, the head as in the first frame."""

    number, title = 2, "coefficients from audio, rendered"

    @property
    def needs(self) -> tuple[WorkerName, ...]:
        """See `Step`."""
        return ("expression", "renderer") if self.files.method == 2 else ("expression",)

    def inputs(self, clip: Clip) -> list[Path]:
        """See `Step`."""
        return [clip.audio, self.files.first_frame(clip), self.files.coefficients("first_frames", clip)]

    def outputs(self, clip: Clip) -> list[Path]:
        """See `Step`."""
        rendered = [self.files.video("audio", clip)] if self.files.method == 2 else []
        return [self.files.coefficients("audio", clip), *rendered]

    def make(self, clip: Clip) -> None:
        """See `Step`."""
        self._follow(self.workers.expression, "audio", clip, None)
        if self.files.method == 2:
            self._render("audio", clip, INTERMEDIATE_CRF)


class NewLips(Step):
    """Wav2Lip on the rendered video."""

    number, title = 3, "Wav2Lip on the rendered videos"
    needs: tuple[WorkerName, ...] = ("lips",)

    def inputs(self, clip: Clip) -> list[Path]:
        """See `Step`."""
        return [clip.audio, self.files.video("audio", clip)]

    def outputs(self, clip: Clip) -> list[Path]:
        """See `Step`."""
        return [self.files.video("wav2lip_gan", clip)]

    def make(self, clip: Clip) -> None:
        """See `Step`."""
        frames = read_frames_at(self.files.video("audio", clip), FPS)
        drawn = self.workers.lips.refine(frames, clip.frames, FPS, clip.speech())
        self._write(self.files.video("wav2lip_gan", clip), drawn, clip, INTERMEDIATE_CRF)


class Results(Step):
    """Keypoints and coefficients of every frame that Wav2Lip made."""

    number, title = 4, "keypoints and coefficients of Wav2Lip's videos"
    needs: tuple[WorkerName, ...] = ("extractor",)

    def inputs(self, clip: Clip) -> list[Path]:
        """See `Step`."""
        return [self.files.video("wav2lip_gan", clip)]

    def outputs(self, clip: Clip) -> list[Path]:
        """See `Step`."""
        stage = "wav2lip_gan"
        return [self.files.keypoints(stage, clip), self.files.coefficients(stage, clip)]

    def make(self, clip: Clip) -> None:
        """See `Step`."""
        path = self.files.video("wav2lip_gan", clip)
        self._look(lambda: (picture for _, picture in read_frames(path)), "wav2lip_gan", clip, path)


class Rerender(Step):
    """The first frame again, with the lips that Wav2Lip made (method 2), and a head that turns."""

    number, title = 5, "first frames rendered again, with head motion"
    needs: tuple[WorkerName, ...] = ("pose", "renderer")

    def inputs(self, clip: Clip) -> list[Path]:
        """See `Step`."""
        files = self.files
        expressions = files.coefficients(self._expressions, clip)
        return [clip.audio, files.first_frame(clip), files.coefficients("first_frames", clip), expressions]

    def outputs(self, clip: Clip) -> list[Path]:
        """See `Step`."""
        return [self.files.coefficients(self.files.result, clip), self.files.video(self.files.result, clip)]

    def make(self, clip: Clip) -> None:
        """See `Step`."""
        driving = self._coefficients(self.files.coefficients(self._expressions, clip), clip.frames)
        self._follow(self.workers.pose, self.files.result, clip, np.float32(driving.expression))
        self._render(self.files.result, clip, RESULT_CRF)

    @property
    def _expressions(self) -> str:
        """Return the stage whose 64 numbers are taken, all of them: the entry found that better than the lips' 13."""
        return "wav2lip_gan" if self.files.method == 2 else "audio"


class Mux(Step):
    """The result with its sound."""

    number, title = 6, "sound"
    needs: tuple[WorkerName, ...] = ()

    def inputs(self, clip: Clip) -> list[Path]:
        """See `Step`."""
        return [clip.audio, self.files.video(self.files.result, clip)]

    def outputs(self, clip: Clip) -> list[Path]:
        """See `Step`."""
        return [self.files.submission(clip)]

    def make(self, clip: Clip) -> None:
        """See `Step`."""
        add_sound(self.files.video(self.files.result, clip), clip.audio, self.files.submission(clip))

    def _is_whole(self, path: Path, clip: Clip) -> bool:
        return super()._is_whole(path, clip) and probe_video(path).has_audio


STEPS: dict[int, tuple[type[Step], ...]] = {
    1: (FirstFrames, FromAudio, Rerender, Mux),
    2: (FirstFrames, FromAudio, NewLips, Results, Rerender, Mux),
}
"""Of each method. Method 1 renders what the expression network says, without Wav2Lip; the identity (ArcFace) by which
the entry conditioned that network is not published and left out."""


def _time(path: Path) -> int:
    return path.stat().st_mtime_ns


def _count(path: Path) -> int:
    """Count the frames of a file.

    Raises:
        UserError: It is broken.
    """
    if path.suffix == ".mat":
        return len(read_deep3d(path)[0])
    if path.suffix == ".txt":
        return len(read_keypoints(path))
    if path.suffix == ".mp4":
        return len(frame_times(path))
    read_rgb(path)
    return 1
