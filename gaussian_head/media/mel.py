"""Log-mel features of speech, at four steps a video frame, independent of the recording's loudness.

Step j is centred on sample 160 j (time j / 100 s); a step sees a Hann window of 640 samples (40 ms). So a frame's
window is complete once the samples up to `HEARS_AHEAD` behind the frame's own moment are there.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray
from scipy.sparse import csr_array

from gaussian_head.media.live_level import LiveLevel

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
HEARS_AHEAD = (FRAME_WINDOW // 2 - 1) * HOP + WINDOW // 2
"""Samples after the moment of a video frame that its window hears: 90 ms."""
SILENCE = -1.0
"""Value of a band 80 dB or more under the loud level."""
_HANN = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
_RANGE_DB = 80.0
_QUIETEST_LOUD_DB = -30.0
_ASSUMED_LOUD_DB = 12.0
"""Of a stream before its voice was heard: recordings of close voices lie at 9 to 24 dB."""


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
    level = _band_levels(padded, steps)
    return _relative(level, _loud_db(level))


def loud_level(speech: Float[ndarray, "S"]) -> float:
    """Return the level that `log_mel` maps to 1: the 95th percentile over steps of the loudest band, dB, at least -30.

    Args:
        speech: Samples at 16 kHz.
    """
    steps = -(-len(speech) // HOP)
    padded = np.pad(np.asarray(speech, np.float32), (WINDOW // 2, WINDOW))
    return _loud_db(_band_levels(padded, steps)) if steps else _QUIETEST_LOUD_DB


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


class MelStream:
    """Windows of a sound that is still going on: `mel_windows(log_mel(sound))`, as soon as each can be told."""

    def __init__(self, loud_db: float | None = None) -> None:
        """Begin a new sound.

        Args:
            loud_db: The voice's loud level, where it is known (`loud_level`): then the windows are those of the whole
                sound, if that has this level. None: it is estimated from what was heard so far (`LiveLevel`), anew
                with each step; a window has the level of its last step.
        """
        self._given = loud_db
        self._live = None if loud_db is not None else LiveLevel(_ASSUMED_LOUD_DB, _QUIETEST_LOUD_DB)
        self._speech = np.zeros(WINDOW // 2, np.float32)
        self._samples = self._steps = 0
        # Before the beginning there is silence, whatever the loud level turns out to be.
        self._window = np.full((FRAME_WINDOW, BANDS), -np.inf)

    def push(self, speech: Float[ndarray, "S"]) -> Float32[ndarray, "T 16 80"]:
        """Take some more samples.

        Returns:
            The windows that are now complete, none at first: the i-th that ever comes out is frame i's.
        """
        self._samples += len(speech)
        return self._advance(np.asarray(speech, np.float32))

    def flush(self) -> Float32[ndarray, "T 16 80"]:
        """End the sound, and return the windows that are still due: behind the end there is silence."""
        steps, frames = -(-self._samples // HOP), -(-self._samples // (HOP * STEPS_PER_FRAME))
        due = self._advance(np.zeros(WINDOW, np.float32), steps)
        silence = np.full((STEPS_PER_FRAME * (frames - 1) + FRAME_WINDOW // 2 - steps, BANDS), -np.inf)
        return np.concatenate([due, self._windows(silence)])

    def _advance(self, speech: Float[ndarray, "S"], last: int | None = None) -> Float32[ndarray, "T 16 80"]:
        self._speech = np.concatenate([self._speech, speech])
        steps = max(0, (len(self._speech) - WINDOW) // HOP + 1)
        if last is not None:
            steps = min(steps, last - self._steps)
        levels = _band_levels(self._speech, steps)
        self._speech = self._speech[HOP * steps :]
        return self._windows(levels)

    def _windows(self, levels: Float[ndarray, "J 80"]) -> Float32[ndarray, "T 16 80"]:
        windows = []
        for level in levels:
            self._window = np.concatenate([self._window[1:], level[None]])
            loud = self._given if self._live is None else self._live.hear(float(level.max()))
            self._steps += 1
            behind = self._steps - FRAME_WINDOW // 2
            if behind >= 0 and behind % STEPS_PER_FRAME == 0:
                windows.append(_relative(self._window, loud))
        return np.stack(windows) if windows else np.zeros((0, FRAME_WINDOW, BANDS), np.float32)


def _band_levels(padded: Float32[ndarray, "S"], steps: int) -> Float[ndarray, "J 80"]:
    """Measure the bands (dB) of the first windows of a sound that begins half a window before its first step."""
    if not steps:
        return np.zeros((0, BANDS))
    view = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:steps]
    return np.concatenate([_band_db(view[j : j + 1024] * _HANN) for j in range(0, steps, 1024)])


def _loud_db(level: Float[ndarray, "J 80"]) -> float:
    return max(float(np.percentile(level.max(1), 95)), _QUIETEST_LOUD_DB)


def _relative(level: Float[ndarray, "J 80"], loud_db: float) -> Float32[ndarray, "J 80"]:
    return np.maximum(1.0 + (level - loud_db) * (2.0 / _RANGE_DB), SILENCE).astype(np.float32)


def _band_db(windowed: Float[ndarray, "J W"]) -> Float[ndarray, "J 80"]:
    power = np.abs(np.fft.rfft(windowed, FFT)) ** 2
    return 10 * np.log10((mel_filters(BANDS, FFT, LOW_HZ, HIGH_HZ) @ power.T).T + 1e-14)


@lru_cache(maxsize=4)
def mel_filters(bands: int, fft: int, low_hz: float, high_hz: float) -> csr_array:
    """Triangles between equally spaced mels, each of unit area over frequency (Slaney's Auditory Toolbox scale).

    Sparse, [bands, fft / 2 + 1] at 16 kHz: few of the products are not zero, and a stream asks for one row at a time.
    """
    edges_hz = _hz_from_mel(np.linspace(_mel_from_hz(low_hz), _mel_from_hz(high_hz), bands + 2))
    bins_hz = np.fft.rfftfreq(fft, 1 / SPEECH_HZ)
    low, centre, high = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    triangles = np.minimum((bins_hz - low) / (centre - low), (high - bins_hz) / (high - centre))
    return csr_array(np.maximum(triangles, 0) * (2 / (high - low)))


def _mel_from_hz(hz: float) -> float:
    """Linear (3 mel per 200 Hz) up to 1 kHz, logarithmic (27 mel per factor 6.4) above."""
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)


def _hz_from_mel(mel: Float[ndarray, "N"]) -> Float[ndarray, "N"]:
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))
