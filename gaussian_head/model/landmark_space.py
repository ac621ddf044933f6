"""What landmarks tell the head: displacements of the face's surface, and a short code of the expression."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gaussian_head.geometry.landmarks import INNER_LIPS, LEFT_EYE, LEFT_IRIS, RIGHT_EYE, RIGHT_IRIS

CODE_LIMIT = 3.0
"""Codes are clamped to this many standard deviations, so that no unseen face asks for an unseen motion."""


EXPRESSIVE_WEIGHTS = ((LEFT_IRIS, 3.0), (RIGHT_IRIS, 3.0), (LEFT_EYE, 3.0), (RIGHT_EYE, 3.0), (INNER_LIPS, 2.0))
"""Small motions that people look at count more in the principal components."""


class Condition(NamedTuple):
    """One frame's drive of the motion fields."""

    displacement: Float[Tensor, "478 3"]
    """Landmarks minus the subject's mean, metres, head frame."""
    code: Float[Tensor, " K"]
    """Whitened principal components of the displacement, then action units scaled to about [0, 1]."""
    hair: Float[Tensor, "G 3"]
    """Hair points minus their mean, metres, head frame."""


class LandmarkSpace(nn.Module):
    """The subject's mean face and the principal components of its motion, fixed once the training frames are known."""

    ACTION_UNIT_SCALE = 0.4

    def __init__(self, components: int, action_units: int, hair_points: int) -> None:
        """Make an unfitted space with `components` principal components."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(478, 3))
        self.register_buffer("basis", torch.zeros(components, 478 * 3))
        self.register_buffer("spread", torch.ones(components))
        self.register_buffer("hair_mean", torch.zeros(hair_points, 3))
        self.register_buffer("viewpoint", torch.tensor([0.0, 0.0, 1.0]))
        weights = torch.ones(478)
        for points, weight in EXPRESSIVE_WEIGHTS:
            weights[torch.from_numpy(points)] = weight
        self.register_buffer("weights", weights.repeat_interleave(3), persistent=False)
        self.code_size = components + action_units

    def fit(
        self, landmarks: Float[Tensor, "T 478 3"], hair: Float[Tensor, "T G 3"], viewpoint: Float[Tensor, "3"]
    ) -> float:
        """Learn from the training frames: means and components.

        Args:
            landmarks: The frames' landmarks, metres.
            hair: Their hair points, metres.
            viewpoint: Where the camera usually is in the head frame, metres: hair points say how what is seen through
                them moves, whatever its depth.

        Returns:
            The share of the (weighted) variance that the components explain.
        """
        self.mean.copy_(landmarks.mean(0))
        self.hair_mean.copy_(hair.mean(0))
        self.viewpoint.copy_(viewpoint)
        deviations = (landmarks - self.mean).flatten(1) * self.weights
        _, singular, vh = torch.linalg.svd(deviations, full_matrices=False)
        held = min(len(self.basis), len(vh))
        self.basis[:held] = vh[:held]
        self.spread[:held] = (singular[:held] / len(landmarks) ** 0.5).clamp_min(1e-6)
        energy = singular.square()
        return float(energy[:held].sum() / energy.sum())

    def condition(
        self, landmarks: Float[Tensor, "478 3"], action_units: Float[Tensor, " A"], hair: Float[Tensor, "G 3"]
    ) -> Condition:
        """Turn one frame's landmarks (metres), action units (0..5) and hair points (metres) into the fields' input."""
        displacement = landmarks - self.mean
        code = (self.basis @ (displacement.flatten() * self.weights)) / self.spread
        code = CODE_LIMIT * torch.tanh(code / CODE_LIMIT)
        code = torch.cat([code, action_units * self.ACTION_UNIT_SCALE])
        return Condition(displacement, code, hair - self.hair_mean)
