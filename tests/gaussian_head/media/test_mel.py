"""Mel features: time, pitch, loudness."""

import numpy as np
import pytest

from gaussian_head.media.mel import HEARS_AHEAD, SILENCE, MelStream, log_mel, loud_level, mel_windows


def tone(hz: float, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(int(16_000 * seconds)) / 16_000).astype(np.float32) * 0.3


def test_pitch_moves_the_loudest_band() -> None:
    loudest = [int(log_mel(tone(hz))[20:80].mean(0).argmax()) for hz in (100, 300, 1000, 3000, 7000)]
    assert loudest == sorted(set(loudest))


def test_loudness_does_not_matter() -> None:
    speech = np.random.default_rng(0).normal(size=16_000).astype(np.float32) * 0.2 * np.hanning(16_000)
    assert np.allclose(log_mel(speech), log_mel(speech / 10), atol=1e-3)


def test_range_and_silence() -> None:
    speech = np.concatenate([tone(440), np.zeros(16_000, np.float32)])
    mel = log_mel(speech)
    assert mel.shape == (200, 80)
    assert 0.9 < mel[20:80].max() < 1.3
    assert (mel[110:] == SILENCE).all()
    assert (log_mel(np.zeros(1600, np.float32)) == SILENCE).all()
    assert log_mel(np.zeros(0, np.float32)).shape == (0, 80)


def test_click_is_seen_at_its_frame() -> None:
    speech = np.zeros(16_000, np.float32)
    speech[8000] = 1.0  # 0.5 s: between frames 12 (0.48 s) and 13
    windows = mel_windows(log_mel(speech), 25)
    assert windows.shape == (25, 16, 80)
    energy = windows.mean(2)
    steps = 4 * np.arange(25)[:, None] - 8 + np.arange(16)
    seen = energy > SILENCE + 0.1
    assert seen[12].any()
    assert abs(steps[seen].mean() - 50) < 1


def test_windows_overlap_and_pad_with_silence() -> None:
    mel = np.random.default_rng(0).random((40, 80)).astype(np.float32)
    windows = mel_windows(mel, 12)
    assert np.array_equal(windows[5, 4:], windows[6, :12])
    assert np.array_equal(windows[2, 8:], mel[8:16])
    assert (windows[0, :8] == SILENCE).all()
    assert (windows[11, 4:] == SILENCE).all()


def test_wrong_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="16000 Hz, got 44100"):
        log_mel(np.zeros(100, np.float32), 44_100)


def voice(samples: int) -> np.ndarray:
    """Noise in syllables, louder and softer, with a pause."""
    rng = np.random.default_rng(3)
    envelope = np.abs(np.sin(np.arange(samples) / 1900)) * (np.arange(samples) // 9000 % 4 != 2)
    return (0.2 * envelope * rng.normal(size=samples) + 1e-4 * rng.normal(size=samples)).astype(np.float32)


def streamed(speech: np.ndarray, chunk: int, loud_db: float | None = None) -> np.ndarray:
    stream = MelStream(loud_db)
    windows = [stream.push(speech[start : start + chunk]) for start in range(0, len(speech), chunk)]
    return np.concatenate([*windows, stream.flush()])


@pytest.mark.parametrize("samples", [0, 1, 159, 640, 641, 1500, 16_000, 40_001])
@pytest.mark.parametrize("chunk", [113, 16_000])
def test_a_stream_gives_the_windows_of_the_whole_sound(samples: int, chunk: int) -> None:
    speech = voice(samples)
    whole = mel_windows(log_mel(speech), -(-samples // 640))
    windows = streamed(speech, chunk, loud_level(speech))
    assert windows.shape == whole.shape
    assert np.allclose(windows, whole, rtol=0, atol=1e-4)


def test_a_window_comes_out_with_the_last_sample_that_it_hears() -> None:
    speech, stream = voice(16_000), MelStream()
    assert len(stream.push(speech[: HEARS_AHEAD - 1])) == 0
    assert len(stream.push(speech[HEARS_AHEAD - 1 : HEARS_AHEAD])) == 1
    assert len(stream.push(speech[HEARS_AHEAD : HEARS_AHEAD + 639])) == 0
    assert len(stream.push(speech[HEARS_AHEAD + 639 : HEARS_AHEAD + 640])) == 1


def test_an_estimated_level_does_not_depend_on_chunks_and_approaches_the_whole_sounds() -> None:
    speech = voice(10 * 16_000)
    windows = streamed(speech, 1600)
    assert np.allclose(windows, streamed(speech, 37), rtol=0, atol=1e-4)
    whole = mel_windows(log_mel(speech), 250)
    heard = (whole[50:] > SILENCE) & (windows[50:] > SILENCE)
    assert np.abs(windows[50:] - whole[50:])[heard].max() < 3 * 2 / 80  # 3 dB
