"""Stages audio and audio_features: length, description, command."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_utils import audio_features
from data_utils.audio import extract_audio
from data_utils.audio_features import choose_extractor, extract_audio_features, write_audio_features
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
    options = ["--model", "mel", "--out", str(tmp_path / "x.npy"), "--wav"]
    command = [sys.executable, "-m", "data_utils.audio_features", *options]
    done = subprocess.run([*command, str(tmp_path / "x.wav")], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(tmp_path / "x.npy")
    assert np.load(tmp_path / "x.npy").shape == (13, 16, 80)
    failed = subprocess.run([*command, str(tmp_path / "none.wav")], capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert failed.stderr.count("\n") == 1
    assert "none.wav does not exist" in failed.stderr


@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype"),
    [
        ("x.wav", 48_000, 2, "PCM_16"),
        ("x.wav", 16_000, 1, "DOUBLE"),
        ("x.mp3", 44_100, 2, None),
        ("x.wav", 8_000, 1, None),
    ],
)
def test_sounds_of_all_kinds_are_heard_alike(
    tmp_path: Path, name: str, rate: int, channels: int, subtype: str | None
) -> None:
    def tone(hz: int) -> np.ndarray:
        return 0.3 * np.sin(2 * np.pi * 440 * np.arange(hz) / hz)

    soundfile.write(tmp_path / "plain.wav", tone(16_000), 16_000)
    soundfile.write(tmp_path / name, np.stack([tone(rate)] * channels, 1), rate, subtype=subtype)
    for sound, out in (("plain.wav", "plain.npy"), (name, "other.npy")):
        write_audio_features(tmp_path / sound, tmp_path / out)
    plain, other = np.load(tmp_path / "plain.npy"), np.load(tmp_path / "other.npy")
    loudest = plain[12].mean(0).argmax()
    assert other[12].mean(0).argmax() == loudest
    assert np.abs(plain - other)[5:20, :, loudest].max() < 0.02


def test_the_shortest_sound_has_a_frame(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.full(1, 0.1), 16_000)
    assert write_audio_features(tmp_path / "x.wav", tmp_path / "x.npy")["shape"] == [1, 16, 80]


@pytest.mark.parametrize(("level", "told"), [(0.0, "is silent"), (30.0, r"is clipped"), (0.5, None)])
def test_silent_and_clipped_sounds_work_and_warn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, level: float, told: str | None
) -> None:
    write_wav(tmp_path / "x.wav", level * np.sin(np.arange(16_000) * 0.2), 16_000)
    with caplog.at_level(logging.WARNING):
        write_audio_features(tmp_path / "x.wav", tmp_path / "x.npy")
    assert np.isfinite(np.load(tmp_path / "x.npy")).all()
    assert told in caplog.text if told else not caplog.text


def test_what_cannot_be_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must end in \.npy"):
        write_audio_features(tmp_path / "none.wav", tmp_path / "x.txt")
    with pytest.raises(UserError, match="neither layers nor weights"):
        choose_extractor("mel", layers="9")


@pytest.fixture
def encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a tiny random WavLM, where it is found under the large one's name."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    from tiny_encoder import save_encoder

    for name in list(os.environ):
        if name.startswith("GAUSSIAN_HEAD_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "huggingface"))
    monkeypatch.chdir(tmp_path)
    return save_encoder(tmp_path / "checkpoints/wavlm-large", "wavlm")


@pytest.mark.usefixtures("encoder")
def test_command_with_a_speech_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "x.wav", np.random.default_rng(0).normal(size=(24_000, 2)) * 0.1, 48_000)
    monkeypatch.setattr(sys, "argv", ["audio_features", "--wav", "x.wav", "--model", "wavlm", "--layers", "1"])
    monkeypatch.setattr(audio_features, "configure_logging", lambda: None)
    with pytest.raises(SystemExit, match="0"):
        audio_features.main()
    assert capsys.readouterr().out.splitlines() == ["wavlm/1 features [13, 2, 32] of 0.50 s", "x.npy"]
    features, told = np.load(tmp_path / "x.npy"), json.loads((tmp_path / "x.json").read_text())
    assert features.shape == (13, 2, 32)
    assert features.dtype == np.float16
    assert told | {"sha256": "", "weights_sha256": ""} == {
        "extractor": "wavlm/1", "fps": 25, "rate_hz": 16_000, "samples": 8000, "sha256": "", "shape": [13, 2, 32],
        "model": "microsoft/wavlm-large", "weights_sha256": "", "layers": "1", "normalized": True, "steps_hz": 50,
        "window_s": 20.0, "frame_window": "steps 2 i and 2 i + 1 of 20 ms for frame i",
    }  # fmt: skip
    assert len(told["weights_sha256"]) == 64


def test_a_subject_gets_the_best_features_there_are(encoder: Path, tmp_path: Path) -> None:
    assert choose_extractor("auto") == "wavlm"
    layout = SubjectLayout(tmp_path / "x")
    write_wav(layout.speech, 0.3 * np.sin(np.arange(16_000) * 0.2), 16_000)
    for k in range(25):
        write_jpeg(layout.frame(k), np.zeros((8, 8, 3), np.uint8))
    facts = extract_audio_features(layout, "wavlm", "mix")
    assert facts["extractor"] == "wavlm/mix"
    assert np.load(layout.audio_features("wavlm/mix")).shape == (25, 2, 32)
    (encoder / "model.safetensors").unlink()
    assert choose_extractor("auto") == "mel"
    with pytest.raises(UserError, match="hf download"):
        choose_extractor("wavlm")
