"""PIRender as a face renderer: a portrait and coefficients become pictures (Ren et al. 2021; specs/vico.md 7.5).

Each picture is drawn from the portrait and 27 frames of coefficients, independent of the pictures before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray
from torch import Tensor

from gaussian_head.geometry.coefficients import MOTION, MOTION_WITH_CROP, FaceCoefficients
from gaussian_head.networks.pirender import PIRenderGenerator, load_pirender
from gaussian_head.oneshot.face_renderer.windows import crop_ratio, semantic_windows

MISSING_CROP = (1.0, 128.0, 128.0)
"""Scale and place of a face that nobody has looked for: the whole picture of 256 px, its middle."""
CROP_SCALE = 70
"""Column of a motion vector."""


class PIRenderRenderer:
    """PIRender's generator, its source features computed once per portrait; a `FaceRenderer`."""

    side_px = 256
    needs_crop = True

    def __init__(
        self,
        network: PIRenderGenerator,
        *,
        device: torch.device | str = "cpu",
        batch: int = 4,
        rounding: Literal["nearest", "truncate"] = "nearest",
        beyond: Literal["zeros", "border"] = "zeros",
    ) -> None:
        """Take a network into use.

        Args:
            network: With its weights; it is put into evaluation mode.
            device: Where to compute.
            batch: Pictures drawn at once: memory grows with it, the result does not depend on it.
            rounding: How colours become bytes; the reference truncates, which darkens by half a level on average.
            beyond: What the warp finds outside the portrait: grey, as the published weights were trained, or the
                nearest pixel.

        Raises:
            ValueError: `batch` is below 1.
        """
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}.")
        self.network = network.to(device).eval()
        self.device, self.batch, self.rounding, self.beyond = torch.device(device), batch, rounding, beyond

    def animate(
        self,
        source: UInt8[ndarray, "S S 3"],
        first: Float32[ndarray, "M"],
        motion: Float32[ndarray, "T M"],
        moving: Float[ndarray, "S S"] | None = None,
    ) -> Iterator[UInt8[ndarray, "S S 3"]]:
        """Move a portrait; see `FaceRenderer`.

        Args:
            source: The portrait. Of a video it is the very first frame.
            first: What it shows; PIRender sees that in the portrait itself, so only its length counts.
            motion: Every frame's, 73 numbers; 70 stand for a crop of MISSING_CROP.
            moving: 1 where the frame is what was drawn, 0 where it stays the portrait, feathered between: keeps a
                background still. It must leave the head room to move. None: all is drawn.

        Raises:
            ValueError: The portrait's size or the motion's width is another, they do not fit each other, or the mask
                is not within [0, 1].
        """
        if source.shape != (self.side_px, self.side_px, 3):
            raise ValueError(f"source must be {[self.side_px, self.side_px, 3]}, got {list(source.shape)}.")
        if first.shape != motion.shape[1:]:
            raise ValueError(f"motion must have {len(first)} numbers a frame like first, got {motion.shape[1]}.")
        if moving is not None and (moving.shape != source.shape[:2] or not 0 <= moving.min() <= moving.max() <= 1):
            raise ValueError(f"moving must be {list(source.shape[:2])} within [0, 1], got {list(moving.shape)}.")
        return self._draw(source, with_crop(motion), moving)

    @torch.inference_mode()
    def _draw(
        self, source: UInt8[ndarray, "S S 3"], motion: Float32[ndarray, "T 73"], moving: Float[ndarray, "S S"] | None
    ) -> Iterator[UInt8[ndarray, "S S 3"]]:
        seen = self.network.look_at(to_network(source[None]).to(self.device))
        mask = None if moving is None else torch.tensor(moving, dtype=torch.float32, device=self.device)
        for start in range(0, len(motion), self.batch):
            windows = semantic_windows(motion, slice(start, start + self.batch))
            windows = torch.from_numpy(np.ascontiguousarray(windows)).to(self.device)
            drawn = self.network.draw(seen, windows, beyond=self.beyond).picture
            if mask is not None:
                drawn = seen.picture + mask * (drawn - seen.picture)
            yield from to_bytes(drawn, self.rounding)


def load_pirender_renderer(
    given: Path | None = None,
    *,
    device: torch.device | str = "cpu",
    batch: int = 4,
    rounding: Literal["nearest", "truncate"] = "nearest",
    beyond: Literal["zeros", "border"] = "zeros",
) -> PIRenderRenderer:
    """Load the public checkpoint; see `PIRenderRenderer` for the options.

    Args:
        given: The file; default: see `networks.weights.find_weights`.
        device: Where to compute.
        batch: Pictures at once.
        rounding: How colours become bytes.
        beyond: What the warp finds outside the portrait.

    Raises:
        UserError: The file is missing, damaged, or another network's.
    """
    return PIRenderRenderer(load_pirender(given), device=device, batch=batch, rounding=rounding, beyond=beyond)


def with_crop(motion: Float32[ndarray, "T M"]) -> Float32[ndarray, "T 73"]:
    """Return motion vectors with a crop: theirs, or MISSING_CROP where they have none.

    Raises:
        ValueError: They have neither 70 nor 73 numbers.
    """
    if motion.shape[1] == MOTION_WITH_CROP:
        return motion
    if motion.shape[1] != MOTION:
        raise ValueError(f"motion must have {MOTION} or {MOTION_WITH_CROP} numbers a frame, got {motion.shape[1]}.")
    return np.concatenate([motion, np.tile(np.float32(MISSING_CROP), (len(motion), 1))], 1)


def motion_of_another(source: FaceCoefficients, target: FaceCoefficients) -> Float[ndarray, "T 73"]:
    """Return another person's motion, at the scale at which the portrait shows its own face (specs/vico.md 7.2).

    Args:
        source: One frame, of the portrait.
        target: Every frame of who moves it.

    Raises:
        ValueError: A crop is not known.
    """
    motion = target.motion(crop=True)
    motion[:, CROP_SCALE] *= crop_ratio(source, target)
    return motion


def to_network(pictures: UInt8[ndarray, "B H W 3"]) -> Float32[Tensor, "B 3 H W"]:
    """Turn bytes into RGB in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_bytes(
    pictures: Float[Tensor, "B 3 H W"], rounding: Literal["nearest", "truncate"] = "nearest"
) -> UInt8[ndarray, "B H W 3"]:
    """Turn RGB in [-1, 1], clipped, into bytes."""
    levels = (pictures.clamp(-1, 1) + 1) / 2 * 255
    levels = levels.round() if rounding == "nearest" else levels
    return levels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
