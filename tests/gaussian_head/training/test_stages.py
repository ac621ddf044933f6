"""The stages of the head on the made-up subject: each learns what it is for, and nothing else."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_fit import longer, trainer

from cuda_ext import rasterize
from gaussian_head.data.subject import Subject
from gaussian_head.geometry.cameras import project
from gaussian_head.geometry.landmarks import mouth_aperture
from gaussian_head.model.head import Head
from gaussian_head.render.view import Eye, render_branch
from gaussian_head.training.fit import create_head
from gaussian_head.training.losses import difference_in
from gaussian_head.training.stage import Stage
from gaussian_head.training.stages import FaceStage, FuseStage, MouthStage, face_coverage

CONFIG = longer(40, save_every=40)
STAGES = {"mouth": MouthStage, "face": FaceStage, "fuse": FuseStage}


@pytest.fixture(scope="module")
def subject(tiny_subject: Path) -> Subject:
    return Subject(tiny_subject, CONFIG.size)


@pytest.fixture(scope="module")
def fresh(subject: Subject) -> Head:
    return create_head(subject, CONFIG)


def make(name: str, head: Head, subject: Subject) -> Stage:
    return STAGES[name](copy.deepcopy(head), subject, getattr(CONFIG, name), CONFIG.seed)


def losses(stage: Stage, step: int) -> dict[str, float]:
    return {key: value.item() for key, value in stage.view(step).losses.items()}


BINDINGS = ("skin_indices", "skin_weights", "strands_indices", "strands_weights", "off_skin", "skin")


def cost(stage: Stage) -> float:
    """Mean loss of the run's last views, with motion."""
    steps = range(stage.steps - 13, stage.steps - 1)
    return sum(sum(losses(stage, step).values()) for step in steps) / len(steps)


@pytest.mark.parametrize("name", STAGES)
def test_a_few_dozen_steps_lower_the_loss(subject, fresh, tmp_path, name):
    stage = make(name, fresh, subject)
    before = cost(stage)
    trainer(tmp_path, CONFIG).fit(stage, {})
    assert cost(stage) < (0.99 if name == "fuse" else 0.9) * before


@pytest.mark.parametrize(
    ("name", "learns"),
    [
        ("mouth", {"mouth.gaussians", "mouth.field"}),
        ("face", {"face.gaussians", "face.field", "face.sway"}),
        ("fuse", {"face.gaussians", "mouth.gaussians"}),
    ],
)
def test_a_stage_changes_its_own_parts_alone(subject, fresh, tmp_path, name, learns):
    stage = make(name, fresh, subject)
    before = copy.deepcopy(stage.head.state_dict())
    trainer(tmp_path, CONFIG).fit(stage, {})
    after = stage.head.state_dict()
    changed = {
        key for key in before if before[key].shape != after[key].shape or not torch.equal(before[key], after[key])
    }
    if name == "face":  # what carries the Gaussians follows them when some are added or removed
        changed -= {f"face.{part}" for part in BINDINGS}
    assert {".".join(key.split(".")[:2]) for key in changed} == learns
    if name == "fuse":
        assert {key.split(".")[-1] for key in changed} <= {"sh0", "shN", "opacity_logits"}
        assert "mouth.gaussians.opacity_logits" not in changed


@pytest.mark.parametrize("name", STAGES)
def test_losses_depend_on_the_step_alone(subject, fresh, name):
    stage = make(name, fresh, subject)
    once = losses(stage, 11)
    losses(stage, 3)
    torch.randn(5)
    assert once == losses(stage, 11)
    assert once == losses(make(name, fresh, subject), 11)


@pytest.mark.parametrize("name", STAGES)
def test_every_loss_is_a_finite_number_with_finite_gradients(subject, fresh, name):
    stage = make(name, fresh, subject)
    view = stage.view(stage.steps - 1)
    assert all(value.ndim == 0 and torch.isfinite(value) for value in view.losses.values())
    sum(view.losses.values()).backward()
    for what, parameter, *_ in stage.learned():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), what
    if name != "fuse":
        assert view.means2d.grad.any()
        assert view.radii.any()


@pytest.mark.parametrize("name", STAGES)
def test_a_head_out_of_sight_does_no_harm(subject, fresh, name):
    stage = make(name, fresh, subject)
    with torch.no_grad():
        for branch in (stage.head.face, stage.head.mouth):
            branch.gaussians.means += torch.tensor([0.0, 5.0, 0.0])
    assert all(np.isfinite(value) for value in losses(stage, stage.steps - 1).values())


def test_mouth_is_learned_from_open_mouths_in_crops_inside_the_picture(subject, fresh):
    stage = make("mouth", fresh, subject)
    opening = mouth_aperture(subject.landmarks.numpy())
    bar = np.quantile(opening[subject.train], 0.25)
    assert min(opening[stage.sampler.draw(step)] for step in range(200)) >= bar
    assert max(stage.box) <= CONFIG.size
    for k in subject.train:
        left, top = stage._corner(k)
        assert 0 <= left <= CONFIG.size - stage.box[0]
        assert 0 <= top <= CONFIG.size - stage.box[1]
        lips = stage._lips_px(k)
        assert (lips >= [left, top]).all()
        assert (lips <= [left + stage.box[0], top + stage.box[1]]).all()


