"""The mel spectrogram that Wav2Lip, its expert and SadTalker hear (specs/one_shot.md 2): 80 columns a second.

Unlike `gaussian_head.media.mel` it depends on the recording's loudness: checkpoints were trained so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64
from numpy import ndarray

from gaussian_head.media.mel import mel_filters
from gaussian_head.media.time_bases import MEL_HOP, columns_in_speech

WINDOW = 800
"""Samples of a column's window (50 ms), and length of the transform."""
LOW_HZ, HIGH_HZ = 55.0, 7600.0
PRE_EMPHASIS = 0.97
SILENCE = -4.0
"""The lowest value, that of silence; the highest is 4."""
_BLOCK = 1024
"""Columns transformed at once: 13 s of sound, 16 MB."""


Padding = Literal["zeros", "reflect"]


def wav2lip_mel(speech: Float[ndarray, "S"], bands: int = 80, padding: Padding = "zeros") -> Float32[ndarray, "J M"]:
    """Measure the loudness of bands between 55 and 7600 Hz (Slaney scale), 80 times a second.

    Row j is centred on sample 200 j. Values are decibels below full scale, 0 dB - 20 mapped so that -100 dB is -4 and
    0 dB is 4, and clipped.

    Args:
        speech: Mono samples in [-1, 1] at 16 kHz; may be empty.
        bands: M: 80, in the 2023 challenge's entry 40.
        padding: What is heard beyond the ends, as the versions of librosa have it: reflect, the sound mirrored (<= 0.8:
            Wav2Lip was trained so), or zeros (>= 0.9: SadTalker). Only the outer two rows at either end differ.

    Returns:
        J = 1 + floor(S / 200) rows in [-4, 4].
    """
    mel = np.empty((columns_in_speech(len(speech)), bands), np.float32)
    done = 0
    for magnitude in spectrum(speech, padding):
        mel[done : done + len(magnitude)] = _levels(magnitude, bands)
        done += len(magnitude)
    return mel


def spectrum(speech: Float[ndarray, "S"], padding: Padding = "zeros") -> Iterator[Float64[ndarray, "n 401"]]:
    """Yield the magnitudes of the mel's Fourier transform, rows as of `wav2lip_mel`, a block after the other."""
    columns = columns_in_speech(len(speech))
    for start in range(0, columns, _BLOCK):
        count = min(_BLOCK, columns - start)
        first = MEL_HOP * start - WINDOW // 2
        heard = _emphasised(speech, np.arange(first, first + MEL_HOP * (count - 1) + WINDOW), padding)
        windows = np.lib.stride_tricks.sliding_window_view(heard, WINDOW)[::MEL_HOP]
        yield np.abs(np.fft.rfft(windows * _HANN))


def _emphasised(speech: Float[ndarray, "S"], at: Int64[ndarray, "N"], padding: str) -> Float64[ndarray, "N"]:
    """Return samples of the sound, its low notes weakened, at places that may lie beyond its ends."""
    last = len(speech) - 1
    if last < 0:
        return np.zeros(len(at))
    inside = (at >= 0) & (at <= last)
    if padding == "reflect":
        at = at % max(2 * last, 1)  # there and back again
        at = np.where(at > last, 2 * last - at, at)
        inside[:] = True
    at = np.clip(at, 0, last)
    before = np.where(at > 0, speech[at - 1], 0.0)  # the first sample has no predecessor
    return np.where(inside, np.float64(speech[at]) - PRE_EMPHASIS * before, 0.0)


def _levels(magnitude: Float64[ndarray, "J 401"], bands: int) -> Float[ndarray, "J M"]:
    power = (mel_filters(bands, WINDOW, LOW_HZ, HIGH_HZ) @ magnitude.T).T
    level_db = 20 * np.log10(np.maximum(1e-5, power)) - 20
    return np.clip(8 * (level_db + 100) / 100 + SILENCE, SILENCE, -SILENCE)


_HANN = np.hanning(WINDOW + 1)[:-1]
