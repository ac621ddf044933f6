"""What the head is told of the mouth while it learns: the tracked one, sometimes none, and more and more the predicted.

A head that only ever saw tracked lips is given predicted ones when it speaks. Scheduled replacement shows it these in
training (Bengio et al., Scheduled Sampling, NeurIPS 2015; specs/gaussian_head.md i.4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gaussian_head.model.landmark_space import LandmarkSpace


@dataclass(frozen=True)
class GuidanceConfig:
    """How often lips, chin and lower cheeks are not those that were tracked."""

    dropout: float = 0.0
    """Share of the steps in which they are the mean face's."""
    predicted_share: float = 0.0
    """Share of the steps, at the end, in which they are predicted from sound; it rises linearly from 0."""

    def __post_init__(self) -> None:
        """Refuse what is no share.

        Raises:
            ValueError: One is outside 0..1, or both together are more than 1.
        """
        if min(self.dropout, self.predicted_share) < 0 or self.dropout + self.predicted_share > 1:
            raise ValueError(
                "guidance.dropout and guidance.predicted_share must be 0 or more and together at most 1, "
                f"got {self.dropout} and {self.predicted_share}."
            )


class Guidance:
    """Chooses the landmarks of each step; the same for the same seed and step."""

    SALT = 5
    """Keeps these draws apart from a stage's others."""

    def __init__(
        self, config: GuidanceConfig, space: LandmarkSpace, steps: int, seed: int,
        predicted: dict[int, Float[Tensor, "478 3"]] | None = None,
    ) -> None:  # fmt: skip
        """Prepare.

        Args:
            config: How often.
            space: Knows the mean face and how much of each point's motion is speech.
            steps: Of the whole stage.
            seed: Of the draws.
            predicted: By frame number, landmarks (metres) predicted without having seen the frame; None: frames are
                never replaced.
        """
        self.config = config
        self._space = space
        self._steps = steps
        self._seed = seed
        self.predicted = predicted

    def predicted_share(self, step: int) -> float:
        """Return how probable it is that a step is shown the predicted mouth."""
        return 0.0 if self.predicted is None else self.config.predicted_share * (step + 1) / self._steps

    def choose(self, k: int, tracked: Float[Tensor, "478 3"], step: int) -> Float[Tensor, "478 3"]:
        """Return the landmarks of frame k that a step is given."""
        share = self.predicted_share(step)
        if not self.config.dropout and not share:
            return tracked
        draw = np.random.default_rng([self._seed, step, self.SALT]).random()
        if draw < self.config.dropout:
            with torch.no_grad():
                return self._space.without_speech(tracked.to(self._space.mean))
        return self.predicted[k] if draw < self.config.dropout + share else tracked
