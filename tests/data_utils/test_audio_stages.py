"""Stages audio and audio_features: length, description, command."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_utils.audio import extract_audio
from data_utils.audio_features import extract_audio_features, write_audio_features
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.errors import UserError
from gaussian_head.media.audio import load_audio, write_wav
from gaussian_head.media.image import write_jpeg
from gaussian_head.media.video import VideoWriter


def make_clip(folder: Path, seconds_of_sound: float, level: float = 0.3) -> Path:
    write_wav(folder / "tone.wav", level * np.sin(np.arange(int(16_000 * seconds_of_sound)) * 0.2), 16_000)
    with VideoWriter(folder / "clip.mp4", 30, 32, 32, audio=folder / "tone.wav") as writer:
        for _ in range(66):
            writer.write(np.zeros((32, 32, 3), np.uint8))
    return folder / "clip.mp4"


@pytest.mark.parametrize("seconds", [1.0, 5.0])
def test_sound_is_as_long_as_the_frames(tmp_path: Path, seconds: float) -> None:
    layout = SubjectLayout(tmp_path / "clip")
    facts = extract_audio(make_clip(tmp_path, seconds), layout)
    assert facts["samples"] == len(load_audio(layout.speech)) == 55 * 640


def test_silence_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="silent"):
        extract_audio(make_clip(tmp_path, 2.0, level=0.0), SubjectLayout(tmp_path / "clip"))


def test_features_have_a_row_a_frame_and_a_description(tmp_path: Path) -> None:
    layout = SubjectLayout(tmp_path / "x")
    write_wav(layout.speech, 0.3 * np.sin(np.arange(16_000) * 0.2), 16_000)
    for k in range(25):
        write_jpeg(layout.frame(k), np.zeros((8, 8, 3), np.uint8))
    extract_audio_features(layout, "mel")
    features = np.load(layout.audio_features("mel"))
    described = json.loads(layout.audio_features("mel").with_suffix(".json").read_text())
    assert features.shape == (25, 16, 80) == tuple(described["shape"])
    assert features.dtype == np.float32
    assert (described["extractor"], described["rate_hz"], described["samples"]) == ("mel", 16_000, 16_000)
    assert len(described["sha256"]) == 64


def test_any_sound_is_as_long_as_it_lasts(tmp_path: Path) -> None:
    write_wav(tmp_path / "x.wav", np.random.default_rng(0).normal(size=44_100) * 0.1, 44_100)
    description = write_audio_features(tmp_path / "x.wav", tmp_path / "x.npy")
    assert description["shape"] == [25, 16, 80]


def test_command(tmp_path: Path) -> None:
    write_wav(tmp_path / "x.wav", 0.1 * np.sin(np.arange(8000) * 0.2), 16_000)
    command = [sys.executable, "-m", "data_utils.audio_features", "--out", str(tmp_path / "x.npy"), "--wav"]
    done = subprocess.run([*command, str(tmp_path / "x.wav")], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(tmp_path / "x.npy")
    assert np.load(tmp_path / "x.npy").shape == (13, 16, 80)
    failed = subprocess.run([*command, str(tmp_path / "none.wav")], capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert failed.stderr.count("\n") == 1
    assert "none.wav does not exist" in failed.stderr
