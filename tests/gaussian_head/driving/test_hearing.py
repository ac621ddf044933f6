"""A head hears what it was trained with, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from gaussian_head.data.layout import SubjectLayout
from gaussian_head.data.subject import Subject
from gaussian_head.driving.hearing import choose_extractor, described_extractor, hear
from gaussian_head.driving.regression import SpeechRegression, fit_speech_regression, load_features
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.driving.speech import SpeechDriver
from gaussian_head.errors import UserError
from gaussian_head.geometry.landmarks import mouth_aperture
from gaussian_head.media.audio import load_audio


def described(path: Path, extractor: str, features: np.ndarray) -> Path:
    np.save(path, features)
    path.with_suffix(".json").write_text(json.dumps({"extractor": extractor}))
    return path


def driver(subject: Subject, regression: SpeechRegression) -> SpeechDriver:
    return SpeechDriver(regression, DrivingSequence.from_subject(subject, subject.val))


def test_features_of_another_extractor_are_refused_with_both_names(tiny_subject: Path, tmp_path: Path) -> None:
    subject = Subject(tiny_subject, 64)
    speaking = driver(subject, fit_speech_regression(subject))
    same = np.zeros((5, 16, 80), np.float32)
    with pytest.raises(UserError, match="holds wavlm/9 features, but this head was trained with mel"):
        speaking.read(described(tmp_path / "x.npy", "wavlm/9", same))
    assert len(speaking.read(described(tmp_path / "y.npy", "mel", same)).features) == 5
    np.save(tmp_path / "z.npy", same)
    assert len(speaking.read(tmp_path / "z.npy").features) == 5


@pytest.mark.parametrize("content", ["{", "[1]", "{}", '{"extractor": 3}'])
def test_a_description_that_is_none_is_passed_over(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    assert described_extractor(tmp_path / "x.npy") is None


def test_features_made_outside_cannot_be_heard() -> None:
    with pytest.raises(UserError, match="deepspeech features, which are made outside"):
        hear("deepspeech", np.zeros(16_000))


def test_the_subjects_best_features_are_trained_with(tmp_path: Path) -> None:
    layout = SubjectLayout(tmp_path / "x")
    layout.root.mkdir()
    with pytest.raises(FileNotFoundError, match=r"aud_mel\.npy is missing"):
        choose_extractor(layout)
    features = np.zeros((1, 2, 3))
    for made_elsewhere, chosen in (("ave", "ave"), ("hubert", "hubert"), ("mel", "mel"), ("wavlm", "mel")):
        np.save(layout.audio_features(made_elsewhere), features)
        assert choose_extractor(layout) == chosen
    for made_here in ("mel", "wav2vec2", "hubert/9", "wavlm/mix"):
        described(layout.audio_features(made_here), made_here, features)
        assert choose_extractor(layout) == made_here


def test_a_head_trained_with_a_speech_encoder_hears_any_sound_with_it(
    tiny_subject: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    from tiny_encoder import save_encoder

    for name in list(os.environ):
        if name.startswith("GAUSSIAN_HEAD_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "huggingface"))
    monkeypatch.chdir(tmp_path)
    weights = save_encoder(tmp_path / "checkpoints/hubert-large-ls960-ft", "hubert", norm="group", normalize=False)
    subject = Subject(shutil.copytree(tiny_subject, tmp_path / "tiny"), 64)
    sound = load_audio(subject.layout.speech)
    described(subject.layout.audio_features("hubert"), "hubert/1", hear("hubert/1", sound))

    regression = fit_speech_regression(subject, choose_extractor(subject.layout))
    assert (regression.facts.extractor, regression.facts.feature_shape) == ("hubert/1", (2, 32))
    regression.save(tmp_path / "driving")
    speaking = driver(subject, SpeechRegression.load(tmp_path / "driving"))
    heard = speaking.read(subject.layout.speech)
    assert np.array_equal(heard.features, np.load(subject.layout.audio_features("hubert")))
    motion = speaking.drive(heard.features)
    opened, true = mouth_aperture(motion.landmarks.numpy()), mouth_aperture(subject.landmarks.numpy())
    assert np.corrcoef(opened, true)[0, 1] > 0.7
    assert torch.isfinite(motion.landmarks).all()

    with pytest.raises(UserError, match="holds hubert/1 features, but this head was trained with hubert;"):
        load_features(subject, "hubert")
    (weights / "model.safetensors").unlink()
    with pytest.raises(UserError, match="hf download facebook/hubert-large-ls960-ft"):
        speaking.read(subject.layout.speech)
