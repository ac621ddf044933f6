"""Altered copies of speech: what is warped in time takes its targets along."""

from __future__ import annotations

import numpy as np
import pytest

from gaussian_head.media.mel import SPEECH_HZ, log_mel, mel_windows
from gaussian_head.training import speech_copies
from gaussian_head.training.speech_copies import alter_mel, copy_speech, interpolate

FRAMES = 75


def clicks(at_frame: int) -> np.ndarray:
    """Three seconds of faint noise with a loud tone around one frame."""
    rng = np.random.default_rng(0)
    time = np.arange(FRAMES * SPEECH_HZ // 25) / SPEECH_HZ
    tone = np.sin(2 * np.pi * 440 * time) * (np.abs(time - at_frame / 25) < 0.04)
    return (0.5 * tone + 1e-4 * rng.normal(size=len(time))).astype(np.float32)


def test_the_first_is_the_original() -> None:
    speech = clicks(30)
    features = mel_windows(log_mel(speech), FRAMES)
    copies = copy_speech(features, speech, 4, seed=0)
    assert len(copies) == 4
    assert np.array_equal(copies[0].positions, np.arange(FRAMES))
    assert np.allclose(copies[0].inputs[:, :80], features[:, :8].mean(1), atol=1e-6)
    assert len({len(copy.positions) for copy in copies}) > 1


@pytest.mark.parametrize("with_sound", [True, False])
def test_an_event_stays_at_its_place_in_the_original(with_sound: bool) -> None:
    speech = clicks(40)
    features = mel_windows(log_mel(speech), FRAMES)
    for copy in copy_speech(features, speech if with_sound else None, 8, seed=3):
        loudest = copy.positions[np.argmax(copy.inputs.max(1))]
        assert abs(loudest - 40) < 2.5


def test_pitch_moves_the_spectrum_and_not_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_copies, "NOISE_DB", (60.0, 60.0))
    monkeypatch.setattr(speech_copies, "SEMITONES", 12.0)
    speech = clicks(40)
    bands = {}
    for seed in range(8):
        mel = alter_mel(speech, FRAMES, 1.0, np.random.default_rng(seed))
        assert abs(np.argmax(mel.max((1, 2))) - 40) <= 2
        bands[float(np.random.default_rng(seed).uniform(-12, 12))] = int(np.argmax(mel[40].mean(0)))
    assert [bands[shift] for shift in sorted(bands)] == sorted(bands.values())
    assert max(bands.values()) - min(bands.values()) > 5


def test_rows_are_read_between_each_other() -> None:
    rows = np.arange(10.0)[:, None]
    assert np.allclose(interpolate(rows, np.array([-1, 0, 2.5, 8.9, 30]))[:, 0], [0, 0, 2.5, 8.9, 9])
