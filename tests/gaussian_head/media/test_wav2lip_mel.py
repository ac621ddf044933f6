"""Wav2Lip's mel: levels, ends, length, and memory. Numbers of the reference: tests/parity/test_window_cases.py."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from gaussian_head.media.wav2lip_mel import wav2lip_mel

NOISE = np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32)


@pytest.mark.parametrize("padding", ["zeros", "reflect"])
@pytest.mark.parametrize("samples", [0, 1, 2, 199, 200, 399, 401, 1600])
def test_silence_of_any_length_is_the_lowest_value(samples: int, padding: str) -> None:
    mel = wav2lip_mel(np.zeros(samples, np.float32), padding=padding)
    assert mel.shape == (1 + samples // 200, 80)
    assert np.all(mel == -4.0)
    assert np.isfinite(wav2lip_mel(NOISE[:samples], padding=padding)).all()


def test_a_tone_lies_in_its_band_and_louder_is_higher() -> None:
    at = np.arange(16_000) / 16_000
    low, high = (wav2lip_mel(0.1 * np.sin(2 * np.pi * hz * at), 40)[20:60].mean(0) for hz in (300, 3000))
    assert low.argmax() < 10
    assert high.argmax() > 20
    louder = wav2lip_mel(0.2 * np.sin(2 * np.pi * 300 * at), 40)[20:60].mean(0)
    assert louder.max() - low.max() == pytest.approx(8 * 20 * np.log10(2) / 100, abs=1e-3)


def test_paddings_differ_at_the_ends_alone() -> None:
    differ = np.abs(wav2lip_mel(NOISE) - wav2lip_mel(NOISE, padding="reflect")).max(1) > 1e-6
    assert set(np.flatnonzero(differ)) == {0, 1, 19, 20}


def test_the_sound_is_mirrored_about_its_last_sample() -> None:
    mirrored = np.concatenate([NOISE[400:0:-1], NOISE, NOISE[-2:-402:-1]])
    # Emphasis looks back, so that mirrored samples are emphasised before they are mirrored: only rows inside agree.
    assert np.allclose(wav2lip_mel(mirrored)[4:-4], wav2lip_mel(NOISE)[2:-2], atol=1e-6)


def test_blocks_join_and_memory_is_that_of_the_result() -> None:
    speech = np.tile(NOISE, 400)  # 100 s, eight blocks
    tracemalloc.start()
    mel = wav2lip_mel(speech)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6 + mel.nbytes
    assert np.allclose(mel[20:40], mel[1020 + 20 : 1020 + 40], atol=1e-5)  # either side of the first border
