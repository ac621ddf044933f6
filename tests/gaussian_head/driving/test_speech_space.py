"""The space that speech moves the face in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gaussian_head.data.subject import Subject
from gaussian_head.driving.regression import SpeechRegression, fit_speech_regression
from gaussian_head.driving.speech_space import CLAMP_SIGMAS, SpeechSpace, common_basis
from gaussian_head.errors import UserError
from gaussian_head.geometry import landmarks as face
from gaussian_head.geometry.speech_points import lip_error_mm


@pytest.fixture(scope="module")
def landmarks(tiny_subject: Path) -> np.ndarray:
    subject = Subject(tiny_subject, 64)
    return subject.landmarks[subject.train].numpy().astype(np.float64)


def test_codes_are_white_and_lead_back_to_the_lips(landmarks: np.ndarray) -> None:
    space = SpeechSpace.fit(landmarks)
    codes = space.encode(landmarks)
    assert np.allclose(codes[:, :1].std(0), 1)
    assert np.allclose(codes.mean(0), 0, atol=1e-6)
    small = np.abs(codes).max(1) < CLAMP_SIGMAS
    assert small.sum() > 20
    assert lip_error_mm(space.decode(codes[small]).numpy(), landmarks[small]) < 0.05
    assert 0.99 < space.explained <= 1


def test_explained_variance_is_that_of_the_components() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(300, 478, 3)) * 1e-3 + rng.normal(size=(478, 3)) * 0.01
    assert SpeechSpace.fit(noise).explained < 0.3


def test_save_and_load_give_the_same(landmarks: np.ndarray, tmp_path: Path) -> None:
    space = SpeechSpace.fit(landmarks)
    space.save(tmp_path)
    loaded = SpeechSpace.load(tmp_path)
    assert loaded.explained == pytest.approx(space.explained, abs=1e-6)
    codes = space.encode(landmarks)
    assert np.allclose(loaded.decode(codes).numpy(), space.decode(codes).numpy(), atol=1e-6)
    (tmp_path / "speech_space.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(UserError, match="train again"):
        SpeechSpace.load(tmp_path)


def test_people_share_a_space_and_keep_their_own_size(landmarks: np.ndarray) -> None:
    mean = landmarks.mean(0)
    lively = mean + 2 * (landmarks - mean)
    basis, spread = common_basis([landmarks, lively])
    calm, wild = (SpeechSpace.on_basis(who, basis, spread) for who in (landmarks, lively))
    assert np.allclose(2 * calm.spread, wild.spread, rtol=1e-6)
    assert np.allclose(calm.encode(landmarks)[:, 0], wild.encode(lively)[:, 0], atol=1e-6)
    own = SpeechSpace.fit(landmarks)
    assert np.allclose((calm.encode(landmarks) @ calm.into(own))[:, 0], own.encode(landmarks)[:, 0], atol=0.02)


def test_regressions_of_the_first_format_are_still_read(tiny_subject: Path, tmp_path: Path) -> None:
    """They kept the space in their own file."""
    from safetensors.numpy import load_file, save_file

    fitted = fit_speech_regression(Subject(tiny_subject, 64))
    fitted.save(tmp_path)
    tensors = load_file(tmp_path / "regression.safetensors") | load_file(tmp_path / "speech_space.safetensors")
    save_file(tensors, tmp_path / "regression.safetensors")
    document = json.loads((tmp_path / "regression.json").read_text()) | {"format": 1}
    for new in ("train_lip_error_mm", "val_lip_error_mm"):
        del document[new]
    (tmp_path / "regression.json").write_text(json.dumps(document))
    for path in tmp_path.glob("speech_space.*"):
        path.unlink()
    features = np.random.default_rng(0).normal(size=(9, 16, 80)).astype(np.float32)
    loaded = SpeechRegression.load(tmp_path).predict(features).numpy()
    assert np.allclose(loaded, fitted.predict(features).numpy(), atol=1e-6)
    assert face.mouth_aperture(loaded).std() > 0
