"""Which rasterizer draws: our own, or another one that is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from cuda_ext import Rasterization, rasterize
from cuda_ext.adapters import RasterizerMissingError, find_rasterizer
from gaussian_head.errors import UserError

RasterizerName = Literal["ours", "diff-gaussian-rasterization", "gsplat"]
Rasterizer = Callable[..., Rasterization]
"""A function with the arguments and results of `cuda_ext.rasterize`."""


def choose_rasterizer(name: RasterizerName) -> Rasterizer:
    """Return the rasterizer of that name.

    Raises:
        UserError: It is not installed, or cannot run here; says how to install it.
    """
    if name == "ours":
        return rasterize
    try:
        return find_rasterizer(name)
    except RasterizerMissingError as error:
        raise UserError(f"--rasterizer {name}: {error}") from error
