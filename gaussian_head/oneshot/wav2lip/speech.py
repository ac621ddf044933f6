"""The windows of speech that the generator hears, one for each frame of any frame rate (specs/one_shot.md 2.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Int
from numpy import ndarray

from gaussian_head.errors import UserError
from gaussian_head.media.audio import fit_length
from gaussian_head.media.time_bases import (
    SPEECH_HZ,
    Rate,
    frames_in_mel,
    frames_in_speech,
    mel_starts,
    samples_of_frames,
    window_rows,
)  # fmt: skip
from gaussian_head.media.wav2lip_mel import wav2lip_mel
from gaussian_head.networks.wav2lip_blocks import MEL_COLUMNS

Ending = Literal["silence", "reference"]
TAIL = SPEECH_HZ // 4
"""Samples of silence behind the speech: more than a window, so that the last frames' windows are whole."""


@dataclass(frozen=True)
class SpeechWindows:
    """What each frame hears; windows are cut out when they are asked for."""

    mel: Float32[ndarray, "J 80"]
    rows: Int[ndarray, "T 16"]

    def __len__(self) -> int:
        return len(self.rows)

    def cut(self, frame: int) -> Float32[ndarray, "1 80 16"]:
        """Return a frame's window as the generator takes it."""
        return self.mel[self.rows[frame]].T[None]


def speech_windows(
    speech: Float[ndarray, "S"],
    fps: Rate,
    frames: int | None = None,
    *,
    ending: Ending = "silence",
    offset_frames: int = 0,
) -> SpeechWindows:
    """Cut speech into one window for each frame.

    Args:
        speech: Mono samples in [-1, 1] at 16 kHz.
        fps: Of the video.
        frames: How many; default: as many as the speech covers, at least 1.
        ending: What is heard behind the end. silence. reference: nothing, so the last windows are moved back to be
            whole, and unless `frames` is given there are a few frames fewer than the speech covers.
        offset_frames: Frames that a window begins after its own frame.

    Raises:
        UserError: Some samples are no numbers (a fault of what made the sound).
    """
    if not np.isfinite(speech).all():
        raise UserError("the sound holds samples that are no numbers (NaN); make or export it again.")
    if ending == "reference":
        mel = wav2lip_mel(speech, padding="reflect")
        frames = frames or frames_in_mel(len(mel), fps, MEL_COLUMNS)
    else:
        frames = frames or max(1, frames_in_speech(len(speech), fps))
        mel = wav2lip_mel(fit_length(speech, samples_of_frames(frames, fps) + TAIL), padding="reflect")
    return SpeechWindows(mel, window_rows(mel_starts(frames, fps, offset_frames), MEL_COLUMNS, len(mel), "flush"))
