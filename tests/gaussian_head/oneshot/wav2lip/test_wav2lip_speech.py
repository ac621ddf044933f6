"""What each frame hears: at any frame rate, to the end of the sound and beyond."""

from __future__ import annotations

import numpy as np
import pytest

from gaussian_head.errors import UserError
from gaussian_head.media.wav2lip_mel import SILENCE, wav2lip_mel
from gaussian_head.oneshot.wav2lip.speech import speech_windows


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, samples).clip(-1, 1).astype(np.float32)


@pytest.mark.parametrize(("fps", "frames"), [(25, 50), (30, 60), (30_000 / 1001, 60), (12.5, 25)])
def test_windows_begin_at_their_frame(fps: float, frames: int) -> None:
    speech = noise(32_321)
    windows, mel = speech_windows(speech, fps), wav2lip_mel(speech, padding="reflect")
    assert len(windows) == frames
    for k in (0, 7, frames // 2):
        start = int(80 * k / fps)
        np.testing.assert_allclose(windows.cut(k)[0], mel[start : start + 16].T)
    start = int(80 * (frames - 1) / fps)
    whole = len(mel) - 4 - start  # the sound ends before this column
    np.testing.assert_allclose(windows.cut(frames - 1)[0, :, :whole], mel[start : start + whole].T)
    assert (windows.cut(frames - 1)[0, :, -1] == SILENCE).all()


def test_the_references_ending() -> None:
    speech = noise(32_321)
    mel = wav2lip_mel(speech, padding="reflect")
    for fps, frames in ((25, 47), (30, 57)):
        windows = speech_windows(speech, fps, ending="reference")
        assert len(windows) == frames
        np.testing.assert_array_equal(windows.cut(frames - 1)[0], mel[-16:].T)


def test_frames_wanted_decide_and_short_sounds_do() -> None:
    assert len(speech_windows(noise(16_000), 25, 40)) == 40
    late = speech_windows(noise(16_000), 25, 40)
    assert (late.cut(30) == SILENCE).all()
    assert (late.cut(20) > SILENCE).any()
    assert len(speech_windows(noise(100), 25)) == 1
    assert speech_windows(noise(100), 25).cut(0).shape == (1, 80, 16)
    assert speech_windows(noise(100), 25, ending="reference").cut(0).shape == (1, 80, 16)
    early = speech_windows(noise(16_000), 25, offset_frames=-1)
    np.testing.assert_array_equal(early.cut(6), speech_windows(noise(16_000), 25).cut(5))


def test_sound_that_is_no_number() -> None:
    with pytest.raises(UserError, match="NaN"):
        speech_windows(np.array([0.1, np.nan] * 8000, np.float32), 25)
