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

from cuda_ext import place_features
from gaussian_head.model.tri_plane import TriPlane

GATES = 2


class Response(nn.Module):
    """How a frame's code changes each place feature's Gaussians: psi(code), met by one linear layer."""

    def __init__(self, code_size: int, outputs: int, hidden: int) -> None:
        """Make a response that changes nothing yet (its last layer is zero)."""
        super().__init__()
        self.features = nn.Sequential(nn.Linear(code_size, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
        self.change = nn.Parameter(torch.zeros(hidden, outputs))

    def forward(self, code: Float[Tensor, " C"]) -> Float[Tensor, "H O"]:
        """Return what place features are multiplied with."""
        return self.features(code)[:, None] * self.change


class MotionField(nn.Module):
    """Place features, and how an expression's code answers them with changes of each Gaussian."""

    def __init__(self, code_size: int, outputs: int, resolutions: tuple[int, ...], hidden: int, bound: float) -> None:
        """Make a field that changes nothing yet."""
        super().__init__()
        self.encoder = TriPlane(resolutions, features=4, bound=bound)
        self.place = nn.Sequential(
            nn.Linear(self.encoder.size + 3, hidden), nn.ReLU(), nn.Linear(hidden, hidden + GATES)
        )
        self.expression = Response(code_size, outputs, hidden)

    def regions(self, means: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, "N H"], Float[Tensor, "N 2"]]:
        """Encode places (metres): features, and logits of how much each of two carriers moves them."""
        first, _, second = self.place
        layers = (first.weight, first.bias), (second.weight, second.bias)
        return place_features(means / self.encoder.bound, list(self.encoder.grids), *layers, GATES)


class Binding(NamedTuple):
    """Which landmarks pull each Gaussian, and how strongly."""

    indices: Int[Tensor, "N M"]
    weights: Float[Tensor, "N M"]


def bind(
    means: Float[Tensor, "N 3"], landmarks: Float[Tensor, "L 3"], sigma_m: float, rest: float, neighbours: int
) -> Binding:
    """Bind Gaussians at `means` to their nearest landmarks (metres, head frame).

    Args:
        means: The Gaussians.
        landmarks: Where the landmarks are in the mean face.
        sigma_m: Reach of a landmark's pull.
        rest: Weight of standing still beside the landmarks' weights: what is far from them is not carried.
        neighbours: Landmarks that pull one Gaussian.
    """
    neighbours = min(neighbours, len(landmarks))
    if not neighbours:
        return Binding(torch.zeros(len(means), 0, dtype=torch.long), torch.zeros(len(means), 0))
    tree = cKDTree(landmarks.detach().cpu().numpy())
    distances, indices = tree.query(means.detach().cpu().numpy(), k=list(range(1, neighbours + 1)))
    pull = torch.from_numpy(distances).float().div(sigma_m).square().mul(-0.5).exp()
    weights = pull / (pull.sum(1, keepdim=True) + rest)
    return Binding(torch.from_numpy(indices).to(means.device), weights.to(means.device))


def cast(points: Float[Tensor, "N 3"], viewpoint: Float[Tensor, "3"], z: Float[Tensor, ""]) -> Float[Tensor, "N 3"]:
    """Move points (metres) along their rays from the viewpoint to the plane at depth z: what is seen together meets."""
    ray = points - viewpoint
    return viewpoint + ray * ((z - viewpoint[2]) / ray[:, 2:])
