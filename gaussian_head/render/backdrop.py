"""What stands behind the head: the subject's torso, over its own background, another picture, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from gaussian_head.data.layout import SubjectLayout
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.media.image import premultiply, read_rgb, read_rgba, resize


class Layer(NamedTuple):
    """A picture: RGB in [0, 1], already multiplied by its coverage."""

    color: Float[Tensor, "3 H W"]
    alpha: Float[Tensor, "1 H W"]
    opaque: bool
    """Alpha is 1 everywhere, by construction."""


Behind = Callable[[DrivingSequence, int], Layer]
"""What stands behind the head in frame i of a driving sequence: `Backdrop` from the footage, or `TorsoBackdrop`."""


class Backdrop:
    """Reads what belongs behind the head from the footage, frame by frame."""

    def __init__(
        self, layout: SubjectLayout, width: int, height: int, scene: UInt8[np.ndarray, "h w 3"] | None
    ) -> None:
        """Prepare the scene.

        Args:
            layout: The subject folder that supplies the torso.
            width: Of the pictures, px.
            height: Likewise.
            scene: What is behind the torso, covering the picture, its overhang cut off; None: nothing, a transparent
                picture. `own_scene` is the subject's own.
        """
        self._layout = layout
        self._size = (width, height)
        self._scene = None if scene is None else _tensor(cover(scene, width, height).astype(np.float32) / 255)
        self._opaque = torch.ones(1, height, width)

    def __call__(self, sequence: DrivingSequence, i: int) -> Layer:
        """Lay the torso that frame i of a sequence names over the scene, or two of them, cross-faded."""
        share = 0.0 if sequence.fade is None else float(sequence.fade[i])
        layer = self.frame(int(sequence.frame_index[i]))
        return mix(layer, self.frame(int(sequence.fade_index[i])), share) if share else layer

    def frame(self, k: int) -> Layer:
        """Lay the torso of the subject's frame k over the scene."""
        torso = resize_premultiplied(read_rgba(self._layout.torso_image(k)), *self._size)
        color, alpha = _tensor(torso).split((3, 1))
        if self._scene is None:
            return Layer(color, alpha, opaque=False)
        return Layer(color + (1 - alpha) * self._scene, self._opaque, opaque=True)


def mix(a: Layer, b: Layer, share: float) -> Layer:
    """Cross-fade two layers: `share` of the second, the rest of the first."""
    color, alpha = torch.lerp(a.color, b.color, share), torch.lerp(a.alpha, b.alpha, share)
    return Layer(color, alpha, a.opaque and b.opaque)


def own_scene(layout: SubjectLayout) -> UInt8[np.ndarray, "h w 3"]:
    """Read the subject's own static background."""
    return read_rgb(layout.background)


def cover(image: UInt8[np.ndarray, "h w 3"], width: int, height: int) -> UInt8[np.ndarray, "H W 3"]:
    """Scale a picture until it covers width x height px, and cut what hangs over, evenly on both sides."""
    scale = max(width / image.shape[1], height / image.shape[0])
    scaled = resize(image, max(width, round(image.shape[1] * scale)), max(height, round(image.shape[0] * scale)))
    left, top = (scaled.shape[1] - width) // 2, (scaled.shape[0] - height) // 2
    return scaled[top : top + height, left : left + width]


def resize_premultiplied(rgba: UInt8[np.ndarray, "h w 4"], width: int, height: int) -> Float[np.ndarray, "H W 4"]:
    """Resize a picture with straight alpha; RGB in [0, 1] multiplied by alpha, so that hidden colours do not bleed."""
    return np.divide(resize(premultiply(rgba), width, height), 255, dtype=np.float32)


def _tensor(image: Float[np.ndarray, "H W C"]) -> Float[Tensor, "C H W"]:
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()
