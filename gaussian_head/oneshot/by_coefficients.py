"""A portrait that is moved by a face renderer and coefficients made from sound, as a talking head.

SadTalker's scheme (Zhang et al. 2023): a square around the face is rendered and pasted back into the whole picture.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from gaussian_head.oneshot.audio2coeff.sadtalker import SadTalkerMotion
from gaussian_head.oneshot.face_renderer.renderer import FaceRenderer
from gaussian_head.oneshot.source.source import Source


class CoefficientHead:
    """A `TalkingHead` of three parts: a portrait with its coefficients, what hears, and what draws."""

    def __init__(self, source: Source, motion: SadTalkerMotion, renderer: FaceRenderer) -> None:
        """Put the parts together.

        Args:
            source: With coefficients, cut to the renderer's size.
            motion: Makes motion from sound.
            renderer: Draws it.

        Raises:
            ValueError: The source has no coefficients, or another size.
        """
        if source.coefficients is None:
            raise ValueError("CoefficientHead: the source has no coefficients; open it with a regressor.")
        if source.options.side_px != renderer.side_px:
            raise ValueError(
                f"CoefficientHead: the renderer takes {renderer.side_px} px, the source is cut to "
                f"{source.options.side_px}; open it with side_px={renderer.side_px}."
            )
        self._source, self._motion, self._renderer = source, motion, renderer
        self.fps = motion.fps

    def speak(self, speech: Float[ndarray, "S"]) -> Iterator[UInt8[ndarray, "H W C"]]:
        """See `TalkingHead`; the motion (73 numbers a frame at most) is made before the first frame."""
        crop = self._renderer.needs_crop
        first = self._source.coefficients
        motion = np.concatenate(list(self._motion.move(speech, first, crop=crop)))
        start = np.float32(first.motion(crop)[0])
        yield from self._source.finish(self._renderer.animate(self._source.crop, start, motion))
