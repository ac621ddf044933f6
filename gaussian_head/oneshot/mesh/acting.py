"""From sound to poses: the mouth as it is heard, and by chance a little life: blinks, breath, a head never still.

Everything is made frame by frame; nothing grows with the sound but the sound itself and its levels, 100 a second. The
same seed gives the same motion.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from gaussian_head.data.layout import SPEECH_HZ, VIDEO_FPS
from gaussian_head.driving.silence import loudness, speech_gate
from gaussian_head.driving.upper_face import INTERVAL_SIGMA, LEAST_PAUSE, LID_COURSE
from gaussian_head.media.mel import loud_level
from gaussian_head.oneshot.mesh.mouth_shapes import CLOSED, MouthShapes
from gaussian_head.oneshot.mesh.renderer import FacePose

HEARD_FOR_LEVEL_S = 120
"""So much of the sound tells how loud the voice is."""
WARM_UP_S = 0.8
"""The first frame is the portrait; from there motion grows."""
SWAY_S = (2.3, 3.7, 5.9, 9.7)
"""Periods of the head's sway, which do not fit one another."""
SWAY_DEG = (1.3, 1.9, 1.1)
"""Pitch, yaw, roll: standard deviation."""
DRIFT = (0.006, 0.005, 0.004)
"""Shift of the head likewise, face heights."""
NOD_DEG = 2.2
"""The head goes along with the loudness of the voice."""
BREATH_S, BREATH = 3.9, 0.006
BROW_RAISE = 0.012
LOUDNESS_S = 0.24
SMOOTHING = np.array([0.23, 0.54, 0.23])
"""Of the mouth over three frames: the network's errors tremble, lips do not."""

LIVELY, GAIN_RANGE = 0.066, (0.8, 2.2)
"""The widest twentieth of the openings of any voice is brought to this (face heights), within a range of factors:
quiet and lazy voices move the lips less than the network knows from its training."""
LOUD_SHARE = 0.5
"""So much of the opening goes with the voice's loudness, which tells syllables apart where the network does not."""


@dataclass(frozen=True)
class Manner:
    """How a portrait behaves."""

    seed: int = 0
    motion: float | int = 1.0
    """How much the head moves; 0: not at all."""
    mouth_gain: float | int = 1.0
    """How far the mouth opens, 1 as heard."""
    blink_rate: float | int = 15.0
    """Blinks a minute; 0: none."""


@dataclass(frozen=True)
class Actor:
    """Acts what it hears."""

    shapes: MouthShapes = field(default_factory=MouthShapes.load)
    manner: Manner = field(default_factory=Manner)

    def act(self, speech: Float[ndarray, "S"]) -> Iterator[FacePose]:
        """Tell the poses of a sound (16 kHz), 25 a second, as many as it takes to cover it."""
        frames = math.ceil(len(speech) * VIDEO_FPS / SPEECH_HZ)
        gate, loud = speech_gate(speech, frames), loudness(speech, frames)
        life = Life(self.manner)
        for mouth, level in zip(self._mouths(speech, gate, loud), loud, strict=False):
            yield life.pose(mouth, float(level))

    def _mouths(
        self, speech: Float[ndarray, "S"], gate: Float[ndarray, " T"], loud: Float[ndarray, " T"]
    ) -> Iterator[Float[ndarray, "6"]]:
        """Yield the shapes, closed where nobody speaks, smoothed over three frames."""
        if not len(gate):
            return
        start = speech[: HEARD_FOR_LEVEL_S * SPEECH_HZ]
        level = loud_level(start)
        opening = np.concatenate([piece[:, 0] for piece in self.shapes.hear(start, level)])
        opening = opening[gate[: len(opening)] > 0.5]
        lively = LIVELY / max(float(np.quantile(opening, 0.95)), 1e-3) if len(opening) else 1.0
        gain = self.manner.mouth_gain * np.clip(lively, *GAIN_RANGE)
        told = (shape for piece in self.shapes.hear(speech, level) for shape in piece)
        said = (
            CLOSED + by * np.array([gain * way, gain * way, 1, 1, 1, 1]) * (shape - CLOSED)
            for shape, by, way in zip(told, gate, LOUD_SHARE * loud + 1 - LOUD_SHARE, strict=False)
        )
        held = deque([next(said)] * 2, maxlen=3)
        for shape in chain(said, [CLOSED]):
            held.append(shape)
            yield _lawful(SMOOTHING @ np.stack(held))


def _lawful(shape: Float[ndarray, "6"]) -> Float[ndarray, "6"]:
    """Keep a shape within what faces can do."""
    return np.clip(shape, [0, 0, 0.6, 0, 0, 0], [0.11, 0.09, 1.25, 1, 1, 1])


class Life:
    """Everything about a speaking head but its mouth."""

    def __init__(self, manner: Manner) -> None:
        """Start at the portrait's own pose."""
        self._manner = manner
        sway, blinks = np.random.default_rng(manner.seed).spawn(2)
        self._phases = sway.uniform(0, 2 * np.pi, (7, len(SWAY_S)))
        self._weights = sway.uniform(0.5, 1.0, (7, len(SWAY_S))) * np.sqrt(np.array(SWAY_S) / np.mean(SWAY_S))
        self._weights *= np.sqrt(2) / np.linalg.norm(self._weights, axis=1, keepdims=True)
        self._blinks = self._blinking(blinks)
        self._frame = 0
        self._loud = 0.0

    def pose(self, mouth: Float[ndarray, "6"], loud: float) -> FacePose:
        """Return the next frame's pose.

        Args:
            mouth: `mouth_shapes.FIELDS`.
            loud: How loud the voice is, 0..1.
        """
        seconds = self._frame / VIDEO_FPS
        self._frame += 1
        keep = math.exp(-1 / (LOUDNESS_S * VIDEO_FPS))
        self._loud = keep * self._loud + (1 - keep) * loud
        grown = min(seconds / WARM_UP_S, 1.0)
        grown = self._manner.motion * grown * grown * (3 - 2 * grown)
        waves = (self._weights * np.sin(2 * np.pi * seconds / np.array(SWAY_S) + self._phases)).sum(1)
        angles = waves[:3] * SWAY_DEG
        angles[0] += NOD_DEG * (self._loud - 0.4)
        shift = waves[3:6] * DRIFT
        breath = BREATH * (1 - math.cos(2 * np.pi * seconds / BREATH_S)) / 2
        brows = BROW_RAISE * (0.6 * self._loud + 0.4 * waves[6] * 0.5)
        aperture, jaw, width, protrusion, tuck, tongue = map(float, mouth)
        return FacePose(
            aperture, jaw, width - 1, protrusion, tuck, tongue, next(self._blinks), grown * brows,
            tuple(np.radians(grown * angles).tolist()), tuple((grown * shift).tolist()), grown * breath,
        )  # fmt: skip

    def _blinking(self, chance: np.random.Generator) -> Iterator[float]:
        """Blink again and again, at log-normal intervals."""
        while not self._manner.blink_rate:
            yield 0.0
        interval = 60 * VIDEO_FPS / self._manner.blink_rate
        while True:
            pause = round(chance.lognormal(math.log(interval) - INTERVAL_SIGMA**2 / 2, INTERVAL_SIGMA))
            yield from [0.0] * max(LEAST_PAUSE, pause - len(LID_COURSE))
            yield from LID_COURSE
