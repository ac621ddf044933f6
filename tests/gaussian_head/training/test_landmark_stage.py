"""The stage that learns how sound moves the lips: from its first regression to the predictor of a run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_fit import SAVE_EVERY, STEPS, TINY, all_steps, stopping_after, trainer

from gaussian_head.data.layout import SubjectLayout
from gaussian_head.data.subject import Subject
from gaussian_head.driving.audio_landmarks import AudioLandmarkConfig, AudioLandmarkNet
from gaussian_head.driving.predictor import SpeechNetwork, SpeechPredictor, load_predictor, speech_figures
from gaussian_head.driving.pretrained import Pretrained
from gaussian_head.driving.regression import SpeechRegression, fit_speech_regression
from gaussian_head.driving.speech_space import SpeechSpace
from gaussian_head.errors import UserError
from gaussian_head.geometry.landmarks import mouth_aperture
from gaussian_head.media.mel import SILENCE
from gaussian_head.model.checkpoint import find_checkpoint
from gaussian_head.training.landmarks import LandmarksConfig, LandmarkStage, Speaker, input_statistics
from gaussian_head.training.landmarks_fit import fit_landmarks, pretrain_landmarks
from gaussian_head.training.landmarks_start import start_from_ridge
from gaussian_head.training.landmarks_validation import validate_landmarks
from gaussian_head.training.learner import Learner
from gaussian_head.training.trainer import Trainer


@pytest.fixture(scope="module")
def subject(tiny_subject: Path) -> Subject:
    return Subject(tiny_subject, TINY.size)


def fit(root: Path, run: Path, progress=all_steps, **options) -> bool:
    return fit_landmarks(Subject(root, TINY.size), run, TINY, "tiny", trainer(run, progress=progress), **options)


def files(run: Path) -> dict[str, bytes]:
    folders = (find_checkpoint(run / "landmarks").folder, run / "driving")
    return {str(path.relative_to(run)): path.read_bytes() for folder in folders for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def straight(tiny_subject: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("straight")
    assert fit(tiny_subject, run)
    return run


def test_the_tiny_subject_end_to_end(tiny_subject, subject, tmp_path):
    run = tmp_path / "run"
    fit_landmarks(subject, run, TINY, "tiny", Trainer(run, TINY.landmarks.trainer, validate_landmarks, all_steps))
    network = SpeechNetwork.load(run / "driving")
    assert isinstance(network, SpeechPredictor)
    assert network.facts.train_aperture_correlation > 0.8
    assert network.facts.val_aperture_correlation > 0.8
    events = EventAccumulator(str(run / "landmarks")).Reload()
    shown = [event.value for event in events.Scalars("aperture_mm_by_frame/tiny/true")]
    assert np.allclose(shown, mouth_aperture(subject.landmarks[subject.val].numpy()) * 1e3, atol=1e-3)
    assert [event.step for event in events.Scalars("aperture_mm_by_frame/tiny/predicted")] == subject.val
    assert events.Images("val/aperture_true_dark_predicted_orange/tiny")
    assert {"loss/position", "loss/motion", "loss/shape", "loss/code", "loss/silence"} <= set(events.Tags()["scalars"])


def test_silence_closes_the_mouth(subject, straight):
    network = SpeechNetwork.load(straight / "driving")
    still = mouth_aperture(network.predict(np.full((20, 16, 80), SILENCE, np.float32)).numpy())
    true = mouth_aperture(subject.landmarks.numpy())
    assert still.std() < 1e-6
    assert still[10] < np.quantile(true, 0.4)


@pytest.mark.parametrize("stops", [2 * SAVE_EVERY, 2 * SAVE_EVERY + 1, SAVE_EVERY - 1])
def test_stopped_and_continued_is_as_if_never_stopped(tiny_subject, straight, tmp_path, stops):
    folder = tmp_path / "landmarks"
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_subject, tmp_path, interrupted_after(stops))
    found = find_checkpoint(folder)
    assert (found.step if found else 0) == stops // SAVE_EVERY * SAVE_EVERY
    assert fit(tiny_subject, tmp_path)
    assert files(tmp_path) == files(straight)


def interrupted_after(count: int):
    def steps(numbers, total, label, first):
        yield from stopping_after(count)(numbers, total, label, first)
        raise KeyboardInterrupt

    return steps


def test_a_finished_stage_is_left_alone_and_a_lost_predictor_is_written_again(tiny_subject, straight, tmp_path):
    run = Path(shutil.copytree(straight, tmp_path / "run"))
    before = files(run)
    assert not fit(tiny_subject, run, stopping_after(0))
    shutil.rmtree(run / "driving")
    assert fit(tiny_subject, run, stopping_after(0))
    assert files(run) == before


def test_val_frames_are_never_used(tiny_subject, straight, tmp_path):
    twin = Path(shutil.copytree(tiny_subject, tmp_path / "tiny"))
    path = SubjectLayout(twin).landmarks_3d
    landmarks = np.load(path)
    val = Subject(tiny_subject, TINY.size).val
    landmarks[val] += np.random.default_rng(0).normal(size=landmarks[val].shape).astype(np.float32) * 0.01
    np.save(path, landmarks)
    run = tmp_path / "run"
    fit(twin, run)
    name = "network.safetensors"
    trained = [find_checkpoint(where / "landmarks").folder / name for where in (run, straight)]
    assert trained[0].read_bytes() == trained[1].read_bytes()
    assert (run / "driving" / name).read_bytes() == (straight / "driving" / name).read_bytes()


def test_every_training_frame_is_held_out_by_one_member(subject):
    speaker = Speaker.from_subject(subject, "mel")
    seen = speaker.seen(5)
    assert not seen[:, speaker.val].any()
    assert not seen[speaker.folds(5), speaker.train].any()
    assert seen.any(1).all()
    assert (seen[:, speaker.train].sum(0) >= 3).all()


def toy(frames: int = 300) -> tuple[Speaker, SpeechSpace]:
    """A face whose mouth opens by a product of two sounds, the second of three frames before: no linear path has it."""
    rng = np.random.default_rng(0)
    sounds = np.sign(rng.normal(size=(frames, 2)))
    opening = 0.005 * (1 + sounds[:, 0] * np.roll(sounds[:, 1], 3))
    mean = rng.normal(size=(478, 3)) * 0.02
    way = np.zeros((478, 3))
    way[[87, 14, 317], 1] = -1.0
    landmarks = mean + opening[:, None, None] * way
    features = np.repeat(sounds[:, None], 2, 1).astype(np.float32)
    speaker = Speaker("toy", "made up", features, None, landmarks, np.arange(frames), np.arange(0))
    return speaker, SpeechSpace.fit(landmarks)


def test_the_convolutions_learn_what_the_linear_path_cannot():
    speaker, space = toy()
    options = LandmarksConfig(steps=150, rate=5e-3, channels=24, copies=1, dropout=0.0, silence_weight=0.0)
    shape = AudioLandmarkConfig((2, 2), 16, look_ahead=2, channels=24, dilations=(1, 2), members=2)
    net = AudioLandmarkNet(shape)
    net.input_mean, net.input_scale = input_statistics([speaker])
    assert abs(start_from_ridge(net, [speaker], [space])) < 0.3
    stage = LandmarkStage(net, [speaker], [space], options, seed=0)
    learner = Learner(stage)
    position = [learner.step(step).losses["position"].item() for step in range(options.steps)]
    assert np.mean(position[-10:]) < 0.15 * np.mean(position[:3])


def test_the_start_is_a_ridge_regression(subject):
    speaker = Speaker.from_subject(subject, "mel")
    space = SpeechSpace.fit(speaker.landmarks[speaker.train])
    shape = AudioLandmarkConfig((16, 80), 16, channels=8, dilations=(1,))
    net = AudioLandmarkNet(shape)
    net.input_mean, net.input_scale = input_statistics([speaker])
    held_out = start_from_ridge(net, [speaker], [space])
    ridge = fit_speech_regression(subject).facts.train_aperture_correlation
    assert held_out == pytest.approx(ridge, abs=0.1)
    predicted = space.decode(net(speaker.features).detach().numpy()).numpy()
    true = mouth_aperture(speaker.landmarks)
    assert np.corrcoef(mouth_aperture(predicted), true)[0, 1] > 0.9


def test_the_better_predictor_is_used_unless_one_is_asked_for(tiny_subject, straight, tmp_path):
    run = Path(shutil.copytree(straight, tmp_path / "run"))
    told = json.loads((run / "driving" / "predictor.json").read_text())
    scores = {name: told["figures"][f"{name}_train_aperture_correlation"] for name in ("ridge", "network")}
    assert speech_figures(run / "driving") == {"predictor": told["used"], **told["figures"]}
    assert told["figures"]["explained_variance"] > 0.95
    assert told["asked"] == "auto"
    assert told["used"] == max(("ridge", "network"), key=scores.get)
    for name, kind in (("ridge", SpeechRegression), ("network", SpeechNetwork)):
        assert fit(tiny_subject, run, choice=name)
        assert isinstance(load_predictor(run / "driving"), kind)
    (run / "driving" / "predictor.json").unlink()
    assert speech_figures(run / "driving") == {}
    assert isinstance(load_predictor(run / "driving"), SpeechRegression)  # as in runs of before


def test_features_of_another_width_are_refused(straight):
    with pytest.raises(UserError, match=r"\[frames, 16, 80\].*mel.*got \[7, 2, 1024\]"):
        SpeechNetwork.load(straight / "driving").predict(np.zeros((7, 2, 1024), np.float32))


@pytest.fixture(scope="module")
def pretrained(tiny_subject: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on the tiny subject and a twin who moves twice as much."""
    twin = Path(shutil.copytree(tiny_subject, tmp_path_factory.mktemp("people") / "twin"))
    path = SubjectLayout(twin).landmarks_3d
    landmarks = np.load(path)
    np.save(path, landmarks + (landmarks - landmarks.mean(0)))
    people = [Subject(root, TINY.size) for root in (tiny_subject, twin)]
    run = tmp_path_factory.mktemp("pretrained")
    return pretrain_landmarks(people, run, TINY, "tiny", trainer(run))


