"""Three clocks of speech-driven video, and how a frame finds its window in a sequence (specs/one_shot.md 2.1, 9).

Samples run at SPEECH_HZ, columns of Wav2Lip's mel at MEL_HZ, video frames at a rate of their own (25, 30, 29.97).
T frames. Every window is a first row (`starts`), a width, and a policy for rows that do not exist.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

SPEECH_HZ = 16_000
MEL_HOP = 200
"""Samples from one mel column to the next."""
MEL_HZ = SPEECH_HZ // MEL_HOP
"""80 columns a second."""
Policy = Literal["clamp", "flush"]
Rate = float | int
"""Frames a second."""


def frames_in_speech(samples: int, fps: Rate) -> int:
    """Return how many whole frames a sound of that many samples at SPEECH_HZ covers."""
    _require_rate(fps)
    return int(samples * fps / SPEECH_HZ)


def samples_of_frames(frames: int, fps: Rate) -> int:
    """Return how many whole samples at SPEECH_HZ that many frames cover: what the mel is measured on."""
    _require_rate(fps)
    return int(frames * SPEECH_HZ / fps)


def columns_in_speech(samples: int) -> int:
    """Return how many mel columns a sound of that many samples has: one at either end, hence at least 1."""
    return 1 + samples // MEL_HOP


def mel_starts(frames: int, fps: Rate, offset_frames: int = 0) -> Int64[ndarray, "T"]:
    """Return the first mel column of each frame's window: the frame's moment, rounded towards 0.

    Args:
        frames: T.
        fps: Of the video.
        offset_frames: Frames that a window begins after its own frame: 0 in Wav2Lip, -2 in SadTalker, 0 or -1 in the
            2023 challenge's entry.
    """
    _require_rate(fps)
    return np.trunc(MEL_HZ * (np.arange(frames) + offset_frames) / fps).astype(np.int64)


def frames_in_mel(columns: int, fps: Rate, width: int = 16) -> int:
    """Return how many frames Wav2Lip makes of a mel: those whose window is whole, and one more for what is left over.

    A sound shorter than a window gives one frame.
    """
    _require_rate(fps)
    whole = max(0, columns - width + 1)
    count = int(whole * fps / MEL_HZ) + 2
    return int(np.searchsorted(mel_starts(count, fps), whole)) + 1


def window_rows(
    starts: Int64[ndarray, "T"], width: int, length: int, policy: Policy = "clamp"
) -> Int64[ndarray, "T W"]:
    """Return the rows of every window.

    Args:
        starts: First rows; they may lie before 0 or behind the end.
        width: W, rows of a window.
        length: Rows of the sequence.
        policy: What stands for rows that do not exist. clamp: the nearest row, again and again. flush: a window that
            would reach behind the end moves back as a whole, so that it ends with the last row; before 0, and in a
            sequence shorter than a window, the nearest row still.

    Raises:
        ValueError: The sequence is empty.
    """
    if length < 1:
        raise ValueError(f"window_rows: expected a sequence of at least one row, got {length}.")
    if policy == "flush":
        starts = np.minimum(starts, length - width)
    return np.clip(starts[:, None] + np.arange(width), 0, length - 1)


def _require_rate(fps: Rate) -> None:
    if not 0 < fps < float("inf"):
        raise ValueError(f"expected a frame rate above 0, got {fps}.")
