"""The torso: it starts on the torso's pictures, learns what is visible, follows the head, and survives a stop."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_fit import SAVE_EVERY, STEPS, TINY, stopping_after, trainer

from cuda_ext import rasterize
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.data.subject import Subject
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.errors import UserError
from gaussian_head.evaluation.neck_gap import TURNS_DEG, neck_gap, turn_head
from gaussian_head.media.image import write_png
from gaussian_head.model.checkpoint import find_checkpoint
from gaussian_head.model.head import Head
from gaussian_head.model.torso import Torso, TorsoModelConfig
from gaussian_head.render.backdrop import Backdrop
from gaussian_head.render.torso import TorsoBackdrop, TorsoRenderer
from gaussian_head.render.trained import load_torso
from gaussian_head.training.learner import Learner
from gaussian_head.training.torso import TorsoStage
from gaussian_head.training.torso_fit import fit_torso
from gaussian_head.training.torso_start import create_torso, map_torso, usual_frame
from gaussian_head.training.torso_validation import visible_psnr

SHIRT = torch.tensor([40, 60, 120]) / 255


@pytest.fixture
def subject(tiny_subject: Path) -> Subject:
    return Subject(tiny_subject, TINY.size)


@pytest.fixture
def torso(subject: Subject) -> Torso:
    return create_torso(subject, map_torso(subject), TorsoModelConfig(TINY.torso.gaussians), seed=0)


def stage_of(torso: Torso, subject: Subject, steps: int = STEPS) -> TorsoStage:
    return TorsoStage(torso, subject, map_torso(subject), replace(TINY.torso, steps=steps), 0, rasterize)


def alpha_at(torso: Torso, subject: Subject, viewmat: torch.Tensor) -> np.ndarray:
    return TorsoRenderer(torso)(viewmat, subject.K, subject.width, subject.height).alpha[0].numpy()


def test_it_starts_where_the_torso_is_and_reaches_under_the_head(torso: Torso, subject: Subject) -> None:
    assert len(torso.gaussians) == torso.config.gaussians == pytest.approx(TINY.torso.gaussians, rel=0.3)
    frame = subject.frame(usual_frame(subject))
    alpha = alpha_at(torso, subject, subject.viewmats[frame.index])
    assert alpha[54:, 18:46].min() > 0.9  # the shirt
    assert alpha[:30].max() < 0.05  # the wall and the upper half of the face
    hidden = map_torso(subject).hidden_neck
    assert hidden[46, 32]  # above the chin, which is in row 52
    assert not hidden[:, :16].any()
    assert hidden.sum() > 100
    assert alpha[hidden].mean() > 0.9


def test_it_begins_with_the_colours_it_sees(torso: Torso, subject: Subject) -> None:
    view = TorsoRenderer(torso)(torso.viewmat, subject.K, subject.width, subject.height)
    assert (view.color[:, 60, 32] - SHIRT).abs().max() < 0.05
    assert (view.color[:, 48, 32] - SHIRT).abs().max() < 0.05  # the nearest visible colour, under the chin


def test_training_makes_it_more_alike(torso: Torso, subject: Subject) -> None:
    torso.gaussians.sh0.data.add_(0.5 * torch.randn(torso.gaussians.sh0.shape, generator=torch.manual_seed(0)))
    stage = stage_of(torso, subject, steps=60)
    before, learner = visible_psnr(stage), Learner(stage)
    for step in range(stage.steps):
        learner.step(step)
    assert visible_psnr(stage) > before + 0.5
    hidden = map_torso(subject).hidden_neck
    assert alpha_at(torso, subject, torso.viewmat)[hidden].mean() > 0.9


def test_gradients_reach_all_that_learns_and_nothing_learns_from_the_head(torso: Torso, subject: Subject) -> None:
    stage = stage_of(torso, subject)
    for parameter in torso.parameters():
        parameter.requires_grad_(True)
    torso.field.expression.change.data.normal_(std=1e-2)  # else the layers before it have no gradient yet
    losses = stage.view(0).losses
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter, *_ in stage.learned():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    k = stage.sampler.draw(0)
    frame = subject.frame(k)
    seen = frame.head > 0.1
    repainted = replace(frame, image=torch.where(seen, 255 - frame.image, frame.image))
    subject.frame = lambda _: repainted
    assert all(torch.equal(value, losses[name]) for name, value in stage.view(0).losses.items())


def test_the_upper_neck_goes_with_the_head_and_the_shoulders_stay(torso: Torso) -> None:
    moved = torso.viewmat.clone()
    moved[0, 3] += 0.02
    still, shifted = (
        torso.deform(torso.prepare(), torso.condition(viewmat)).means for viewmat in (torso.viewmat, moved)
    )
    assert torch.allclose(still, torso.gaussians.means, atol=1e-6)
    along = (shifted - still).norm(dim=1)
    height = torso.gaussians.means[:, 1]
    assert along[height > height.quantile(0.97)].min() > 0.014
    assert along[height < height.quantile(0.1)].max() < 0.004


def test_codes_are_limited(torso: Torso) -> None:
    far = torso.viewmat.clone()
    far[:3, 3] += 10
    assert torso.condition(far).code.abs().max() <= 3


def test_no_background_shows_at_the_neck_of_a_head_turned_beyond_the_footage(
    torso: Torso, tiny_head: Head, subject: Subject
) -> None:
    """The footage turns by 3.4 degrees, never rises, and has little torso drawn under the head."""
    bare = copy.deepcopy(tiny_head)
    gaussians = bare.face.gaussians
    gaussians.opacity_logits.data[gaussians.means[:, 1] < -0.098] = -9.0  # nothing below the chin
    motion = turn_head(DrivingSequence.from_subject(subject, [usual_frame(subject)]))
    motion.viewmats[:, 1, 3] -= 0.02  # and lifted, metres
    assert len(motion) == len(TURNS_DEG)
    gaps = [
        neck_gap(bare, motion, backdrop)
        for backdrop in (TorsoBackdrop(torso, 64, 64, None), Backdrop(subject.layout, 64, 64, None))
    ]
    assert max(gaps[0]) < 0.02
    assert max(gaps[1]) > 0.1  # else the measure would not see a gap


def run_through(subject: Subject, run: Path, *stops: int) -> dict[str, bytes]:
    for stop in (*stops, STEPS):
        fit_torso(subject, run, TINY, "tiny", trainer(run, progress=stopping_after(stop)))
    folder = find_checkpoint(run / "torso").folder
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_stopped_and_continued_is_as_if_never_stopped(subject: Subject, tmp_path: Path) -> None:
    straight = run_through(subject, tmp_path / "straight")
    assert set(straight) == {"torso.safetensors", "training.safetensors", "checkpoint.json"}
    assert run_through(subject, tmp_path / "stopped", 2 * SAVE_EVERY + 1) == straight


def test_a_finished_torso_is_left_alone_and_comes_back(subject: Subject, tmp_path: Path) -> None:
    before = run_through(subject, tmp_path)
    assert not fit_torso(subject, tmp_path, TINY, "tiny", trainer(tmp_path))
    torso = load_torso(tmp_path, subject.layout)
    again = find_checkpoint(tmp_path / "torso").load_torso()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in torso.state_dict().items())
    assert torso.config.gaussians == len(torso.gaussians)
    assert run_through(subject, tmp_path) == before


def test_other_options_are_refused(subject: Subject, tmp_path: Path) -> None:
    run_through(subject, tmp_path)
    other = replace(TINY, torso=replace(TINY.torso, gaussians=200))
    with pytest.raises(UserError, match="other options"):
        fit_torso(subject, tmp_path, other, "tiny", trainer(tmp_path))


def test_a_run_without_torso_or_with_somebody_elses_is_told(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gaussian_head.train torso"):
        load_torso(tmp_path, subject.layout)
    run_through(subject, tmp_path)
    with pytest.raises(UserError, match="torso of tiny"):
        load_torso(tmp_path, SubjectLayout(tmp_path / "somebody"))


def test_pictures_without_any_torso_are_told(
    tiny_subject: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "tiny"
    shutil.copytree(tiny_subject, root)
    layout = SubjectLayout(root)
    nothing = Subject(root, TINY.size)
    for k in range(nothing.frames):
        write_png(layout.torso_image(k), np.zeros((64, 64, 4), np.uint8))
    assert not fit_torso(nothing, tmp_path / "run", TINY, "tiny", trainer(tmp_path / "run"))
    assert "shows a torso" in caplog.text
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_it_trains_on_a_gpu(tiny_subject: Path, tmp_path: Path) -> None:
    device = torch.device("cuda")
    subject = Subject(tiny_subject, TINY.size, device=device)
    assert fit_torso(subject, tmp_path, TINY, "tiny", trainer(tmp_path), device)
    motion = DrivingSequence.from_subject(subject, subject.val[:1])
    torso = load_torso(tmp_path, subject.layout).to(device)
    assert TorsoBackdrop(torso, 64, 64, np.zeros((64, 64, 3), np.uint8))(motion, 0).color.is_cuda
