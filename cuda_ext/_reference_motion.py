"""The operators of `motion.py` in plain PyTorch: the oracle of the tests, and what runs on other devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import embedding_bag, grid_sample, linear, normalize

if TYPE_CHECKING:
    from cuda_ext.motion import Carrier, Response

PLANES = ((0, 1), (1, 2), (0, 2))
"""Axes along a plane's columns and rows."""


def place_features(
    points: Float[Tensor, "N 3"],
    grids: Sequence[Tensor],
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
) -> Float[Tensor, "N O"]:
    """See `cuda_ext.place_features`."""
    where = torch.stack([points[:, plane] for plane in PLANES])[:, :, None]  # [3, N, 1, 2]
    sampled = [grid_sample(grid, where, align_corners=True, padding_mode="border") for grid in grids]
    features = [s[..., 0].permute(2, 0, 1).flatten(1) for s in sampled]
    return linear(linear(torch.cat([*features, points], 1), *first).relu(), *second)


def deform(
    means: Tensor, quats: Tensor, log_scales: Tensor, sh0: Tensor, shN: Tensor, regions: Tensor, gates: Tensor,
    carriers: Sequence[Carrier], responses: Sequence[Response], position_scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """See `cuda_ext.deform`."""
    terms = [regions @ matrix if share is None else share[:, None] * (regions @ matrix) for matrix, share in responses]
    change = sum(terms[1:], terms[0])
    moved = means + position_scale * change[:, :3]
    for gate, carrier in zip(gates.unbind(1), carriers, strict=True):
        moved = moved + gate[:, None] * carry(carrier)
    rotated = normalize(quats, dim=1) + change[:, 3:7]
    sh = torch.cat([sh0 + change[:, None, 10:13], shN], 1)
    return moved, rotated, (log_scales + change[:, 7:10]).exp(), sh, change


def carry(carrier: Carrier) -> Float[Tensor, "N 3"]:
    """Blend the points' displacements for each Gaussian."""
    indices, weights, displacement = carrier
    if not indices.shape[1]:
        return displacement.new_zeros(len(indices), 3)
    return embedding_bag(indices, displacement, per_sample_weights=weights, mode="sum")
