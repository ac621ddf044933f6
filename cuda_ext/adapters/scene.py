"""What an adapter draws."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class Scene(NamedTuple):
    """N Gaussians and a camera, on the device of the rasterizer; see `cuda_ext.rasterize` for units and conventions."""

    means: Float[Tensor, "N 3"]
    quats: Float[Tensor, "N 4"]
    """Of any length."""
    scales: Float[Tensor, "N 3"]
    opacities: Float[Tensor, " N"]
    channels: Float[Tensor, "N C"]
    """What is blended, over 0."""
    viewmat: Float[Tensor, "4 4"]
    K: Float[Tensor, "3 3"]
    width: int
    height: int
    near: float
    means2d: Float[Tensor, "N 2"] | None
    """Receives the gradient of the projected centres in px times (width/2, height/2)."""
