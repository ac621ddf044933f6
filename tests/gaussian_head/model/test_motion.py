"""Carriers and motion fields: what moves a Gaussian, and that everything that should learn can."""

from __future__ import annotations

import pytest
import torch

from cuda_ext import Carrier
from cuda_ext._reference_motion import carry
from gaussian_head.model.motion import Binding, MotionField, bind


@pytest.fixture
def landmarks() -> torch.Tensor:
    """478 points of a curved sheet the size of a face."""
    x, y = (torch.rand(478) - 0.5) * 0.14, (torch.rand(478) - 0.5) * 0.18
    return torch.stack([x, y, 0.04 - 4 * x**2 - 2 * y**2], 1)


def tie(means: torch.Tensor, landmarks: torch.Tensor, **options: float) -> Binding:
    return bind(means, landmarks, **({"sigma_m": 0.008, "rest": 0.05, "neighbours": 8} | options))


def carried_by(binding: Binding, displacement: torch.Tensor) -> torch.Tensor:
    return carry(Carrier(*binding, displacement))


def test_a_gaussian_on_the_face_goes_where_the_face_goes(landmarks):
    shift = torch.tensor([0.004, -0.01, 0.002])
    carried = carried_by(tie(landmarks, landmarks), shift.expand(478, 3))
    assert (carried - shift).norm(dim=1).max() < 0.06 * shift.norm()


def test_a_gaussian_follows_the_landmarks_near_it(landmarks):
    displacement = torch.zeros(478, 3)
    lower = landmarks[:, 1] < -0.03
    displacement[lower, 1] = -0.01
    carried = carried_by(tie(landmarks, landmarks), displacement)[:, 1]
    assert carried[landmarks[:, 1] < -0.06].max() < -0.009
    assert carried[landmarks[:, 1] > 0.02].abs().max() == 0


def test_a_single_landmark_is_followed_nearly_wholly_at_its_place(landmarks):
    alone = landmarks.clone()
    alone[100] = torch.tensor([0.3, 0.3, 0.3])
    displacement = torch.zeros(478, 3)
    displacement[100] = torch.tensor([0.0, 0.01, 0.0])
    carried = carried_by(tie(alone[100:101], alone), displacement)
    assert 0.009 < carried[0, 1] < 0.01


def test_far_away_nothing_is_carried(landmarks):
    far = landmarks[:20] + torch.tensor([0.0, 0.3, -0.1])
    assert carried_by(tie(far, landmarks), torch.ones(478, 3)).abs().max() < 1e-6


def test_the_pull_fades_with_distance_and_reaches_as_far_as_asked(landmarks):
    def pull(distance: float, sigma_m: float) -> float:
        return tie(landmarks[:1] - torch.tensor([0.0, 0, distance]), landmarks, sigma_m=sigma_m).weights.sum().item()

    falling = [pull(distance, 0.008) for distance in (0.0, 0.01, 0.02, 0.03, 0.05)]
    assert falling == sorted(falling, reverse=True)
    assert pull(0.03, 0.02) > 0.5 > pull(0.03, 0.005)


def test_weights_are_shares(landmarks):
    binding = tie(landmarks + 0.01 * torch.randn(478, 3), landmarks)
    assert (binding.weights >= 0).all()
    assert (binding.weights.sum(1) < 1).all()
    assert 0 <= binding.indices.min() <= binding.indices.max() < 478


@pytest.mark.parametrize("count", [0, 1, 3])
def test_few_landmarks_or_none(landmarks, count):
    binding = tie(landmarks[:10], landmarks[:count])
    carried = carried_by(binding, torch.full((count, 3), 0.01))
    assert carried.shape == (10, 3)
    torch.testing.assert_close(carried[:count], torch.full((count, 3), 0.01), rtol=0.06, atol=0)
    assert count or not carried.any()


def make_field() -> MotionField:
    return MotionField(code_size=7, outputs=13, resolutions=(4, 8), hidden=16, bound=0.25)


def test_a_new_field_changes_nothing():
    field = make_field()
    regions, gate = field.regions((torch.rand(30, 3) - 0.5) * 0.4)
    assert regions.shape == (30, 16)
    assert len(gate) == 30
    for code in (torch.zeros(7), torch.randn(7) * 3):
        assert not (regions @ field.expression(code)).any()


def test_a_new_field_can_learn():
    field = make_field()
    regions, _ = field.regions((torch.rand(30, 3) - 0.5) * 0.4)
    (regions @ field.expression(torch.randn(7))).sum().backward()
    assert field.expression.change.grad.any()


def test_gradients_reach_every_parameter():
    field = make_field()
    torch.nn.init.normal_(field.expression.change)
    means = (torch.rand(400, 3) - 0.5) * 0.4
    regions, gate = field.regions(means)
    change = regions @ field.expression(torch.randn(7))
    (change.square().mean() + gate.square().mean()).backward()
    for name, parameter in field.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_the_change_depends_on_the_place_and_on_the_code():
    field = make_field()
    torch.nn.init.normal_(field.expression.change)
    regions, _ = field.regions((torch.rand(5, 3) - 0.5) * 0.4)
    one, other = (regions @ field.expression(sign * torch.ones(7)) for sign in (1, -1))
    assert (one != other).any(1).all()
    assert not torch.equal(one[0], one[1])
