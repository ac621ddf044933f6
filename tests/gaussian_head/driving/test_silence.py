"""The gate that closes the mouth in silence."""

from __future__ import annotations

import numpy as np
import pytest

from gaussian_head.driving.silence import find_speech, loudness, speech_gate, speech_levels, threshold_db

HZ = 16_000


def voiced(seconds: float, level_db: float = -15.0) -> np.ndarray:
    """A buzz of 140 Hz with syllables."""
    time = np.arange(round(seconds * HZ)) / HZ
    buzz = sum(np.sin(2 * np.pi * 140 * n * time) / n for n in range(1, 12)) * (0.75 + 0.25 * np.sin(26 * time))
    return 10 ** (level_db / 20) * buzz / buzz.std()


def pause(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * HZ))


def room(samples: int, level_db: float, seed: int = 0) -> np.ndarray:
    """Low noise, as rooms have it."""
    noise = np.random.default_rng(seed).normal(size=samples + 20)
    noise = np.convolve(noise, np.ones(20) / 20, "valid")[:samples]
    return 10 ** (level_db / 20) * noise / noise.std()


def test_levels_are_those_of_the_samples() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(HZ) / HZ)
    levels = speech_levels(tone)
    assert len(levels) == 100
    assert levels[5:-5] == pytest.approx(-3.01, abs=0.1)
    assert speech_levels(0.1 * tone)[50] == pytest.approx(-23.01, abs=0.1)
    hum = speech_levels(np.sin(2 * np.pi * 30 * np.arange(HZ) / HZ))
    assert hum[50:].max() < -18


def test_long_sound_in_blocks_has_no_seam() -> None:
    tone = np.sin(2 * np.pi * 300 * np.arange(61 * HZ) / HZ)
    assert np.ptp(speech_levels(tone)[100:-100]) < 0.2


@pytest.mark.parametrize("noise_db", [None, -50.0, -45.0])
def test_the_gate_closes_in_pauses_and_opens_ahead(noise_db: float | None) -> None:
    speech = np.concatenate([pause(0.6), voiced(1.0), pause(0.6), voiced(0.8), pause(0.6)])
    if noise_db is not None:  # -50: 35 dB below the voice, -45: 30 dB below
        speech = speech + room(len(speech), noise_db)
    gate = speech_gate(speech, 90)
    assert gate.min() >= 0
    assert gate.max() <= 1
    assert gate[15:40] == pytest.approx(1)  # 0.6 .. 1.6 s
    assert gate[55:75] == pytest.approx(1)
    assert gate[:12] == pytest.approx(0)
    assert gate[44:51] == pytest.approx(0)  # 1.76 .. 2.04 s: 160 ms behind speech, 160 ms ahead of it
    assert gate[79:] == pytest.approx(0)
    assert 0.3 < gate[14] < 1  # 40 ms ahead of the onset the mouth is opening
    assert np.abs(np.diff(gate)).max() < 0.55  # never at once


def test_a_breath_of_80_ms_does_not_close_the_mouth() -> None:
    speech = np.concatenate([voiced(1.0), pause(0.07), voiced(1.0)])
    assert speech_gate(speech, 51) == pytest.approx(1)


def test_a_click_does_not_open_it() -> None:
    speech = np.concatenate([voiced(1.0), pause(2.0)])
    speech[2 * HZ : 2 * HZ + 160] = 0.5
    assert speech_gate(speech, 75)[30:] == pytest.approx(0)


def test_noise_is_judged_by_the_room_not_by_digital_silence_beside_it() -> None:
    spoken = np.concatenate([voiced(1.0), pause(0.8), voiced(1.0)])
    noisy = spoken + room(len(spoken), -45.0)
    gate = speech_gate(np.concatenate([pause(1.0), noisy, pause(1.0)]), 120)
    assert gate[54:66] == pytest.approx(0, abs=1e-6)  # the pause in the noise
    assert gate[26:49] == pytest.approx(1)
    assert gate[-20:] == pytest.approx(0)


def test_speech_without_a_pause_stays_open() -> None:
    time = np.arange(4 * HZ) / HZ
    speech = voiced(4.0) * (0.55 + 0.45 * np.sin(20 * time))  # syllables 20 dB apart
    assert speech_gate(speech, 100) == pytest.approx(1)


@pytest.mark.parametrize("speech", [pause(1.0), room(HZ, -75.0)])
def test_a_silent_clip_is_silent_throughout(speech: np.ndarray) -> None:
    assert np.isinf(threshold_db(speech_levels(speech)))
    assert speech_gate(speech, 25) == pytest.approx(0)
    assert loudness(speech, 25) == pytest.approx(0)


def test_what_is_behind_the_end_is_silent() -> None:
    assert speech_gate(voiced(1.0), 50)[29:] == pytest.approx(0)
    assert speech_gate(np.zeros(0), 5) == pytest.approx(0)
    assert not find_speech(np.zeros(0)).any()


def test_loudness_is_relative_to_the_clip() -> None:
    speech = np.concatenate([voiced(1.0), voiced(1.0, level_db=-35), pause(0.4)])
    levels = loudness(speech, 60)
    assert levels[5:20].mean() == pytest.approx(1, abs=0.1)
    assert levels[30:45].mean() == pytest.approx(0.5, abs=0.1)
    assert levels[-5:] == pytest.approx(0)
    assert loudness(0.1 * speech, 60) == pytest.approx(levels, abs=1e-3)
