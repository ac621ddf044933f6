"""Formant synthesis: glottal pulses and hiss through resonators (source-filter model; resonators as in Klatt 1980)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import butter, lfilter, sosfilt

from data_utils.synthetic.phonemes import Segment

VOICE_HZ = 24_000
"""Sample rate of the synthesized speech."""
_BLOCK = 120  # samples (5 ms) between updates of the resonators
_BANDWIDTHS_HZ = (80.0, 100.0, 140.0, 250.0, 300.0)
_HIGH_FORMANTS_HZ = (3500.0, 4500.0)


def speak(segments: list[Segment], seconds: float, rng: np.random.Generator) -> Float[ndarray, "S"]:
    """Synthesize an utterance at `VOICE_HZ`, in [-1, 1]."""
    samples = round(seconds * VOICE_HZ)
    blocks = -(-samples // _BLOCK)
    times = (np.arange(blocks) + 0.5) * _BLOCK / VOICE_HZ
    tracks = _tracks(segments, times)
    voicing, hiss, hiss_hz, formants, pitch = tracks
    length = blocks * _BLOCK
    per_sample = np.arange(length) / _BLOCK - 0.5

    def spread(track: ndarray) -> ndarray:
        return np.interp(per_sample, np.arange(blocks), track)

    source = _glottis(spread(pitch), rng) * spread(voicing)
    breath = rng.standard_normal(length)
    source += 0.02 * breath * spread(voicing)
    voiced = _resonate(source, np.column_stack([formants, np.tile(_HIGH_FORMANTS_HZ, (blocks, 1))]))
    noise = _hiss(rng.standard_normal(length), hiss_hz) * spread(hiss)
    speech = voiced / np.abs(voiced).max().clip(1e-9) + 0.5 * noise / np.abs(noise).max().clip(1e-9)
    speech += 2e-4 * rng.standard_normal(length)  # the room
    return (0.8 * speech / np.abs(speech).max().clip(1e-9))[:samples].astype(np.float32)


def _tracks(segments: list[Segment], times: ndarray) -> tuple[ndarray, ...]:
    """Sample the segments' settings every block and let them glide."""
    index = np.searchsorted([s.stop_s for s in segments], times, side="right").clip(0, len(segments) - 1)
    block_s = _BLOCK / VOICE_HZ

    def track(values: list, smooth_s: float) -> ndarray:
        return gaussian_filter1d(np.array(values, float)[index], smooth_s / block_s, axis=0, mode="nearest")

    voicing = track([s.phoneme.voicing * s.accent for s in segments], 0.010)
    hiss = track([s.phoneme.noise * s.accent for s in segments], 0.008)
    hiss_hz = track([max(s.phoneme.noise_hz, 1000) for s in segments], 0.010)
    formants = track([s.phoneme.formants_hz for s in segments], 0.020)
    silent = np.array([s.phoneme.voicing + s.phoneme.noise == 0 and not s.phoneme.closure for s in segments])
    melody = track([118 * s.accent for s in segments], 0.06)
    since_pause = times - np.maximum.accumulate(np.where(silent[index], times, 0))
    return voicing, hiss, hiss_hz, formants, melody * (1.10 - 0.07 * since_pause.clip(0, 3))


def _glottis(pitch_hz: ndarray, rng: np.random.Generator) -> ndarray:
    """Return the derivative of a train of rounded pulses (open 60 % of the period) with jitter."""
    wander = gaussian_filter1d(rng.standard_normal(len(pitch_hz)), 0.004 * VOICE_HZ)
    phase = np.cumsum(pitch_hz * (1 + 0.012 * wander / wander.std()) / VOICE_HZ)
    shimmer = 1 + 0.05 * rng.standard_normal(int(phase[-1]) + 2)
    cycle = phase.astype(int)
    t = (phase - cycle) / 0.6
    flow = np.where(t < 1, t * t * (1 - t), 0) * 6.75 * shimmer[cycle]  # Rosenberg's pulse
    return np.diff(flow, prepend=0.0)


def _resonate(source: ndarray, formants_hz: Float[ndarray, "B F"]) -> ndarray:
    """Pass the source through second-order resonators in cascade, updated every block."""
    signal = source
    for k, bandwidth in enumerate(_BANDWIDTHS_HZ):
        radius = np.exp(-np.pi * bandwidth / VOICE_HZ)
        a1 = -2 * radius * np.cos(2 * np.pi * formants_hz[:, k] / VOICE_HZ)
        a2 = radius**2
        state, out = np.zeros(2), np.empty_like(signal)
        for block, coefficient in enumerate(a1):
            part = slice(block * _BLOCK, (block + 1) * _BLOCK)
            out[part], state = lfilter([1 + coefficient + a2], [1, coefficient, a2], signal[part], zi=state)
        signal = out
    return signal


def _hiss(white: ndarray, centre_hz: ndarray) -> ndarray:
    """Mix band-limited noises so that the loudest lies at the wanted centre."""
    centres = (1400.0, 2200.0, 3000.0, 4200.0, 5600.0, 7500.0)
    blocks = np.arange(len(centre_hz)) * _BLOCK + _BLOCK / 2
    at = np.interp(np.arange(len(white)), blocks, centre_hz)
    total = np.zeros_like(white)
    for centre in centres:
        sections = butter(2, [centre * 0.8, centre * 1.25], "bandpass", fs=VOICE_HZ, output="sos")
        total += sosfilt(sections, white) * np.exp(-0.5 * (np.log2(at / centre) / 0.45) ** 2)
    return total
