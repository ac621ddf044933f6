"""A set of 3D Gaussians: stored (unbounded) parameters and their activated values."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Tensor, nn

SH_C0 = 0.28209479177387814
"""The constant spherical harmonic: colour = SH_C0 * sh0 + 0.5."""


class Gaussians(nn.Module):
    """N Gaussians in the head frame.

    Stored: `means` [N, 3] m, `quats` [N, 4] wxyz of any length, `log_scales` [N, 3] (m), `opacity_logits` [N],
    `sh0` [N, 1, 3], `shN` [N, (degree + 1)^2 - 1, 3].
    """

    NAMES = ("means", "quats", "log_scales", "opacity_logits", "sh0", "shN")

    def __init__(self, count: int, sh_degree: int) -> None:
        """Make `count` Gaussians at the origin, to be filled from points or from a checkpoint."""
        super().__init__()
        self.means = nn.Parameter(torch.zeros(count, 3))
        self.quats = nn.Parameter(torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1))
        self.log_scales = nn.Parameter(torch.zeros(count, 3))
        self.opacity_logits = nn.Parameter(torch.zeros(count))
        self.sh0 = nn.Parameter(torch.zeros(count, 1, 3))
        self.shN = nn.Parameter(torch.zeros(count, (sh_degree + 1) ** 2 - 1, 3))

    @classmethod
    def from_points(
        cls, points: Float[Tensor, "N 3"], colors: Float[Tensor, "N 3"], sh_degree: int, opacity: float = 0.3
    ) -> Gaussians:
        """Start round Gaussians at points (metres), as wide as the distance to their neighbours; colours in [0, 1]."""
        self = cls(len(points), sh_degree)
        distances, _ = cKDTree(points.numpy()).query(points.numpy(), k=min(4, len(points)))
        spacing = np.sqrt(np.square(distances[:, 1:]).mean(1)).clip(1e-4, 0.02)
        with torch.no_grad():
            self.means.copy_(points)
            self.log_scales.copy_(torch.from_numpy(spacing).log()[:, None].expand(-1, 3))
            self.opacity_logits.fill_(float(np.log(opacity / (1 - opacity))))
            self.sh0.copy_(((colors - 0.5) / SH_C0)[:, None])
        return self

    def __len__(self) -> int:
        """Return N."""
        return len(self.means)

    @property
    def scales(self) -> Float[Tensor, "N 3"]:
        """Standard deviations along the rotated axes, metres."""
        return self.log_scales.exp()

    @property
    def opacities(self) -> Float[Tensor, " N"]:
        """Opacities in [0, 1]."""
        return self.opacity_logits.sigmoid()

    def base_colors(self) -> Float[Tensor, "N 3"]:
        """View-independent part of the colour, RGB, about [0, 1]."""
        return self.sh0[:, 0] * SH_C0 + 0.5
