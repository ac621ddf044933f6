"""What a head is told of the mouth while it learns."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_fit import SAVE_EVERY, STEPS, TINY, stopping_after, trainer
from torch.utils.tensorboard import SummaryWriter

from gaussian_head.data.subject import Subject
from gaussian_head.driving.held_out import NAME, load_held_out, save_held_out
from gaussian_head.driving.predictor import load_predictor
from gaussian_head.errors import UserError
from gaussian_head.geometry.landmarks import INNER_LIPS, LEFT_BROW, mouth_aperture
from gaussian_head.model.checkpoint import find_checkpoint
from gaussian_head.model.head import Head
from gaussian_head.training.fit import fit_stage
from gaussian_head.training.guidance import Guidance, GuidanceConfig
from gaussian_head.training.landmarks_fit import fit_landmarks
from gaussian_head.training.presets import FitConfig
from gaussian_head.training.stage import HeadStage
from gaussian_head.training.trainer import Trainer
from gaussian_head.training.validation import validate

HALF = GuidanceConfig(dropout=0.2, predicted_share=0.6)


def guided(condition: str = "landmarks", guidance: GuidanceConfig = HALF) -> FitConfig:
    return replace(
        TINY,
        head=replace(TINY.head, condition=condition),
        mouth=replace(TINY.mouth, guidance=guidance),
        face=replace(TINY.face, guidance=guidance),
    )


@pytest.fixture
def subject(tiny_subject: Path) -> Subject:
    return Subject(tiny_subject, TINY.size)


@pytest.fixture(scope="module")
def driving(tiny_subject: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`driving/` of a run whose stage landmarks is done."""
    run = tmp_path_factory.mktemp("landmarks")
    fit_landmarks(Subject(tiny_subject, TINY.size), run, TINY, "tiny", trainer(run))
    return run / "driving"


def fit(subject: Subject, run: Path, config: FitConfig, stages: tuple[str, ...] = ("mouth", "face"), stop: int = STEPS):
    for name in stages:
        fit_stage(name, subject, run, config, "tiny", trainer(run, progress=stopping_after(stop)))


def files(run: Path, stage: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in find_checkpoint(run / stage).folder.iterdir()}


def counted(guidance: Guidance, tracked: torch.Tensor, steps: range) -> dict[str, int]:
    shown = [guidance.choose(3, tracked, step) for step in steps]
    return {
        "predicted": sum(face is guidance.predicted[3] for face in shown),
        "tracked": sum(face is tracked for face in shown),
    }


def test_the_predicted_mouth_is_shown_more_and_more(tiny_head: Head, subject: Subject) -> None:
    tracked, predicted = subject.landmarks[3], subject.landmarks[3] + 0.001
    guidance = Guidance(HALF, tiny_head.space, 2000, seed=0, predicted={3: predicted})
    early, late = (counted(guidance, tracked, steps) for steps in (range(400), range(1600, 2000)))
    assert early["predicted"] == pytest.approx(400 * 0.6 * 0.1, abs=20)
    assert late["predicted"] == pytest.approx(400 * 0.6 * 0.9, abs=35)
    for found in (early, late):
        assert 400 - sum(found.values()) == pytest.approx(400 * 0.2, abs=30)  # the mean face
    again = Guidance(HALF, tiny_head.space, 2000, seed=0, predicted={3: predicted})
    assert [torch.equal(again.choose(3, tracked, s), guidance.choose(3, tracked, s)) for s in range(50)] == [True] * 50
    assert guidance.predicted_share(1999) == pytest.approx(0.6)


def test_what_is_dropped_is_the_mouth_alone(tiny_head: Head, subject: Subject) -> None:
    guidance = Guidance(GuidanceConfig(dropout=1.0, predicted_share=0.0), tiny_head.space, 10, seed=0)
    tracked = subject.landmarks[3]
    shown = guidance.choose(3, tracked, 0)
    torch.testing.assert_close(shown[INNER_LIPS], tiny_head.space.mean[INNER_LIPS])
    assert torch.equal(shown[LEFT_BROW], tracked[LEFT_BROW])


def test_without_shares_every_step_sees_what_was_tracked(tiny_head: Head, subject: Subject) -> None:
    guidance = Guidance(GuidanceConfig(0.0, 0.0), tiny_head.space, 10, seed=0, predicted={3: subject.landmarks[4]})
    tracked = subject.landmarks[3]
    assert all(guidance.choose(3, tracked, step) is tracked for step in range(10))


@pytest.mark.parametrize("shares", [(-0.1, 0.0), (0.0, 1.1), (0.6, 0.6)])
def test_shares_that_are_none_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="together at most 1"):
        GuidanceConfig(*shares)


def test_predicted_mouths_are_those_of_fits_that_have_not_seen_the_frame(subject: Subject, driving: Path) -> None:
    held_out = load_held_out(driving, subject.train)
    tracked = subject.landmarks[subject.train]
    weights = torch.from_numpy(load_predictor(driving).space.weights)
    assert torch.allclose(held_out[:, weights == 0], tracked[:, weights == 0], atol=1e-6)  # the upper face is tracked
    true = mouth_aperture(tracked.numpy())
    heard = mouth_aperture(held_out.numpy())
    fitted = mouth_aperture(load_predictor(driving).predict(features(subject)).numpy()[subject.train])
    assert 0.5 < np.corrcoef(heard, true)[0, 1] < np.corrcoef(fitted, true)[0, 1]
    assert np.abs(heard - true).max() > 1e-4


