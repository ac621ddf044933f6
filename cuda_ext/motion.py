"""Motion of Gaussians: features of the places they lie at, and what a frame's code makes of them.

A bilinear field: what depends on the place, phi(x), meets what depends on the frame, psi(code), in a product
(`gaussian_head.model.motion`). Both operators here take psi as a matrix, so that a frame costs one thin product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from cuda_ext import _reference_motion as reference
from cuda_ext._library import choose

CHANGES = 13
"""Columns of a response: position 3, quaternion 4, log-scale 3, colour 3."""


class Carrier(NamedTuple):
    """Points that carry Gaussians along; no gradient reaches them."""

    indices: Int[Tensor, "N M"]
    """The M points that each Gaussian is bound to."""
    weights: Float[Tensor, "N M"]
    displacement: Float[Tensor, "P 3"]
    """How far each point is from its place at rest."""


Response = tuple[Float[Tensor, "H 13"], Float[Tensor, " N"] | None]
"""What a frame's code asks of each place feature, and how far each Gaussian obeys (no gradient; None: wholly)."""


class Moved(NamedTuple):
    """Gaussians of one frame."""

    means: Float[Tensor, "N 3"]
    quats: Float[Tensor, "N 4"]
    scales: Float[Tensor, "N 3"]
    sh: Float[Tensor, "N C 3"]
    change: Float[Tensor, "N 13"]
    """What the responses asked for, before units."""


def place_features(
    points: Float[Tensor, "N 3"],
    grids: Sequence[Float[Tensor, "3 F _ _"]],
    first: tuple[Float[Tensor, "H I"], Float[Tensor, " H"]],
    second: tuple[Float[Tensor, "O H"], Float[Tensor, " O"]],
    gates: int,
    *,
    implementation: str = "auto",
) -> tuple[Float[Tensor, "N Q"], Float[Tensor, "N G"]]:
    """Encode places by tri-plane grids and two linear layers with a ReLU between (specs/gaussian_head.md e.2).

    Gradients reach the grids and the layers, not the points.

    Args:
        points: Places; the grids span [-1, 1], and beyond it the border's value holds.
        grids: Of each resolution planes xy, yz, xz, corner cells at -1 and 1.
        first: Weight and bias; I = 3 F times the number of grids, plus 3 for the point itself.
        second: Weight and bias.
        gates: How many of the last outputs, G, are given apart.
        implementation: `auto`, `cpu` (compiled; F must be 4, at most 4 grids) or `reference` (plain PyTorch).

    Returns:
        The first Q = O - G outputs, and the others.

    Raises:
        ValueError: Shapes that do not fit each other, or `cuda`: there are no CUDA kernels of it.
    """
    inputs = 3 * sum(grid.shape[1] for grid in grids) + 3
    if first[0].shape[1] != inputs or second[0].shape[1] != first[0].shape[0]:
        raise ValueError(
            f"place_features: {len(grids)} grids give {inputs} features; the layers take "
            f"{first[0].shape[1]} and {second[0].shape[1]}, the first gives {first[0].shape[0]}."
        )
    compiled = _is_compiled(implementation, points, "place_features")
    if compiled and len(grids) <= 4 and all(grid.shape[:2] == (3, 4) for grid in grids):
        from cuda_ext._cpu_motion import PlaceFeatures

        return PlaceFeatures.apply(gates, points, *first, *second, *grids)
    out = reference.place_features(points.detach(), grids, first, second)
    return out[:, : len(second[1]) - gates], out[:, len(second[1]) - gates :]


def deform(
    means: Float[Tensor, "N 3"],
    quats: Float[Tensor, "N 4"],
    log_scales: Float[Tensor, "N 3"],
    sh0: Float[Tensor, "N 1 3"],
    shN: Float[Tensor, "N K 3"],
    regions: Float[Tensor, "N H"],
    gates: Float[Tensor, "N G"],
    carriers: Sequence[Carrier],
    responses: Sequence[Response],
    position_scale: float,
    *,
    implementation: str = "auto",
) -> Moved:
    """Move Gaussians as one frame asks.

    change = sum of share * (regions @ matrix) over the responses; means += sum of gate * carried + position_scale *
    change; unit quats += change; scales = exp(log_scales + change); the constant harmonic += change.

    Args:
        means: Gaussians at rest, as the next four.
        quats: wxyz of any length.
        log_scales: Logarithms of standard deviations.
        sh0: Constant harmonic of the colour.
        shN: The other harmonics.
        regions: Place features.
        gates: How far each carrier (at most 2) moves each Gaussian.
        carriers: What moves them beside the field.
        responses: 1 or 2.
        position_scale: Unit of the changes of position.
        implementation: `auto`, `cpu` (compiled) or `reference` (plain PyTorch).

    Raises:
        ValueError: Numbers of carriers, gates or responses that do not fit, or `cuda`: there are no CUDA kernels of it.
        IndexError: A Gaussian is bound to a point that does not exist.
    """
    if len(carriers) != gates.shape[1] or len(carriers) > 2 or len(responses) not in (1, 2):
        raise ValueError(
            "deform: one gate a carrier, at most 2, and 1 or 2 responses are needed; "
            f"got {gates.shape[1]} gates, {len(carriers)} carriers, {len(responses)} responses."
        )
    if _is_compiled(implementation, means, "deform"):
        from cuda_ext._cpu_motion import Deform

        matrices, shares = zip(*responses, strict=True)
        return Moved(*Deform.apply(
            carriers, shares, position_scale, means, quats, log_scales, sh0, shN, regions, gates, *matrices
        ))  # fmt: skip
    return Moved(*reference.deform(
        means, quats, log_scales, sh0, shN, regions, gates, carriers, responses, position_scale
    ))  # fmt: skip


def _is_compiled(implementation: str, tensor: Tensor, operator: str) -> bool:
    if implementation == "cuda":
        raise ValueError(f"{operator} has no CUDA kernels; give 'auto', which is plain PyTorch on a GPU.")
    return choose(implementation, tensor, operator) == "cpu"
