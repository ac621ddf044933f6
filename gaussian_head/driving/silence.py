"""Silence closes the mouth: where nobody speaks, whatever was predicted eases to the closed mouth.

After specs/gaussian_head.md i.4: below -45 dB for more than 80 ms; closing takes 120 ms, and so does opening, which is
half done 60 ms ahead of the onset. Pauses shorter than both therefore close it in part.

A clip is judged as a whole (`speech_gate`, `loudness`). A stream (`LiveGate`) is judged by the same rules, but against
levels that were measured before, or that are estimated from what was heard so far.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import binary_closing, binary_opening, uniform_filter1d
from scipy.signal import butter, lfilter

from gaussian_head.data.layout import SPEECH_HZ, VIDEO_FPS
from gaussian_head.media.live_level import LiveLevel

STEP_HZ = 100
BLOCK_S = 60
"""Long sound is filtered in blocks, to hold little of it at once."""
HUM_HZ = 100.0
"""Mains hum and rumble below are no speech."""
SILENCE_DB = -45.0
"""Relative to the loud level, the 95th percentile of the clip's steps."""
LOUD_PERCENTILE = 95
QUIETEST_LOUD_DB = -60.0
"""A clip whose loud level is below (dB of full scale) has no speech at all."""
DIGITAL_SILENCE_DB = -90.0
"""Samples this small (dB of full scale) were never in a room: they tell nothing about its noise."""
FLOOR_S = 0.3
"""The room's noise is what remains in the quietest stretch of this length (minimum statistics, Martin 2001)."""
OVER_FLOOR_DB = 6.0
HIGHEST_FLOOR_DB = -20.0
"""Above, the quietest stretch is still speech: the clip never pauses."""
LEAST_SILENCE_S = 0.08
LEAST_SPEECH_S = 0.06
"""Shorter sounds amid silence are clicks."""
CLOSING_S = 0.12
OPENING_S = 0.12
LOUDNESS_RANGE_DB = 40.0
ASSUMED_LOUD_DB = -18.0
"""Of a stream before its voice was heard: recordings of close voices lie at -7 to -21 dB of full scale."""
FLOOR_MEMORY_S = 10.0
"""A stream's noise is the quietest stretch of so many seconds: people pause sooner."""
LEAST_FLOOR_S = 0.05
"""At its beginning shorter stretches than 0.3 s stand for its noise, down to this length."""
HISTORY_S = 0.4
"""What decides a frame lies no longer before it: closing, and what joins pauses and leaves clicks out."""
LARGEST_OPENING = 0.5
"""A stream opens the mouth by at most this in a frame, as a smooth step of 120 ms does where its onset is foreseen."""


def speech_levels(speech: Float[np.ndarray, "S"]) -> Float[np.ndarray, " J"]:
    """Measure the level 100 times a second: dB of full scale, windows of 20 ms around j / 100 s, hum left out.

    Args:
        speech: Samples at 16 kHz.

    Returns:
        [ceil(S / 160)] dB, at least -120.
    """
    hop = SPEECH_HZ // STEP_HZ
    if not len(speech):
        return np.zeros(0)
    high_pass, state = butter(2, HUM_HZ, "highpass", fs=SPEECH_HZ), np.zeros(2)
    energies = []
    for start in range(0, len(speech), BLOCK_S * SPEECH_HZ):
        filtered, state = lfilter(*high_pass, speech[start : start + BLOCK_S * SPEECH_HZ], zi=state)
        energies.append(np.square(np.pad(filtered, (0, -len(filtered) % hop))).reshape(-1, hop).sum(1))
    energy = np.concatenate([[0.0], *energies])
    samples = np.diff(np.minimum(np.arange(len(energy)) * hop, len(speech)), prepend=0)
    power = (energy[:-1] + energy[1:]) / (samples[:-1] + samples[1:])
    return 10 * np.log10(np.maximum(power, 1e-12))


