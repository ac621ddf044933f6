"""Layering of premultiplied pictures."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def over(
    color: Float[Tensor, "3 H W"], alpha: Float[Tensor, "1 H W"], behind: Float[Tensor, "3 H W"]
) -> Float[Tensor, "3 H W"]:
    """Lay a picture already multiplied by its coverage over another one (RGB in [0, 1])."""
    return color + (1 - alpha) * behind
