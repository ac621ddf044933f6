"""What a network hears in each frame: windows of the mel, measured where they are asked for, so in constant memory."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray

from gaussian_head.errors import UserError
from gaussian_head.media.time_bases import (
    MEL_HOP,
    SPEECH_HZ,
    Rate,
    columns_in_speech,
    frames_in_speech,
    mel_starts,
    samples_of_frames,
    window_rows,
)
from gaussian_head.media.wav2lip_mel import SILENCE, wav2lip_mel

_MARGIN = 4
"""Mel columns measured and dropped at either side: a column hears half a window, 2 columns, to each side of it."""


@runtime_checkable
class Hearing(Protocol):
    """Windows of a sound, one a frame."""

    frames: int
    """How many frames the sound lasts."""

    def windows(self, first: int, last: int) -> Float32[ndarray, "n M W"]:
        """Return the windows, bands first, -4..4, of frames `first` to `last` (excluded).

        Frames behind the end have windows, too: they hear the last column again and again.
        """
        ...


class Speech:
    """A sound's windows."""

    def __init__(
        self, speech: Float[ndarray, "S"], fps: Rate, *, bands: int = 80, width: int = 16, offset_frames: int = 0
    ) -> None:
        """Take a sound.

        Args:
            speech: Mono samples in [-1, 1] at 16 kHz.
            fps: Frames a second that the network was trained at.
            bands: Of the mel.
            width: Columns of a window.
            offset_frames: Frames that a window begins after its own frame (`media.time_bases.mel_starts`).

        Raises:
            UserError: It is shorter than a frame, or holds samples that are not finite.
        """
        self.frames = frames_in_speech(len(speech), fps)
        if self.frames < 1:
            raise UserError(
                f"the sound has {len(speech)} samples; expected at least {samples_of_frames(1, fps)} at "
                f"{SPEECH_HZ} Hz (one frame of {fps:g} a second): give a longer one."
            )
        self._speech = speech[: samples_of_frames(self.frames, fps)]
        if not np.isfinite(self._speech.sum(dtype=np.float64)):
            raise UserError("the sound holds samples that are not finite (NaN); write the sound file again.")
        self._columns = columns_in_speech(len(self._speech))
        self._fps, self._bands, self._width, self._offset = fps, bands, width, offset_frames

    def windows(self, first: int, last: int) -> Float32[ndarray, "n M W"]:
        """Return windows; see `Hearing`."""
        starts = mel_starts(last - first, self._fps, self._offset + first)
        rows = window_rows(starts, self._width, self._columns)
        start, end = rows.min(), rows.max() + 1
        before = min(_MARGIN, start)
        heard = self._speech[MEL_HOP * (start - before) : MEL_HOP * (end + _MARGIN)]
        return wav2lip_mel(heard, self._bands)[before:][rows - start].swapaxes(1, 2)


class Constant:
    """Windows in which the mel has one value everywhere: nothing is said."""

    def __init__(self, frames: int, value: float = SILENCE) -> None:
        self.frames, self._value = frames, value

    def windows(self, first: int, last: int) -> Float32[ndarray, "n 80 16"]:
        """Return windows; see `Hearing`."""
        return np.full((last - first, 80, 16), self._value, np.float32)
