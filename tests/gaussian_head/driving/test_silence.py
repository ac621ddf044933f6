"""The gate that closes the mouth in silence."""

from __future__ import annotations

import numpy as np
import pytest

from gaussian_head.driving.silence import (
    GateLevels,
    LiveGate,
    find_speech,
    gate_levels,
    loudness,
    speech_gate,
    speech_levels,
    threshold_db,
)

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


def live(speech: np.ndarray, ahead: int, given: GateLevels | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Hear a sound step by step; take each frame once `ahead` steps from its own are there."""
    gate, taken = LiveGate(given), []
    frames = -(-len(speech) // 640)
    for j, start in enumerate(range(0, len(speech), 160)):
        gate.hear(speech[start : start + 160])
        if j + 1 >= ahead and (j + 1 - ahead) % 4 == 0:
            taken.append(gate.take())
    taken += [gate.take() for _ in range(frames - len(taken))]
    opening, loud = np.array(taken).T
    return opening, loud


def conversation() -> np.ndarray:
    parts = [pause(0.6), voiced(1.0), pause(0.05), voiced(0.03), pause(0.6), voiced(0.8), pause(0.13), voiced(0.5)]
    speech = np.concatenate([*parts, pause(1.0), voiced(0.05), pause(0.3), voiced(0.402)])
    return speech + room(len(speech), -50.0)


def test_a_live_gate_with_the_clips_levels_is_the_clips_gate() -> None:
    speech = conversation()
    opening, loud = live(speech, 26, gate_levels(speech))
    assert opening == pytest.approx(speech_gate(speech, len(opening)), abs=1e-9)
    assert loud == pytest.approx(loudness(speech, len(loud)), abs=1e-6)
    assert 0.3 < opening.mean() < 0.7


@pytest.mark.parametrize("ahead", [9, 17, 25])
def test_a_live_gate_that_estimates_is_nearly_the_clips(ahead: int) -> None:
    speech = conversation()
    opening, loud = live(speech, ahead)
    clip = speech_gate(speech, len(opening))
    assert np.mean((opening > 0.5) != (clip > 0.5)) < 0.08
    assert np.abs(loud - loudness(speech, len(loud))).mean() < 0.15
    assert np.diff(opening).max() <= 0.5 + 1e-9  # never at once


def test_a_live_gate_stays_shut_in_a_room_and_in_silence() -> None:
    assert live(room(4 * HZ, -50.0), 25)[0] == pytest.approx(0)
    opening, loud = live(pause(1.0), 25)
    assert opening == pytest.approx(0)
    assert loud == pytest.approx(0)
    assert live(voiced(1.0), 9, GateLevels(-20.0, np.inf))[0] == pytest.approx(0)


def test_a_live_gate_opens_again_after_a_long_pause_in_a_noisy_room() -> None:
    speech = np.concatenate([voiced(3.0), pause(30.0), voiced(2.0)])
    opening, _ = live(speech + room(len(speech), -45.0), 25)
    assert opening[90:815].mean() < 0.02
    assert opening[828:870].mean() > 0.98
