"""Which training frame comes next: shuffled epochs, with a curriculum on some steps; every draw is bounded.

Draws depend on (seed, step) alone, so that a resumed run sees the same frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class CurriculumConfig:
    """On some steps, frames are drawn by a measure that rises over the run (specs/gaussian_head.md e.8).

    With `begin` 1 the draws are from the highest frames throughout.
    """

    every: int = 7
    """One step in this many follows the curriculum; 0 turns it off."""
    stop_share: float = 0.8
    """Share of the run after which frames are drawn evenly again."""
    begin: float = 0.0
    """Where in the order of the measure the draws begin, 0 (lowest) to 1; they end at the highest."""
    window: float = 0.2
    """A draw picks among this share of the frames, those nearest to the wanted value."""


class FrameSampler:
    """Draws frame numbers; every frame once an epoch, besides the curriculum's."""

    def __init__(
        self, frames: list[int], measure: Float[np.ndarray, " T"], config: CurriculumConfig, steps: int, seed: int
    ) -> None:
        """Prepare the draws.

        Args:
            frames: Frame numbers to draw from.
            measure: What the curriculum raises (mouth opening, blink), one value for each of `frames`.
            config: When the curriculum applies.
            steps: Length of the run.
            seed: Seed of all draws.
        """
        self._frames = np.asarray(frames)
        self._sorted = self._frames[np.argsort(measure, kind="stable")]
        self._config = config
        self._steps = steps
        self._seed = seed

    def draw(self, step: int) -> int:
        """Return the frame number of one step."""
        config = self._config
        limit = config.stop_share * self._steps
        if config.every and step % config.every == config.every - 1 and step < limit:
            progress = config.begin + (1 - config.begin) * step / limit
            width = max(1, round(config.window * len(self._sorted)))
            first = round(progress * (len(self._sorted) - width))
            pick = np.random.default_rng([self._seed, 1, step]).integers(width)
            return int(self._sorted[first + pick])
        raised = min(step, math.ceil(limit)) // config.every if config.every else 0  # draws of the curriculum so far
        epoch, position = divmod(step - raised, len(self._frames))
        return int(np.random.default_rng([self._seed, 0, epoch]).permutation(self._frames)[position])
