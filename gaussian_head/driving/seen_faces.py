"""The faces that a subject's footage shows: principal components, and how far each of them goes."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.model.landmark_space import LandmarkSpace

COMPONENTS = 64
"""What lies beyond them is less than the tracker's noise."""


class SeenFaces:
    """The space of a subject's faces, about the mean face."""

    def __init__(self, footage: DrivingSequence) -> None:
        """Learn it from footage, the more the better: what it does not show is not asked of the head."""
        self.mean = footage.landmarks.mean(0)
        self._space = LandmarkSpace(COMPONENTS, 0, 0, footage.hair.shape[1])
        self._space.fit(footage.landmarks, footage.hair, footage.viewmats)
        codes = self.encode(footage.landmarks)
        self._least, self._most = codes.amin(0), codes.amax(0)

    @property
    def spread(self) -> Float[Tensor, " K"]:
        """Return the standard deviation of each component."""
        return self._space.spread

    @property
    def directions(self) -> Float[Tensor, "K 478 3"]:
        """Return how a face moves with each component, metres."""
        return (self._space.basis / self._space.weights).unflatten(1, (-1, 3))

    def encode(self, faces: Float[Tensor, "T 478 3"]) -> Float[Tensor, "T K"]:
        """Return the components of faces, metres."""
        return ((faces - self.mean).flatten(1) * self._space.weights) @ self._space.basis.T

    def decode(self, codes: Float[Tensor, "T K"]) -> Float[Tensor, "T 478 3"]:
        """Return the faces of components, metres."""
        return self.mean + (codes @ self.directions.flatten(1)).unflatten(1, (-1, 3))

    def limited(self, codes: Float[Tensor, "T K"]) -> Float[Tensor, "T K"]:
        """Cut off, component by component, what the footage never shows."""
        return torch.minimum(torch.maximum(codes, self._least), self._most)