def threshold_db(levels: Float[np.ndarray, " J"]) -> float:
    """Return the level (dB of full scale) below which nobody speaks.

    45 dB below the loud level; in a noisy room 6 dB above its noise, which is the quietest 0.3 s that are not digital
    silence, if that is at least 20 dB below the loud level (else the clip never pauses). A clip without anything loud
    is silence throughout: infinity.
    """
    if not len(levels):
        return np.inf
    loud = loud_db(levels)
    if loud < QUIETEST_LOUD_DB:
        return np.inf
    in_room = levels > DIGITAL_SILENCE_DB
    size = round(FLOOR_S * STEP_HZ)
    whole = uniform_filter1d(in_room.astype(float), size, mode="constant") > 1 - 0.5 / size
    power = uniform_filter1d(10 ** (levels / 10), size, mode="constant")
    return _threshold(loud, float(power[whole].min()) if whole.any() else 0.0)


def loud_db(levels: Float[np.ndarray, " J"]) -> float:
    """Return the loud level: the 95th percentile, dB of full scale; minus infinity where nothing sounds."""
    in_room = levels > DIGITAL_SILENCE_DB
    # Percentile over what sounds: a clip that is mostly digital silence is as loud as the rest of it.
    return float(np.percentile(levels[in_room], LOUD_PERCENTILE)) if in_room.any() else -np.inf


def find_speech(levels: Float[np.ndarray, " J"]) -> Bool[np.ndarray, " J"]:
    """Mark the steps in which somebody speaks; pauses up to 80 ms belong to speech, clicks up to 60 ms do not."""
    return _joined(levels >= threshold_db(levels))


def speech_gate(speech: Float[np.ndarray, "S"], frames: int) -> Float[np.ndarray, " T"]:
    """Say, for each video frame, how much of a predicted mouth is to be believed.

    Args:
        speech: Samples at 16 kHz; sample 0 belongs to frame 0.
        frames: T; what lies behind the end of the sound is silent.

    Returns:
        1 where somebody speaks, 0 in silence: a smooth step of 120 ms down after speech, and one up before it.
    """
    return _openness(find_speech(speech_levels(speech)), np.arange(frames) / VIDEO_FPS)


