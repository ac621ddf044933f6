"""When the eyes close: SadTalker's random and its regular blinks (specs/one_shot.md 3.2)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal

Blinks = Literal["random", "regular", "none"]
QUICK = (0.5, 0.9, 1.0, 0.9, 0.5)
SLOW = (0.5, 0.6, 0.7, 0.9, 1.0, 0.9, 0.7, 0.6, 0.5)
REGULAR_GAP = 80
"""Frames of open eyes between regular blinks, at 25 frames/s."""


def closed_eyes(frames: int, kind: Blinks, seed: int) -> Iterator[float]:
    """Return how far the eyes are closed in each frame, 0..1.

    Random blinks come 10 to 69 frames after each other; in less than 22 frames there is none. The reference's numbers
    for the same seed of `random`, but that its failure at 21 frames is none here.

    Args:
        frames: At 25 a second; any number, 0 as well.
        kind: Random, regular, or none.
        seed: Of the random ones.
    """
    draw = random.Random(seed)  # noqa: S311 -- the reference's generator
    gaps = range(min(10, frames), min(frames // 2, 70))
    pulse = SLOW if kind == "regular" else QUICK
    done = 0
    while kind == "regular" or (kind == "random" and gaps):
        gap = REGULAR_GAP if kind == "regular" else draw.choice(gaps)
        if done + gap + len(pulse) > frames - 1:
            break
        yield from (0.0,) * gap
        yield from pulse
        done += gap + len(pulse)
    yield from (0.0 for _ in range(frames - done))
