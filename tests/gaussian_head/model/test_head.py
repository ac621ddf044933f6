"""The head: what is prepared once equals what is computed anew, and each branch follows what should carry it."""

from __future__ import annotations

import copy

import pytest
import torch

from gaussian_head.geometry.landmarks import INNER_LIPS
from gaussian_head.model.head import JAW_POINTS, LIPS, Deformed, Head
from gaussian_head.model.landmark_space import Condition


@pytest.fixture
def head(tiny_head: Head) -> Head:
    """An own copy whose fields have learned something."""
    own = copy.deepcopy(tiny_head)
    for response in (own.face.field.expression, own.face.sway, own.mouth.field.expression):
        torch.nn.init.normal_(response.change, std=0.02)
    return own


def condition(head: Head, displacement: torch.Tensor, code: torch.Tensor | None = None) -> Condition:
    """A frame of the mean pose whose landmarks are displaced (metres)."""
    mean = head.space.condition(head.space.mean.clone(), torch.zeros(6), head.space.hair_mean.clone(), torch.eye(4))
    code = torch.zeros(head.space.code_size) if code is None else code
    return mean._replace(displacement=displacement, code=code, pose=torch.zeros_like(mean.pose))


def still(head: Head) -> Condition:
    return condition(head, torch.zeros(478, 3))


def some_condition(head: Head) -> Condition:
    frame = condition(head, torch.randn(478, 3) * 0.003, torch.randn(head.space.code_size))
    return frame._replace(pose=torch.randn(len(frame.pose)))


