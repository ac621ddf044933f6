"""Silence closes the mouth: where nobody speaks, whatever was predicted eases to the closed mouth.

After specs/gaussian_head.md i.4: below -45 dB for more than 80 ms; closing takes 120 ms, and so does opening, which is
half done 60 ms ahead of the onset. Pauses shorter than both therefore close it in part.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import binary_closing, binary_opening, uniform_filter1d
from scipy.signal import butter, sosfilt

from gaussian_head.data.layout import SPEECH_HZ, VIDEO_FPS

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
    high_pass = butter(2, HUM_HZ, "highpass", fs=SPEECH_HZ, output="sos")
    state = np.zeros((len(high_pass), 2))
    energies = []
    for start in range(0, len(speech), BLOCK_S * SPEECH_HZ):
        filtered, state = sosfilt(high_pass, speech[start : start + BLOCK_S * SPEECH_HZ], zi=state)
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
    in_room = levels > DIGITAL_SILENCE_DB
    # Percentile over what sounds: a clip that is mostly digital silence is as loud as the rest of it.
    loud = float(np.percentile(levels[in_room], LOUD_PERCENTILE)) if in_room.any() else -np.inf
    if loud < QUIETEST_LOUD_DB:
        return np.inf
    size = round(FLOOR_S * STEP_HZ)
    whole = uniform_filter1d(in_room.astype(float), size, mode="constant") > 1 - 0.5 / size
    power = uniform_filter1d(10 ** (levels / 10), size, mode="constant")
    floor = 10 * np.log10(max(float(power[whole].min()), 1e-12)) if whole.any() else -np.inf
    if floor + OVER_FLOOR_DB > loud + HIGHEST_FLOOR_DB:
        return loud + SILENCE_DB
    return max(loud + SILENCE_DB, floor + OVER_FLOOR_DB)


def find_speech(levels: Float[np.ndarray, " J"]) -> Bool[np.ndarray, " J"]:
    """Mark the steps in which somebody speaks; pauses up to 80 ms belong to speech, clicks up to 60 ms do not."""
    loud = levels >= threshold_db(levels)
    silence, click = round(LEAST_SILENCE_S * STEP_HZ), round(LEAST_SPEECH_S * STEP_HZ)
    padded = np.pad(loud, silence)
    return binary_opening(binary_closing(padded, np.ones(silence + 1)), np.ones(click))[silence:-silence]


def speech_gate(speech: Float[np.ndarray, "S"], frames: int) -> Float[np.ndarray, " T"]:
    """Say, for each video frame, how much of a predicted mouth is to be believed.

    Args:
        speech: Samples at 16 kHz; sample 0 belongs to frame 0.
        frames: T; what lies behind the end of the sound is silent.

    Returns:
        1 where somebody speaks, 0 in silence: a smooth step of 120 ms down after speech, and one up before it.
    """
    speaks = find_speech(speech_levels(speech))
    seconds = np.arange(frames) / VIDEO_FPS
    edges = np.diff(np.pad(speaks.astype(int), 1))
    onsets, ends = np.flatnonzero(edges == 1) / STEP_HZ, np.flatnonzero(edges == -1) / STEP_HZ
    if not len(onsets):
        return np.zeros(frames)
    # Time until the next onset and since the last end; of a frame within speech, both are below zero.
    following, previous = np.searchsorted(ends, seconds, "left"), np.searchsorted(onsets, seconds, "right") - 1
    until = np.append(onsets, np.inf)[following] - seconds
    since = seconds - np.append(ends, -np.inf)[previous]
    return np.maximum(_eased(1 - until / OPENING_S), _eased(1 - since / CLOSING_S))


def loudness(speech: Float[np.ndarray, "S"], frames: int) -> Float[np.ndarray, " T"]:
    """Return how loud each video frame is: 0 at 40 dB below the loud level and in silence, 1 at it, linear in dB."""
    levels = speech_levels(speech)
    if not len(levels) or not np.isfinite(threshold_db(levels)):
        return np.zeros(frames)
    loud = np.percentile(levels[levels > DIGITAL_SILENCE_DB], LOUD_PERCENTILE)
    at = (np.arange(frames) * (STEP_HZ // VIDEO_FPS)).clip(max=len(levels) - 1)
    return np.clip(1 + (levels[at] - loud) / 40, 0, 1)


def _eased(share: Float[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
    share = np.clip(share, 0, 1)
    return share * share * (3 - 2 * share)
