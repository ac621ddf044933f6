"""Sound: files, sample rates, length."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from gaussian_head.errors import UserError
from gaussian_head.media.audio import SoundReader, fit_length, load_audio, resample, warn_of_faults, write_wav


def test_wav_round_trip(tmp_path: Path) -> None:
    speech = np.random.default_rng(0).uniform(-0.9, 0.9, 16_000).astype(np.float32)
    write_wav(tmp_path / "x.wav", speech, 16_000)
    assert np.abs(load_audio(tmp_path / "x.wav") - speech).max() < 1e-4


def test_stereo_is_mixed_and_resampled(tmp_path: Path) -> None:
    time = np.arange(44_100) / 44_100
    left = 0.5 * np.sin(2 * np.pi * 440 * time)
    soundfile.write(tmp_path / "x.wav", np.stack([left, np.zeros_like(left)], 1), 44_100)
    speech = load_audio(tmp_path / "x.wav", 16_000)
    expected = 0.25 * np.sin(2 * np.pi * 440 * np.arange(len(speech)) / 16_000)
    assert len(speech) == 16_000
    assert np.abs(speech - expected)[200:-200].max() < 1e-3


def test_resample_of_nothing_changes_nothing() -> None:
    speech = np.arange(5, dtype=np.float32)
    assert np.array_equal(resample(speech, 8000, 8000), speech)


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_a_reader_gives_the_same_in_pieces_and_silence_behind_the_end(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "x.wav", np.random.default_rng(0).uniform(-1, 1, (22_050, 2)), 44_100)
    whole = load_audio(tmp_path / "x.wav", rate)
    reader = SoundReader(tmp_path / "x.wav", rate)
    pieces = [reader.take(samples) for samples in (0, 1, 3000, len(whole))]
    reader.close()
    assert [len(piece) for piece in pieces] == [0, 1, 3000, len(whole)]
    joined = np.concatenate(pieces)
    assert np.array_equal(joined[: len(whole)], whole)
    assert not joined[len(whole) :].any()


@pytest.mark.parametrize(("level", "told"), [(0.0, "is silent"), (2.0, "is clipped"), (0.5, "")])
def test_faults_are_told(level: float, told: str, caplog: pytest.LogCaptureFixture) -> None:
    warn_of_faults(np.clip(level * np.sin(np.arange(16_000)), -1, 1), Path("x.wav"))
    assert told in caplog.text
    assert bool(caplog.text) == bool(told)


def test_fit_length() -> None:
    assert fit_length(np.ones(3), 5).tolist() == [1, 1, 1, 0, 0]
    assert fit_length(np.ones(3), 2).tolist() == [1, 1]


def test_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.wav does not exist"):
        load_audio(tmp_path / "none.wav")
    (tmp_path / "empty.wav").touch()
    with pytest.raises(UserError, match="is empty"):
        load_audio(tmp_path / "empty.wav")
    (tmp_path / "text.wav").write_text("no sound " * 100)
    with pytest.raises(UserError, match="not a readable media file"):
        load_audio(tmp_path / "text.wav")