def loudness(speech: Float[np.ndarray, "S"], frames: int) -> Float[np.ndarray, " T"]:
    """Return how loud each video frame is: 0 at 40 dB below the loud level and in silence, 1 at it, linear in dB."""
    levels = speech_levels(speech)
    if not len(levels) or not np.isfinite(threshold_db(levels)):
        return np.zeros(frames)
    at = (np.arange(frames) * (STEP_HZ // VIDEO_FPS)).clip(max=len(levels) - 1)
    return _relative(levels[at], loud_db(levels))


class GateLevels(NamedTuple):
    """What a gate compares with, dB of full scale."""

    loud: float
    """The voice's loud level."""
    threshold: float
    """Below, nobody speaks; infinity: nobody ever does."""


def gate_levels(speech: Float[np.ndarray, "S"]) -> GateLevels:
    """Measure a whole recording (16 kHz), as `speech_gate` and `loudness` do."""
    levels = speech_levels(speech)
    return GateLevels(loud_db(levels), threshold_db(levels))


class LiveGate:
    """`speech_gate` and `loudness` of a sound that is still going on; memory does not grow.

    Each step is judged when it is heard, and for good, so that nothing depends on how the sound is cut. With given
    levels and 260 ms heard ahead of a frame, the gate is that of the whole sound. With less, an onset may be noticed
    late; the mouth then opens as fast as it may.
    """

    def __init__(self, given: GateLevels | None = None) -> None:
        """Begin a new sound.

        Args:
            given: Levels that are known; None: the loud level is estimated from what was heard so far (`LiveLevel`),
                the noise is the quietest stretch of the last 10 s.
        """
        self._given = given
        self._live = LiveLevel(ASSUMED_LOUD_DB, QUIETEST_LOUD_DB)
        self._high_pass = butter(2, HUM_HZ, "highpass", fs=SPEECH_HZ)
        self._state = np.zeros(2)
        self._energy, self._count = 0.0, 0
        self._powers: deque[float] = deque(maxlen=round(FLOOR_S * STEP_HZ))
        self._floors: deque[float] = deque(maxlen=round(FLOOR_MEMORY_S * STEP_HZ))
        self._loud: deque[bool] = deque()
        self._loudness: deque[float] = deque()
        self._first = 0  # step of the first entry in both
        self._frame, self._gate = 0, 1.0

    def hear(self, speech: Float[np.ndarray, "S"]) -> None:
        """Take one more step: 160 samples at 16 kHz; fewer end the sound."""
        filtered, self._state = lfilter(*self._high_pass, speech, zi=self._state)
        energy = float(np.square(filtered).sum())
        level = 10 * np.log10(max((self._energy + energy) / max(self._count + len(speech), 1), 1e-12))
        self._energy, self._count = energy, len(speech)
        loud, threshold = self._given or self._estimate(level)
        self._loud.append(level >= threshold)
        self._loudness.append(float(_relative(level, loud)) if np.isfinite(threshold) else 0.0)

    def take(self) -> tuple[float, float]:
        """Return the gate and the loudness of the next frame, as far as can be told from what was heard."""
        at = self._frame * (STEP_HZ // VIDEO_FPS)
        while self._first < at - round(HISTORY_S * STEP_HZ):
            self._loud.popleft()
            self._loudness.popleft()
            self._first += 1
        gate = float(_openness(_joined(np.array(self._loud, bool)), np.array([(at - self._first) / STEP_HZ]))[0])
        self._gate = gate if not self._frame else min(gate, self._gate + LARGEST_OPENING)
        self._frame += 1
        return self._gate, self._loudness[min(at - self._first, len(self._loudness) - 1)]

    def _estimate(self, level: float) -> GateLevels:
        in_room = level > DIGITAL_SILENCE_DB
        loud = self._live.hear(level)
        if in_room:
            self._powers.append(10 ** (level / 10))
        else:
            self._powers.clear()
        measured = len(self._powers) >= round(LEAST_FLOOR_S * STEP_HZ)
        self._floors.append(sum(self._powers) / len(self._powers) if measured else np.inf)
        floor = min(self._floors)
        return GateLevels(loud, _threshold(loud, floor if np.isfinite(floor) else 0.0))


def _threshold(loud: float, floor_power: float) -> float:
    floor = 10 * np.log10(max(floor_power, 1e-12)) if floor_power else -np.inf
    if floor + OVER_FLOOR_DB > loud + HIGHEST_FLOOR_DB:
        return loud + SILENCE_DB
    return max(loud + SILENCE_DB, floor + OVER_FLOOR_DB)


def _joined(loud: Bool[np.ndarray, " J"]) -> Bool[np.ndarray, " J"]:
    """Make short pauses part of the speech around them, and leave clicks out."""
    silence, click = round(LEAST_SILENCE_S * STEP_HZ), round(LEAST_SPEECH_S * STEP_HZ)
    padded = np.pad(loud, silence)
    return binary_opening(binary_closing(padded, np.ones(silence + 1)), np.ones(click))[silence:-silence]


def _openness(speaks: Bool[np.ndarray, " J"], seconds: Float[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
    """Ease between speech and silence, at some times after step 0."""
    edges = np.diff(np.pad(speaks.astype(int), 1))
    onsets, ends = np.flatnonzero(edges == 1) / STEP_HZ, np.flatnonzero(edges == -1) / STEP_HZ
    if not len(onsets):
        return np.zeros(len(seconds))
    # Time until the next onset and since the last end; of a frame within speech, both are below zero.
    following, previous = np.searchsorted(ends, seconds, "left"), np.searchsorted(onsets, seconds, "right") - 1
    until = np.append(onsets, np.inf)[following] - seconds
    since = seconds - np.append(ends, -np.inf)[previous]
    return np.maximum(_eased(1 - until / OPENING_S), _eased(1 - since / CLOSING_S))


def _relative(level: float | Float[np.ndarray, " T"], loud: float) -> float | Float[np.ndarray, " T"]:
    return np.clip(1 + (level - loud) / LOUDNESS_RANGE_DB, 0, 1)


def _eased(share: Float[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
    share = np.clip(share, 0, 1)
    return share * share * (3 - 2 * share)
