"""A portrait that is moved by face coefficients: SadTalker's way (specs/one_shot.md 1 to 5), with any face renderer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray

from gaussian_head.data.coefficient_files import load_coefficients
from gaussian_head.errors import UserError
from gaussian_head.geometry.coefficients import FaceCoefficients
from gaussian_head.networks.coefficient_regressor import load_coefficient_regressor
from gaussian_head.oneshot.audio2coeff.sadtalker import References, SadTalkerMotion, SadTalkerOptions
from gaussian_head.oneshot.face_renderer.renderer import FaceRenderer
from gaussian_head.oneshot.first_frame import warn_of_mismatch
from gaussian_head.oneshot.source.enhance import Enhancer, enhanced, open_enhancer
from gaussian_head.oneshot.source.source import WHITE, Source, SourceOptions, open_reference, open_source, over


@runtime_checkable
class Motion(Protocol):
    """Moves a face as a sound says; see `audio2coeff.sadtalker.SadTalkerMotion`."""

    fps: float | int
    """Of what `move` gives."""

    def move(
        self,
        speech: Float[ndarray, "S"],
        first: FaceCoefficients,
        *,
        crop: bool = False,
        references: References | None = None,
    ) -> Iterator[Float32[ndarray, "n M"]]:
        """Give motion vectors in blocks."""
        ...


@dataclass(frozen=True)
class CoefficientHead:
    """A `TalkingHead`: sound becomes coefficients, these move the crop of a portrait, the crop is put back."""

    source: Source
    first: FaceCoefficients
    """What the portrait shows, one frame."""
    motion: Motion
    renderer: FaceRenderer
    references: References = References()
    enhancer: Enhancer | None = None

    @property
    def fps(self) -> float | int:
        """Return the frames per second of what `speak` yields."""
        return self.motion.fps

    def speak(self, speech: Float[ndarray, "S"]) -> Iterator[UInt8[ndarray, "H W 3"]]:
        """See `TalkingHead`. Of a long sound nothing is held but its coefficients, 300 bytes a frame."""
        crop = self.renderer.needs_crop
        rows = np.concatenate(list(self.motion.move(speech, self.first, crop=crop, references=self.references)))
        drawn = self.renderer.animate(self.source.crop, self.first.motion(crop)[0], rows)
        finished = self.source.finish(drawn)
        for frame in finished if self.enhancer is None else enhanced(finished, self.enhancer):
            yield frame if frame.shape[2] == 3 else over(frame[:, :, :3], frame[:, :, 3], WHITE)


@dataclass(frozen=True)
class CoefficientOptions:
    """Of renderers that are moved by coefficients (vid2vid, pirender)."""

    source: SourceOptions = SourceOptions()
    """How the portrait is cut and put back; its `side_px` is the renderer's."""
    motion: SadTalkerOptions = SadTalkerOptions()
    """How sound moves it."""
    coefficients: Path | None = None
    """What the portrait shows, a .mat file; None: it is regressed from the picture."""
    pose_video: Path | None = None
    """Whose head motion is borrowed."""
    blink_video: Path | None = None
    """Whose blinks are borrowed."""
    enhancer: str | None = None
    """A plug-in of `source.enhance` that sharpens each frame."""


def open_coefficient_head(portrait: Path, renderer: FaceRenderer, options: CoefficientOptions) -> CoefficientHead:
    """Make a portrait ready to speak.

    Args:
        portrait: The picture.
        renderer: Which draws it.
        options: See there.

    Raises:
        FileNotFoundError: A file is missing.
        UserError: The portrait shows no face; a file is no such file; or weights are missing (WeightsMissingError).
    """
    enhancer = None if options.enhancer is None else open_enhancer(options.enhancer)
    motion = SadTalkerMotion.load(options.motion)
    cut = replace(options.source, side_px=renderer.side_px)
    regresses = options.coefficients is None or options.pose_video or options.blink_video
    regressor = load_coefficient_regressor() if regresses else None
    source = open_source(portrait, cut, regressor=regressor)
    first = source.coefficients if options.coefficients is None else _given(options.coefficients)
    warn_of_mismatch(first, source.landmarks, renderer.side_px, renderer.side_px, str(portrait))
    videos = {name: getattr(options, f"{name}_video") for name in ("pose", "blink")}
    followed = {
        name: open_reference(video, cut).coefficients(regressor) for name, video in videos.items() if video is not None
    }
    references = References(followed.get("pose"), followed.get("blink"))
    return CoefficientHead(source, first, motion, renderer, references, enhancer)


def _given(path: Path) -> FaceCoefficients:
    face = load_coefficients(path)
    if not len(face):
        raise UserError(f"{path} has no frame; give the coefficients of the portrait.")
    return face.take(slice(0, 1))