def test_a_network_of_many_people_is_fitted_to_one(tiny_subject, pretrained, tmp_path):
    assert Pretrained.load(pretrained).people == ["tiny", "twin"]
    fit(tiny_subject, tmp_path, init=pretrained)
    network = SpeechNetwork.load(tmp_path / "driving")
    assert network.facts.pretrained
    assert network.facts.train_aperture_correlation > 0.8
    with pytest.raises(UserError, match="other options"):
        fit(tiny_subject, tmp_path)


def test_a_pretrained_network_of_other_features_is_refused(tiny_subject, pretrained, tmp_path):
    other = tmp_path / "other.safetensors"
    replace(Pretrained.load(pretrained), extractor="hubert").save(other)
    with pytest.raises(UserError, match=r"hubert features \[16, 80\].*subject has mel"):
        fit(tiny_subject, tmp_path / "run", init=other)
    sooner = replace(TINY, landmarks=replace(TINY.landmarks, look_ahead=0))
    with pytest.raises(UserError, match="looks 4 frames ahead, 0 were asked for"):
        fit_landmarks(
            Subject(tiny_subject, TINY.size), tmp_path / "run", sooner, "tiny", trainer(tmp_path), init=pretrained
        )
    assert not (tmp_path / "run").exists()


def test_what_is_no_pretrained_network_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="pretrain_landmarks"):
        Pretrained.load(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("text")
    with pytest.raises(UserError, match="no safetensors file"):
        Pretrained.load(tmp_path / "text.safetensors")


def test_one_person_is_no_pretraining(subject, tmp_path):
    with pytest.raises(UserError, match="at least 2"):
        pretrain_landmarks([subject], tmp_path, TINY, "tiny", trainer(tmp_path))


def test_steps_are_reached(straight):
    assert find_checkpoint(straight / "landmarks").step == STEPS
    assert SpeechNetwork.load(straight / "driving").facts.steps == STEPS
