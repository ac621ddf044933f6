"""Motion fields: how the code of an expression changes each Gaussian (specs/gaussian_head.md e, i.4).

The field is bilinear: what depends on the place, phi(x) [N, H], meets what depends on the frame, psi(code) [H], in a
product, and one linear layer reads the change off it. phi is computed once per head; a frame then costs one
[N, H] x [H, outputs] product. Carriers move Gaussians with the landmarks near them, without any network.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor, nn

from gaussian_head.model.tri_plane import TriPlane

CARRIER_SIGMA_M = 0.012
"""Reach of a landmark's pull."""
CARRIER_REST = 0.05
"""Weight of standing still beside the landmarks' weights: far from the face nothing is carried."""
NEIGHBOURS = 8


class MotionField(nn.Module):
    """Place features times expression features -> changes of each Gaussian."""

    def __init__(self, code_size: int, outputs: int, resolutions: tuple[int, ...], hidden: int, bound: float) -> None:
        """Make a field that changes nothing yet (its last layer is zero)."""
        super().__init__()
        self.encoder = TriPlane(resolutions, features=6, bound=bound)
        self.place = nn.Sequential(nn.Linear(self.encoder.size + 3, hidden), nn.ReLU(), nn.Linear(hidden, hidden + 1))
        self.expression = nn.Sequential(nn.Linear(code_size, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
        self.change = nn.Parameter(torch.zeros(hidden, outputs))

    def regions(self, means: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, "N H"], Float[Tensor, " N"]]:
        """Encode places (metres): features, and a gate logit that says how much the carrier moves them."""
        features = self.place(torch.cat([self.encoder(means), means / self.encoder.bound], 1))
        return features[:, :-1], features[:, -1]

    def forward(self, regions: Float[Tensor, "N H"], code: Float[Tensor, " C"]) -> Float[Tensor, "N O"]:
        """Return the changes of every Gaussian for one expression code."""
        return regions @ (self.expression(code)[:, None] * self.change)


class Binding(NamedTuple):
    """Which landmarks pull each Gaussian, and how strongly."""

    indices: Int[Tensor, "N 8"]
    weights: Float[Tensor, "N 8"]

    def carry(self, displacement: Float[Tensor, "478 3"]) -> Float[Tensor, "N 3"]:
        """Blend the landmarks' displacements (metres) for each Gaussian."""
        return nn.functional.embedding_bag(self.indices, displacement, per_sample_weights=self.weights, mode="sum")


def bind(means: Float[Tensor, "N 3"], landmarks: Float[Tensor, "478 3"]) -> Binding:
    """Bind Gaussians at `means` to their nearest landmarks (metres, head frame)."""
    points = means.detach().cpu().numpy()
    distances, indices = cKDTree(landmarks.detach().cpu().numpy()).query(points, k=NEIGHBOURS)
    pull = torch.from_numpy(distances).float().div(CARRIER_SIGMA_M).square().mul(-0.5).exp()
    weights = pull / (pull.sum(1, keepdim=True) + CARRIER_REST)
    return Binding(torch.from_numpy(indices).to(means.device), weights.to(means.device))
