"""Finds an installed rasterizer and gives it the arguments and the results of `cuda_ext.rasterize`.

Colours from harmonics, depth and background are computed here, so that the rasterizer only blends channels over 0.
Tensors go to the rasterizer's device and come back. Not available from others, and refused or told:
absolute screen-space gradients (`means2d` with four columns), and `n_contrib`, which is -1 everywhere.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cuda_ext._reference import sh_colors
from cuda_ext.adapters import gsplat, inria
from cuda_ext.adapters.scene import Scene
from cuda_ext.rasterize import Rasterization, _check, _check_tensor

Pictures = tuple[Float[Tensor, "C H W"], Float[Tensor, "1 H W"], Int[Tensor, " N"]]


class Adapter(NamedTuple):
    """How to get and how to call one rasterizer."""

    module: str
    install: str
    """The command that installs it."""
    draw: Callable[[ModuleType, Scene], Pictures]
    """Blends a scene's channels over 0; also returns alpha and radii."""


ADAPTERS = {
    "diff-gaussian-rasterization": Adapter(
        "diff_gaussian_rasterization",
        "pip install --no-build-isolation git+https://github.com/graphdeco-inria/diff-gaussian-rasterization "
        "(needs nvcc and a CUDA build of torch; licence: research only)",
        inria.draw,
    ),
    "gsplat": Adapter("gsplat", "pip install gsplat (needs nvcc and a CUDA build of torch)", gsplat.draw),
}


class RasterizerMissingError(RuntimeError):
    """A rasterizer was asked for by name that is not installed, or cannot run here."""


def find_rasterizer(name: str) -> Callable[..., Rasterization]:
    """Return an installed rasterizer as a function with the arguments of `cuda_ext.rasterize` but `implementation`.

    Args:
        name: One of ADAPTERS.

    Raises:
        ValueError: No such name.
        RasterizerMissingError: It cannot be imported, or there is no device for it.
    """
    if name not in ADAPTERS:
        raise ValueError(f"rasterizer must be one of {', '.join(ADAPTERS)}, got {name!r}.")
    adapter = ADAPTERS[name]
    try:
        module = importlib.import_module(adapter.module)
    except (ImportError, OSError) as error:
        raise RasterizerMissingError(
            f"{name} cannot be imported ({error}); install it: {adapter.install}, or use our own rasterizer."
        ) from error
    _working_device(module, torch.device("cpu"))
    return partial(_rasterize, adapter, module)


def _working_device(module: ModuleType, device: torch.device) -> torch.device:
    """Return where the module takes tensors of `device`: there, if it says that it does (`devices`), else on CUDA."""
    if device.type in getattr(module, "devices", ("cuda",)):
        return device
    if not torch.cuda.is_available():
        raise RasterizerMissingError(
            f"{module.__name__} runs on CUDA only and torch finds no CUDA device; use our own rasterizer."
        )
    return torch.device("cuda")


def _rasterize(
    adapter: Adapter, module: ModuleType, means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor,
    viewmat: Tensor, K: Tensor, width: int, height: int, *, sh: Tensor | None = None, colors: Tensor | None = None,
    sh_degree: int | None = None, features: Tensor | None = None, background: Tensor | None = None,
    means2d: Tensor | None = None, near: float = 0.2,
) -> Rasterization:  # fmt: skip
    """Render by another rasterizer; see `cuda_ext.rasterize`."""
    degree = _check(means, quats, scales, opacities, viewmat, K, (width, height), sh, colors, sh_degree)
    if means2d is not None and tuple(means2d.shape) != (len(means), 2):
        raise ValueError(f"{adapter.module}: means2d must be [{len(means)}, 2], got {list(means2d.shape)}; "
                         "absolute gradients come from our own rasterizer only.")  # fmt: skip
    if means.dtype != torch.float32:
        raise ValueError(f"{adapter.module} takes float32, got {means.dtype}.")
    features = means.new_zeros(len(means), 0) if features is None else features
    background = means.new_zeros(3) if background is None else background
    _check_tensor("features", features, (len(means), None), means)
    _check_tensor("background", background, (3,), means)
    viewmat, K = viewmat.detach().to(means), K.detach().to(means)
    if sh is not None:
        colors = sh_colors(sh, degree, means, viewmat)
    depth = means @ viewmat[2, :3] + viewmat[2, 3]
    channels = torch.cat([colors, depth[:, None], features], 1)
    device = _working_device(module, means.device)
    tensors = (x.to(device) for x in (means, quats, scales, opacities, channels, viewmat, K))
    scene = Scene(*tensors, width, height, near, None if means2d is None else means2d.to(device))
    pictures, alpha, radii = (x.to(means.device) for x in adapter.draw(module, scene))
    color = pictures[:3] + (1 - alpha) * background[:, None, None]
    n_contrib = torch.full((height, width), -1, dtype=torch.int32, device=means.device)
    return Rasterization(color, alpha, pictures[3:4], pictures[4:], radii.to(torch.int32), n_contrib)
