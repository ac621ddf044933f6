"""Mel-frequency cepstra of speech, a hundred a second, with the defaults of python_speech_features 0.6.

Step j covers samples [160 j, 160 j + 400) of 16 kHz sound (10 ms apart, 25 ms long).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int16
from numpy import ndarray
from scipy.fft import dct

HOP, WINDOW, FFT = 160, 400, 512
CEPSTRA, BANDS = 13, 26
PRE_EMPHASIS = 0.97
LIFTER = 22
_STEPS_AT_ONCE = 1024
_TINY = np.finfo(np.float64).eps


def extract_mfcc(speech: Int16[ndarray, "S"]) -> Float[ndarray, "J 13"]:
    """Measure 13 cepstra a hundred times a second.

    Args:
        speech: 16-bit samples at 16 kHz (the level counts); the end is padded with zeros to a whole step.

    Returns:
        [1 + ceil((S - 400) / 160), 13], at least one row: the logarithm of the step's energy, then cepstra 1..12 of 26
        mel bands from 0 to 8 kHz, liftered.
    """
    steps = 1 + max(0, -(-(len(speech) - WINDOW) // HOP))
    samples = np.pad(speech.astype(np.float64), (0, (steps - 1) * HOP + WINDOW - len(speech)))
    # The difference is taken before padding: zeros after the end stay zeros.
    samples[1 : len(speech)] -= PRE_EMPHASIS * speech[:-1].astype(np.float64)
    view = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    return np.concatenate([_cepstra(view[j : j + _STEPS_AT_ONCE]) for j in range(0, steps, _STEPS_AT_ONCE)])


def _cepstra(windows: Float[ndarray, "J 400"]) -> Float[ndarray, "J 13"]:
    power = np.abs(np.fft.rfft(windows, FFT)) ** 2 / FFT
    bands = power @ _mel_filters().T
    cepstra = dct(np.log(np.where(bands == 0, _TINY, bands)), type=2, axis=1, norm="ortho")[:, :CEPSTRA]
    cepstra *= 1 + LIFTER / 2 * np.sin(np.pi * np.arange(CEPSTRA) / LIFTER)
    energy = power.sum(1)
    cepstra[:, 0] = np.log(np.where(energy == 0, _TINY, energy))
    return cepstra


@lru_cache(maxsize=1)
def _mel_filters() -> Float[ndarray, "26 F"]:
    """Triangles between mels equally spaced from 0 to 8 kHz, their corners rounded down to whole bins."""
    mels = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), BANDS + 2)
    corners = np.floor((FFT + 1) * 700 * (10 ** (mels / 2595) - 1) / 16_000)
    low, centre, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    bins = np.arange(FFT // 2 + 1)
    return np.maximum(np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)), 0)