def test_the_held_out_frames_are_never_drawn(subject, fresh):
    for name in STAGES:
        stage = make(name, fresh, subject)
        assert not {stage.sampler.draw(step) for step in range(300)} & set(subject.val)


def test_face_covers_face_and_hair_but_no_mouth(subject):
    for k in (0, 30, 60):
        frame = subject.frame(k)
        wanted = face_coverage(frame)
        assert ((wanted >= 0) & (wanted <= 1)).all()
        assert not wanted[frame.mouth == 255].any()
        assert (wanted[(frame.face == 255) & (frame.matte == 255)] == 1).all()
        assert wanted[0, 0, 0] == 0
    half = replace(frame, matte=frame.matte // 2)
    torch.testing.assert_close(face_coverage(half), wanted / 2, atol=0.005, rtol=0)


def test_gaussians_start_on_the_head(subject, fresh):
    mean = fresh.space.mean
    low, high = mean.min(0).values - 0.12, mean.max(0).values + 0.12
    face, mouth = fresh.face.gaussians.means, fresh.mouth.gaussians.means
    assert len(face) == CONFIG.face.skin_gaussians + CONFIG.face.hair_gaussians
    assert len(mouth) == CONFIG.mouth.gaussians
    assert ((face > low) & (face < high)).all()
    assert (mouth[:, 0].abs() < 0.03).all()
    assert ((fresh.face.gaussians.base_colors() > -0.01) & (fresh.face.gaussians.base_colors() < 1.01)).all()


def test_face_begins_with_pictures_of_half_the_size(subject, fresh):
    stage = make("face", fresh, subject)
    stage.config = replace(stage.config, coarse_share=0.5)
    sizes = []

    def record(*args, **keywords):
        sizes.append(args[6:8])
        return rasterize(*args, **keywords)

    stage.rasterizer = record
    for step in (0, stage.steps // 2 - 1, stage.steps // 2):
        stage.view(step)
    full = (subject.width, subject.height)
    assert sizes == [(full[0] // 2, full[1] // 2)] * 2 + [full]


def test_half_a_frame_is_what_a_half_sized_camera_sees(subject, fresh):
    frame, eye = subject.frame(0), Eye(subject.viewmats[0], subject.K, subject.width, subject.height)
    half = frame.half()
    assert half.image.shape == (3, eye.half().height, eye.half().width)
    corner = frame.image[:, :2, :2].float().mean((1, 2))
    assert torch.allclose(half.image[:, 0, 0].float(), corner, atol=0.51)
    deformed = fresh.face.deform(fresh.face.prepare(), make("face", fresh, subject).condition(0))
    wide = render_branch(deformed, eye).alpha
    small = render_branch(deformed, eye.half()).alpha
    apart = (torch.nn.functional.avg_pool2d(wide, 2) - small).abs().mean()
    shifted = (torch.nn.functional.avg_pool2d(wide, 2).roll(1, 2) - small).abs().mean()
    assert apart < 0.5 * shifted


def test_eyes_count_by_themselves(subject, fresh):
    face = make("face", fresh, subject)
    k = subject.train[0]
    eye = Eye(subject.viewmats[k], subject.K, subject.width, subject.height)
    boxes = face._eye_boxes(k, eye)
    assert len(boxes) == 2
    seen, _ = project(subject.landmarks[k].numpy()[[33, 133]], subject.viewmats[k].numpy(), subject.K.numpy())
    (rows, columns), _ = boxes
    for x, y in seen:  # the corners of the right eye
        assert columns.start < x < columns.stop
        assert rows.start < y < rows.stop
    target = subject.frame(k).image / 255
    other = 1 - target
    for rows, columns in boxes:
        other[:, rows, columns] = target[:, rows, columns]
    assert difference_in(other, target, boxes) == 0
    other[:, boxes[0][0], boxes[0][1]] += 0.5
    assert difference_in(other, target, boxes).item() == pytest.approx(0.25, abs=1e-5)
    assert difference_in(other, target, [(slice(0, 0), slice(3, 9))]) == 0
    half = face._eye_boxes(k, eye.half())
    assert half[0][1].start == pytest.approx(boxes[0][1].start / 2, abs=1)


def test_blinks_are_seen_often(subject, fresh):
    face = make("face", fresh, subject)
    blink = dict(zip(subject.train, subject.action_units[subject.train, 5].tolist(), strict=True))
    highest = sorted(blink.values())[-max(1, round(0.05 * len(blink))) :]
    drawn = [blink[face.sampler.draw(step)] for step in range(4, 40, 5)]
    assert min(drawn) >= highest[0]
