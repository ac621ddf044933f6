"""From sound to speech landmarks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gaussian_head.data.subject import Subject
from gaussian_head.driving import ridge
from gaussian_head.driving.features import load_features
from gaussian_head.driving.regression import SpeechRegression, fit_speech_regression, stack_context
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.driving.speech import SpeechDriver
from gaussian_head.errors import UserError
from gaussian_head.geometry import landmarks as face
from gaussian_head.geometry.speech_points import speech_weights
from gaussian_head.media.audio import load_audio
from gaussian_head.media.mel import SILENCE


@pytest.fixture(scope="module")
def subject(tiny_subject: Path) -> Subject:
    return Subject(tiny_subject, 64)


@pytest.fixture(scope="module")
def fitted(subject: Subject) -> SpeechRegression:
    return fit_speech_regression(subject)


def silence(frames: int) -> np.ndarray:
    return np.full((frames, 16, 80), SILENCE, np.float32)


def test_the_mouth_follows_the_sound_on_frames_it_has_not_seen(fitted: SpeechRegression) -> None:
    assert fitted.facts.train_aperture_correlation > 0.8
    assert fitted.facts.val_aperture_correlation > 0.8


def test_silence_closes_the_mouth(fitted: SpeechRegression, subject: Subject) -> None:
    true = face.mouth_aperture(subject.landmarks.numpy())
    still = face.mouth_aperture(fitted.predict(silence(20)).numpy())
    assert still.std() < 1e-6
    assert still[10] < np.quantile(true, 0.4)


def test_speech_leaves_the_upper_face_alone(fitted: SpeechRegression, subject: Subject) -> None:
    rest = subject.landmarks[:20] + 0.001
    predicted = fitted.predict(load_features(subject, "mel")[:20], rest=rest)
    upper = np.concatenate([face.RIGHT_EYE, face.LEFT_EYE, face.RIGHT_BROW, face.LEFT_BROW])
    assert torch.allclose(predicted[:, upper], rest[:, upper], atol=1e-6)
    lips = face.INNER_LIPS
    assert not torch.allclose(predicted[:, lips], rest[:, lips], atol=5e-4)


def test_weights_are_one_at_the_lips_and_fall_smoothly(subject: Subject) -> None:
    weights = speech_weights(subject.landmarks.mean(0).numpy())
    assert np.all(weights[np.concatenate([face.OUTER_LIPS, face.INNER_LIPS])] == 1)
    assert np.all(weights[face.RIGHT_EYE] == 0)
    assert 0 < np.mean((weights > 0.05) & (weights < 0.95)) < 0.5


def test_save_and_load_give_the_same(fitted: SpeechRegression, subject: Subject, tmp_path: Path) -> None:
    fitted.save(tmp_path / "driving")
    loaded = SpeechRegression.load(tmp_path / "driving")
    assert loaded.facts == fitted.facts
    features = load_features(subject, "mel")
    assert torch.allclose(loaded.predict(features), fitted.predict(features), atol=1e-6)


@pytest.mark.parametrize("shape", [(10, 16, 29), (10, 8, 80), (10, 80)])
def test_features_of_another_width_are_refused(fitted: SpeechRegression, shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"\[frames, 16, 80\].*mel.*got") as refusal:
        fitted.check(np.zeros(shape, np.float32))
    assert str(list(shape)) in str(refusal.value)


def test_a_regression_of_another_format_is_refused(fitted: SpeechRegression, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    document = json.loads((tmp_path / "regression.json").read_text())
    (tmp_path / "regression.json").write_text(json.dumps(document | {"format": 99}))
    with pytest.raises(UserError, match="train again"):
        SpeechRegression.load(tmp_path)


def test_missing_features_name_the_file(subject: Subject) -> None:
    with pytest.raises(FileNotFoundError, match=r"aud_ds\.npy"):
        fit_speech_regression(subject, "deepspeech")


def test_context_is_ordered_in_time() -> None:
    features = np.arange(20.0)[:, None, None].repeat(4, 1)
    stacked = stack_context(features)
    assert np.array_equal(stacked[10, ::2], np.arange(5, 16))
    assert stacked[0, 0] == 0


@pytest.mark.parametrize(("samples", "width"), [(200, 20), (50, 300)])
def test_ridge_finds_a_linear_map_either_way(samples: int, width: int) -> None:
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(samples, width)), rng.uniform(0.5, 2, samples)
    y = x @ rng.normal(size=(width, 3))
    found = ridge.solve(x, y, weights, 0.7)
    gradient = x.T @ (weights[:, None] * (x @ found - y)) + 0.7 * found
    assert np.abs(gradient).max() < 1e-8


def test_held_out_predictions_do_not_know_their_targets() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(120, 200)), rng.normal(size=(120, 1))
    predicted = ridge.predict_held_out(x, y, np.ones(120), 120, 0.1)
    assert abs(np.corrcoef(predicted[:, 0], y[:, 0])[0, 1]) < 0.3


@pytest.fixture
def driver(fitted: SpeechRegression, subject: Subject) -> SpeechDriver:
    return SpeechDriver(fitted, DrivingSequence.from_subject(subject, subject.val))


def test_any_sound_drives_for_as_long_as_it_lasts(driver: SpeechDriver, subject: Subject) -> None:
    motion = driver.drive(*driver.read(subject.layout.speech))
    assert len(motion) == subject.frames
    assert set(motion.frame_index.tolist()) <= set(subject.val)


def test_a_mouth_driven_by_its_own_sound_moves_as_tracked(driver: SpeechDriver, subject: Subject) -> None:
    motion = driver.drive(driver.hear(load_audio(subject.layout.speech)))
    heard, true = face.mouth_aperture(motion.landmarks.numpy()), face.mouth_aperture(subject.landmarks.numpy())
    assert np.corrcoef(heard, true)[0, 1] > 0.8


@pytest.mark.parametrize("content", [b"", b"text"])
def test_an_array_that_is_none_is_refused(driver: SpeechDriver, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"numpy\.save"):
        driver.read(tmp_path / "x.npy")


def test_other_features_must_come_ready_made(driver: SpeechDriver) -> None:
    regression = driver.predictor
    other = SpeechRegression(replace(regression.facts, extractor="hubert"), regression.space, regression._tensors)
    with pytest.raises(UserError, match="hubert"):
        SpeechDriver(other, driver.motion).hear(np.zeros(16000, np.float32))


@pytest.mark.parametrize("frames", [0, 1, 3, 40])
@pytest.mark.parametrize("chunk", [1, 7])
def test_a_stream_is_the_whole_file(fitted: SpeechRegression, subject: Subject, frames: int, chunk: int) -> None:
    features, stream = load_features(subject, "mel")[:frames], fitted.stream()
    codes = []
    for start in range(0, frames, chunk):
        codes.append(stream.push(features[start : start + chunk]))
        assert sum(map(len, codes)) == max(0, min(start + chunk, frames) - fitted.look_ahead)
    codes.append(stream.flush())
    faces = fitted.space.decode(torch.cat(codes).numpy())
    assert len(faces) == frames
    if frames:
        assert torch.allclose(faces, fitted.predict(features), rtol=0, atol=1e-8)
