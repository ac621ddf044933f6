"""A person's speech in many versions: noisier, higher or lower, faster or slower (specs/gaussian_head.md i.4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from gaussian_head.driving.features import average_parts
from gaussian_head.media.audio import resample
from gaussian_head.media.mel import SPEECH_HZ, STEPS_PER_FRAME, log_mel, mel_windows

NOISE_DB = (10.0, 30.0)
"""Signal-to-noise ratio."""
SEMITONES = 3.0
"""Pitch is shifted at most this far, and the formants with it, as of a larger or smaller speaker."""
SPEEDS = (0.9, 1.1)


@dataclass(frozen=True)
class SpeechCopy:
    """One version of a sound, frame by frame."""

    inputs: Float[np.ndarray, "R D"]
    """`average_parts` of its features."""
    positions: Float[np.ndarray, " R"]
    """Where in the original each frame is, in frames."""


def copy_speech(
    features: Float[np.ndarray, "T W C"], speech: Float[np.ndarray, " S"] | None, count: int, seed: int
) -> list[SpeechCopy]:
    """Return the original and its altered copies.

    Args:
        features: Of the original, one window a frame.
        speech: Its samples (16 kHz) where the features are mel, which is computed anew; without, only speed changes.
        count: Versions in all.
        seed: Of the draws.
    """
    frames = len(features)
    copies = [SpeechCopy(average_parts(features).astype(np.float32), np.arange(frames, dtype=np.float64))]
    for i in range(1, count):
        rng = np.random.default_rng([seed, i])
        speed = rng.uniform(*SPEEDS)
        positions = np.arange(int((frames - 1) / speed) + 1) * speed
        if speech is None:
            altered = interpolate(features, positions)
        else:
            altered = alter_mel(speech, len(positions), speed, rng)
        copies.append(SpeechCopy(average_parts(altered).astype(np.float32), positions))
    return copies


def alter_mel(
    speech: Float[np.ndarray, " S"], frames: int, speed: float, rng: np.random.Generator
) -> Float[np.ndarray, "R 16 80"]:
    """Add noise, shift the pitch and change the speed; return the mel windows of what comes out.

    Resampling shifts the pitch and the duration; reading the mel at other times gives the duration wanted.
    """
    pitch = 2 ** (rng.uniform(-SEMITONES, SEMITONES) / 12)
    level = np.sqrt(np.mean(np.square(speech))) * 10 ** (-rng.uniform(*NOISE_DB) / 20)
    noisy = (speech + level * rng.standard_normal(len(speech))).astype(np.float32)
    mel = log_mel(resample(noisy, round(SPEECH_HZ * pitch), SPEECH_HZ))
    steps = np.arange(STEPS_PER_FRAME * frames + STEPS_PER_FRAME) * speed / pitch
    return mel_windows(interpolate(mel, steps), frames)


def interpolate(rows: Float[np.ndarray, "T ..."], positions: Float[np.ndarray, " R"]) -> Float[np.ndarray, "R ..."]:
    """Read rows between each other, linearly; the ends are repeated."""
    positions = positions.clip(0, len(rows) - 1)
    low = np.floor(positions).astype(int)
    high = (low + 1).clip(max=len(rows) - 1)
    share = (positions - low).reshape(-1, *[1] * (rows.ndim - 1))
    return (rows[low] * (1 - share) + rows[high] * share).astype(rows.dtype)
