"""Log-mel features of speech, at four steps a video frame, independent of the recording's loudness.

Step j is centred on sample 160 j (time j / 100 s); a step sees a Hann window of 640 samples (40 ms).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray

SPEECH_HZ = 16_000
HOP = 160
WINDOW = 640
FFT = 1024
BANDS = 80
LOW_HZ, HIGH_HZ = 50.0, 7600.0
STEPS_PER_FRAME = 4
"""Mel steps (100 Hz) in one video frame (25 Hz)."""
FRAME_WINDOW = 16
"""Mel steps of one video frame's window: 160 ms."""
SILENCE = -1.0
"""Value of a band 80 dB or more under the loud level."""
_RANGE_DB = 80.0
_QUIETEST_LOUD_DB = -30.0


def log_mel(speech: Float[ndarray, "S"], rate: int = SPEECH_HZ) -> Float32[ndarray, "J 80"]:
    """Measure 80 mel bands (50-7600 Hz, Slaney scale) a hundred times a second.

    The level is relative to the clip's own loud level (95th percentile over steps of the loudest band): that maps to
    1, 80 dB under it to -1, linear in decibels. So another microphone or gain gives the same features.

    Args:
        speech: Mono samples in [-1, 1].
        rate: Must be 16000.

    Returns:
        [ceil(S / 160), 80] in [-1, about 1.2].
    """
    if rate != SPEECH_HZ:
        raise ValueError(f"log_mel expects speech at {SPEECH_HZ} Hz, got {rate} Hz; resample it first.")
    steps = -(-len(speech) // HOP)
    if steps == 0:
        return np.zeros((0, BANDS), np.float32)
    padded = np.pad(np.asarray(speech, np.float32), (WINDOW // 2, WINDOW))
    hann = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
    view = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:steps]
    level = np.concatenate([_band_db(view[j : j + 1024] * hann) for j in range(0, steps, 1024)])
    loud = max(float(np.percentile(level.max(1), 95)), _QUIETEST_LOUD_DB)
    return np.maximum(1.0 + (level - loud) * (2.0 / _RANGE_DB), SILENCE).astype(np.float32)


def mel_windows(mel: Float[ndarray, "J 80"], video_frames: int) -> Float32[ndarray, "T 16 80"]:
    """Cut one window a 25-fps video frame: steps [4 i - 8, 4 i + 8), silence beyond the ends.

    Args:
        mel: From `log_mel`, 100 steps a second.
        video_frames: T; frame i shows time i / 25 s.

    Returns:
        The windows, a read-only view: they overlap, and copies of an hour's would take 2 GB.
    """
    half = FRAME_WINDOW // 2
    missing = max(0, STEPS_PER_FRAME * video_frames + half - len(mel))
    padded = np.pad(np.asarray(mel, np.float32), ((half, missing), (0, 0)), constant_values=SILENCE)
    windows = np.lib.stride_tricks.sliding_window_view(padded, FRAME_WINDOW, axis=0)
    return windows[::STEPS_PER_FRAME][:video_frames].swapaxes(1, 2)


def _band_db(windowed: Float[ndarray, "J W"]) -> Float[ndarray, "J 80"]:
    power = np.abs(np.fft.rfft(windowed, FFT)) ** 2
    return 10 * np.log10(power @ _mel_filters().T + 1e-14)


@lru_cache(maxsize=1)
def _mel_filters() -> Float[ndarray, "80 F"]:
    """Triangles between equally spaced mels, each of unit area over frequency (Slaney's Auditory Toolbox scale)."""
    edges_hz = _hz_from_mel(np.linspace(_mel_from_hz(LOW_HZ), _mel_from_hz(HIGH_HZ), BANDS + 2))
    bins_hz = np.fft.rfftfreq(FFT, 1 / SPEECH_HZ)
    low, centre, high = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    triangles = np.minimum((bins_hz - low) / (centre - low), (high - bins_hz) / (high - centre))
    return np.maximum(triangles, 0) * (2 / (high - low))


def _mel_from_hz(hz: float) -> float:
    """Linear (3 mel per 200 Hz) up to 1 kHz, logarithmic (27 mel per factor 6.4) above."""
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)


def _hz_from_mel(mel: Float[ndarray, "N"]) -> Float[ndarray, "N"]:
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))
