"""A spatial encoder: three axis-aligned planes of dense bilinear grids (specs/gaussian_head.md e.2).

The field's "hash" encoder never hashes at these resolutions, so plain grids do the same.
"""

from __future__ import annotations

import torch
from torch import nn


class TriPlane(nn.Module):
    """Grids over the positions within `bound` metres of the origin; `cuda_ext.place_features` samples them."""

    def __init__(self, resolutions: tuple[int, ...], features: int, bound: float) -> None:
        """Make one grid a resolution, each with planes xy, yz and xz of `features` channels."""
        super().__init__()
        self.bound = bound
        self.grids = nn.ParameterList(
            nn.Parameter(torch.empty(3, features, r, r).uniform_(-1e-2, 1e-2)) for r in resolutions
        )
        self.size = 3 * features * len(resolutions)