def features(subject: Subject) -> np.ndarray:
    return np.load(subject.layout.audio_features("mel"))[: subject.frames]


def test_files_of_other_frames_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    assert load_held_out(tmp_path, [0, 1]) is None
    save_held_out(tmp_path, torch.tensor([0, 1]), torch.zeros(2, 478, 3))
    assert load_held_out(tmp_path, [0, 1]).shape == (2, 478, 3)
    with pytest.raises(UserError, match="2 other frames than the 3"):
        load_held_out(tmp_path, [0, 1, 2])
    (tmp_path / NAME).write_bytes(b"no tensors")
    with pytest.raises(UserError, match="damaged"):
        load_held_out(tmp_path, [0, 1])


def test_a_guided_fit_goes_on_as_if_never_stopped(subject: Subject, driving: Path, tmp_path: Path) -> None:
    runs = [tmp_path / name for name in ("straight", "stopped", "unguided")]
    for run in runs:
        shutil.copytree(driving, run / "driving")
    fit(subject, runs[0], guided())
    for stage in ("mouth", "face"):
        for stop in (2 * SAVE_EVERY + 1, STEPS):
            fit(subject, runs[1], guided(), (stage,), stop)
    fit(subject, runs[2], guided(guidance=GuidanceConfig(0.0, 0.0)))
    for stage in ("mouth", "face"):
        assert files(runs[0], stage) == files(runs[1], stage), stage
        guided_head, plain = (files(run, stage)["head.safetensors"] for run in (runs[0], runs[2]))
        assert guided_head != plain


def test_without_the_stage_landmarks_a_fit_says_so_and_stays_as_it_began(
    subject: Subject, driving: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        fit(subject, tmp_path / "one", guided(), ("mouth",))
    assert "mouth: trained without predicted mouths" in caplog.text
    fit(subject, tmp_path / "two", guided(), ("mouth",), stop=2 * SAVE_EVERY)
    shutil.copytree(driving, tmp_path / "two" / "driving")  # too late
    fit(subject, tmp_path / "two", guided(), ("mouth",))
    assert files(tmp_path / "one", "mouth") == files(tmp_path / "two", "mouth")


def test_other_predicted_mouths_are_refused(subject: Subject, driving: Path, tmp_path: Path) -> None:
    shutil.copytree(driving, tmp_path / "driving")
    fit(subject, tmp_path, guided(), ("mouth",), stop=2 * SAVE_EVERY)
    tensors = load_file(tmp_path / "driving" / NAME)
    save_file(tensors | {"landmarks": tensors["landmarks"] + 1e-4}, tmp_path / "driving" / NAME)
    with pytest.raises(UserError, match="other predicted mouths"):
        fit(subject, tmp_path, guided(), ("mouth",))


@pytest.mark.parametrize("condition", ["audio", "both"])
def test_a_head_that_hears_learns_to(subject: Subject, driving: Path, tmp_path: Path, condition: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(driving, run / "driving")
    for stop in (2 * SAVE_EVERY + 1, STEPS):
        fit(subject, run, guided(condition), ("mouth",), stop)
    fit(subject, run, guided(condition), ("face", "fuse"))
    heads = [find_checkpoint(run / stage).load_head() for stage in ("mouth", "face", "fuse")]
    assert (heads[0].config.audio_features, heads[0].config.audio_shape) == ("mel", (16, 80))

    def changed(part: str, a: Head, b: Head) -> bool:
        pairs = zip(getattr(a, part).audio_code.parameters(), getattr(b, part).audio_code.parameters(), strict=True)
        return any(not torch.equal(x, y) for x, y in pairs)

    assert changed("face", heads[0], heads[1])
    assert not changed("mouth", heads[0], heads[1])
    assert not changed("face", heads[1], heads[2])
    straight = tmp_path / "straight"
    shutil.copytree(driving, straight / "driving")
    fit(subject, straight, guided(condition), ("mouth",))
    assert files(straight, "mouth") == files(run, "mouth")


def test_other_features_are_refused_with_both_names(tiny_subject: Path, tmp_path: Path) -> None:
    twin = Path(shutil.copytree(tiny_subject, tmp_path / "tiny"))
    subject = Subject(twin, TINY.size)
    fit(subject, tmp_path / "run", guided("both"), ("mouth",))
    subject.layout.audio_features("mel").with_suffix(".json").write_text('{"extractor": "hubert"}')
    with pytest.raises(UserError, match="holds hubert features, but this head was trained with mel"):
        fit(subject, tmp_path / "run", guided("both"), ("face",))


def test_validation_hears_too(subject: Subject, tmp_path: Path) -> None:
    shown = []

    def watched(stage: HeadStage, step: int, writer: SummaryWriter) -> None:
        validate(stage, step, writer)
        shown.append(step)

    run = Trainer(tmp_path, TINY.trainer, watched, stopping_after(STEPS))
    fit_stage("mouth", subject, tmp_path, guided("audio"), "tiny", run)
    assert shown == [6, 12]
