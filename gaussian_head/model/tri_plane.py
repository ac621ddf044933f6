"""A spatial encoder: three axis-aligned planes of dense bilinear grids (specs/gaussian_head.md e.2).

The field's "hash" encoder never hashes at these resolutions, so plain grids and `grid_sample` do the same.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

PLANES = ((0, 1), (1, 2), (0, 2))


class TriPlane(nn.Module):
    """Encode positions within `bound` metres of the origin; beyond, the border's value holds."""

    def __init__(self, resolutions: tuple[int, ...], features: int, bound: float) -> None:
        """Make one grid a resolution, each with three planes of `features` channels."""
        super().__init__()
        self.bound = bound
        self.grids = nn.ParameterList(
            nn.Parameter(torch.empty(3, features, r, r).uniform_(-1e-2, 1e-2)) for r in resolutions
        )
        self.size = 3 * features * len(resolutions)

    def forward(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N F"]:
        """Interpolate each plane at the points' projections and lay the features side by side."""
        unit = points / self.bound
        where = torch.stack([unit[:, plane] for plane in PLANES])[:, :, None]  # [3, N, 1, 2]
        sampled = [
            nn.functional.grid_sample(grid, where, align_corners=True, padding_mode="border") for grid in self.grids
        ]
        return torch.cat([s[..., 0].permute(2, 0, 1).flatten(1) for s in sampled], 1)