def assert_same(one: Deformed, other: Deformed) -> None:
    for name, a, b in zip(Deformed._fields, one, other, strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("part", ["face", "mouth"])
def test_prepared_once_equals_computed_anew(head, part):
    branch = getattr(head, part)
    prepared = branch.prepare()
    for _ in range(3):
        frame = some_condition(head)
        assert_same(branch.deform(prepared, frame), branch.deform(branch.prepare(), frame))
    kept = [value.clone() for value in prepared]
    assert all(torch.equal(a, b) for a, b in zip(kept, branch.prepare(), strict=True))  # nothing was edited in place


@pytest.mark.parametrize("part", ["face", "mouth"])
def test_an_untrained_head_at_rest_is_its_gaussians(tiny_head, part):
    branch = getattr(tiny_head, part)
    deformed, gaussians = branch.deform(branch.prepare(), still(tiny_head)), branch.gaussians
    torch.testing.assert_close(deformed.means, gaussians.means)
    torch.testing.assert_close(deformed.quats, torch.nn.functional.normalize(gaussians.quats))
    torch.testing.assert_close(deformed.scales, gaussians.scales)
    torch.testing.assert_close(deformed.opacities, gaussians.opacities)
    torch.testing.assert_close(deformed.sh, torch.cat([gaussians.sh0, gaussians.shN], 1))
    assert not deformed.change.any()


def test_face_is_carried_by_its_landmarks(tiny_head):
    face, shift = tiny_head.face, torch.tensor([0.002, -0.004, 0.001])
    moved = face.deform(face.prepare(), condition(tiny_head, shift.expand(478, 3))).means - face.gaussians.means
    along = (moved @ shift) / (shift @ shift)
    torch.testing.assert_close(moved, along[:, None] * shift, atol=1e-7, rtol=1e-3)
    on_a_landmark = torch.cdist(face.gaussians.means, tiny_head.space.mean).amin(1) < 1e-3
    assert on_a_landmark.sum() > 400
    assert along[on_a_landmark].min() > 0.5  # from the start
    assert along.max() <= 1


def place_mouth(head: Head, heights_m: list[float]) -> None:
    """Put the first mouth Gaussians at heights above the lip line."""
    line = head.space.mean[torch.from_numpy(INNER_LIPS), 1].mean()
    with torch.no_grad():
        head.mouth.gaussians.means[: len(heights_m)] = torch.tensor([[0.0, line + h, 0.03] for h in heights_m])


def test_lower_teeth_follow_the_jaw_and_upper_teeth_stay(tiny_head):
    head = copy.deepcopy(tiny_head)
    place_mouth(head, [-0.02, -0.012, 0.0, 0.012, 0.02])
    displacement = torch.zeros(478, 3)
    displacement[list(JAW_POINTS), 1] = -0.01
    moved = head.mouth.deform(head.mouth.prepare(), condition(head, displacement)).means - head.mouth.gaussians.means
    followed = moved[:5, 1] / -0.01
    assert followed[:2].min() > 0.9
    assert followed[3:].max() < 0.1
    assert (followed.diff() < 0).all()
    assert moved[:, [0, 2]].abs().max() < 1e-8


def test_the_skin_around_does_not_pull_the_mouth(head):
    displacement = torch.full((478, 3), 0.01)
    displacement[[*JAW_POINTS, *LIPS]] = 0
    pulled = head.mouth.deform(head.mouth.prepare(), condition(head, displacement))
    assert_same(pulled, head.mouth.deform(head.mouth.prepare(), still(head)))


def test_hair_follows_its_own_points_and_skin_does_not(tiny_head):
    head = Head(tiny_head.config, copy.deepcopy(tiny_head.face.gaussians), tiny_head.mouth.gaussians, hair_points=2)
    mean = tiny_head.space.mean
    strands = mean[10] + torch.tensor([[0.0, 0.08, -0.06], [0.03, 0.08, -0.06]])
    viewpoint = torch.tensor([0.1, 0.0, 0.7])
    with torch.no_grad():
        head.face.gaussians.means[:2] = torch.stack([strands[0], mean[4]])  # hair, the nose
        head.face.gaussians.means[2] = strands[0] + torch.tensor([0.0, 0.2, 0.0])  # nothing is near
        head.face.gaussians.means[3] = strands[0] + 0.06 * (viewpoint - strands[0])  # in front of the first
    camera = torch.eye(4)
    camera[:3, 3] = -viewpoint
    head.fit_landmarks(mean.expand(3, 478, 3), strands.expand(3, 2, 3), camera.expand(3, 4, 4))
    shift = torch.tensor([0.01, 0.002, 0.0])
    swung = still(head)._replace(hair=shift.expand(2, 3))
    moved = head.face.deform(head.face.prepare(), swung).means - head.face.gaussians.means
    assert (moved[0] - shift).norm() < 0.1 * shift.norm()
    assert moved[1:3].norm(dim=1).max() < 0.1 * shift.norm()
    assert (moved[3] - shift).norm() < 0.1 * shift.norm()


@pytest.mark.parametrize("part", ["face", "mouth"])
def test_gradients_reach_gaussians_and_field(head, part):
    branch = getattr(head, part)
    deformed = branch.deform(branch.prepare(), some_condition(head))
    sum(getattr(deformed, name).square().sum() for name in ("means", "quats", "scales", "opacities", "sh")).backward()
    for name, parameter in branch.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any() or name == "gaussians.shN", name


def test_expressions_change_skin_and_not_hair(head):
    with torch.no_grad():
        head.face.gaussians.means[0] = head.space.rest[4]  # the nose
        head.face.gaussians.means[1] = head.space.rest[10] + torch.tensor([0.0, 0.1, -0.08])
    head.bind()
    prepared, frame = head.face.prepare(), some_condition(head)
    other = frame._replace(code=-frame.code)
    change = (head.face.deform(prepared, other).change - head.face.deform(prepared, frame).change).abs().amax(1)
    assert change[1] < 1e-3 * change[0]


def test_the_pose_changes_hair_as_well(head):
    with torch.no_grad():
        head.face.gaussians.means[1] = head.space.rest[10] + torch.tensor([0.0, 0.1, -0.08])
    head.bind()
    prepared, frame = head.face.prepare(), some_condition(head)
    turned = frame._replace(pose=frame.pose + 1)
    change = (head.face.deform(prepared, turned).change - head.face.deform(prepared, frame).change).abs().amax(1)
    assert change[1] > 1e-4


def test_binding_again_follows_the_gaussians(head):
    with torch.no_grad():
        head.face.gaussians.means[:] = head.space.rest[:1]
    head.bind()
    displacement = torch.randn(478, 3) * 0.003
    moved = head.face.deform(head.face.prepare(), condition(head, displacement)).means
    torch.testing.assert_close(moved, moved[:1].expand_as(moved))
    displacement[(head.space.rest - head.space.rest[0]).norm(dim=1) > 0.06] += 0.01  # far away: not felt
    torch.testing.assert_close(head.face.deform(head.face.prepare(), condition(head, displacement)).means, moved)
