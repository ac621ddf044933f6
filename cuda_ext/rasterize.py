"""Differentiable rasterization of 3D Gaussians (Kerbl et al. 2023; Zwicker et al. 2001 for the projection)."""

from __future__ import annotations

import math
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from cuda_ext import _reference
from cuda_ext._library import choose

LARGEST_PX = 32768
"""Widest and highest picture: a float32 still tells 1/512 px there."""


class Rasterization(NamedTuple):
    """One rendered view."""

    color: Float[Tensor, "3 H W"]
    """RGB over the background."""
    alpha: Float[Tensor, "1 H W"]
    """Coverage in [0, 1]."""
    depth: Float[Tensor, "1 H W"]
    """Sum of weight times camera z, not divided by alpha."""
    features: Float[Tensor, "E H W"]
    """Blended extra channels, over a background of 0; E is 0 without features."""
    radii: Int[Tensor, " N"]
    """Three standard deviations on the picture in px, rounded up; 0 for Gaussians out of view. No gradient."""
    n_contrib: Int[Tensor, "H W"]
    """Number of Gaussians blended in each pixel. No gradient."""


def rasterize(
    means: Float[Tensor, "N 3"],
    quats: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    opacities: Float[Tensor, " N"],
    viewmat: Float[Tensor, "4 4"],
    K: Float[Tensor, "3 3"],
    width: int,
    height: int,
    *,
    sh: Float[Tensor, "N C 3"] | None = None,
    colors: Float[Tensor, "N 3"] | None = None,
    sh_degree: int | None = None,
    features: Float[Tensor, "N E"] | None = None,
    background: Float[Tensor, " 3"] | None = None,
    means2d: Float[Tensor, "N D"] | None = None,
    near: float = 0.2,
    implementation: str = "auto",
) -> Rasterization:
    """Render Gaussians seen by a pinhole camera, differentiably.

    Gradients reach means, quats, scales, opacities, sh or colors, features, background and means2d; not the camera.

    The compiled operators leave out a Gaussian with a value that is not finite, with a depth, opacity, colour or
    feature beyond 1e15, or about 1e9 px wide, and give it no gradient; the others are drawn as if it were not there.

    Args:
        means: Centres in the world.
        quats: Rotations (w, x, y, z) of any length; normalised inside.
        scales: Standard deviations along the rotated axes, activated, in world units.
        opacities: In [0, 1], activated.
        viewmat: World to camera; x right, y down, z forward.
        K: Intrinsics in pixels; the centre of pixel (column j, row i) is (j + 0.5, i + 0.5).
        width: Picture width in px.
        height: Picture height in px.
        sh: Spherical-harmonics coefficients of the colour, C >= (sh_degree + 1)^2. Exactly one of `sh` and `colors`.
        colors: Colours as they are.
        sh_degree: Degree to evaluate, 0-3; the largest that `sh` holds if not given.
        features: Extra channels blended in the same pass.
        background: RGB behind everything; black if not given.
        means2d: Zeros; its gradient is the one of the projected centres in px times (width/2, height/2), the quantity
            that densification thresholds refer to (specs/gaussian_head.md j.3). D is 2, or 4: the last two columns
            then receive the sum of the pixels' absolute contributions, in the same unit (AbsGS, Ye et al. 2024).
        near: Gaussians whose camera z is not greater are dropped.
        implementation: `auto` (compiled where it is built and takes the tensors), `cpu`, `cuda` or `reference`. The
            environment variable GAUSSIAN_HEAD_OPERATORS replaces `auto`.

    Returns:
        The view; see `Rasterization`.

    Raises:
        ValueError: Arguments whose shape, type or device do not fit; a camera or a background that is not finite.
        MemoryError: The lists of Gaussians per tile do not fit in memory.
    """
    degree = _check(means, quats, scales, opacities, viewmat, K, (width, height), sh, colors, sh_degree)
    n = means.shape[0]
    features = means.new_zeros(n, 0) if features is None else features
    background = means.new_zeros(3) if background is None else background
    _check_tensor("features", features, (n, None), means)
    _check_tensor("background", background, (3,), means)
    if means2d is not None:
        _check_tensor("means2d", means2d, (n, 4 if means2d.shape[-1:] == (4,) else 2), means)
    viewmat, K = viewmat.detach().to(means), K.detach().to(means)
    chosen = choose(implementation, means, "rasterize")
    given = (means, quats, scales, opacities, sh, colors, features, background, means2d)
    if chosen == "cpu":
        from cuda_ext._cpu import RasterizeCpu, View

        return Rasterization(*RasterizeCpu.apply(View.make(viewmat, K, width, height, near, degree), *given))
    if chosen == "cuda":
        from cuda_ext._cuda import Picture, RasterizeCuda

        return Rasterization(*RasterizeCuda.apply(Picture(width, height, near, degree), viewmat, K, *given))
    if sh is not None:
        colors = _reference.sh_colors(sh, degree, means, viewmat)
    return Rasterization(
        *_reference.rasterize(
            means, quats, scales, opacities, colors, features, means2d, background, viewmat, K, (width, height), near
        )
    )


def _check(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, viewmat: Tensor, K: Tensor, size: tuple[int, int],
    sh: Tensor | None, colors: Tensor | None, sh_degree: int | None,
) -> int:  # fmt: skip
    """Refuse arguments that do not fit each other; return the SH degree to evaluate."""
    if not means.is_floating_point():
        raise ValueError(f"rasterize: means must be a floating-point tensor, got {means.dtype}.")
    n = means.shape[0] if means.ndim else 0
    _check_tensor("means", means, (n, 3), means)
    _check_tensor("quats", quats, (n, 4), means)
    _check_tensor("scales", scales, (n, 3), means)
    _check_tensor("opacities", opacities, (n,), means)
    if tuple(viewmat.shape) != (4, 4) or tuple(K.shape) != (3, 3):
        raise ValueError(
            f"rasterize: viewmat must be [4, 4] and K [3, 3], got {list(viewmat.shape)} and {list(K.shape)}."
        )
    if not 1 <= min(size) <= max(size) <= LARGEST_PX:
        raise ValueError(f"rasterize: width and height must be 1 to {LARGEST_PX} px, got {size[0]} x {size[1]}.")
    if (sh is None) == (colors is None):
        raise ValueError("rasterize: give exactly one of sh and colors.")
    if sh is None:
        _check_tensor("colors", colors, (n, 3), means)
        return 0
    _check_tensor("sh", sh, (n, None, 3), means)
    held = min(math.isqrt(sh.shape[1]) - 1, 3)
    degree = held if sh_degree is None else sh_degree
    if not 0 <= degree <= held:
        raise ValueError(
            f"rasterize: sh holds {sh.shape[1]} coefficients, so sh_degree must be 0..{held}, got {degree}."
        )
    return degree


def _check_tensor(name: str, value: Tensor, shape: tuple[int | None, ...], like: Tensor) -> None:
    """Refuse a tensor of another shape (None: any length), type or device than expected."""
    fits = value.shape == shape or (
        value.ndim == len(shape) and all(b in (None, a) for a, b in zip(value.shape, shape, strict=True))
    )
    if not fits or value.dtype != like.dtype or value.device != like.device:
        expected = ["any" if length is None else length for length in shape]
        raise ValueError(
            f"rasterize: {name} must be {expected} {like.dtype} on {like.device}, "
            f"got {list(value.shape)} {value.dtype} on {value.device}."
        )
