"""The expression code of a subject's landmarks."""

from __future__ import annotations

import pytest
import torch

from gaussian_head.model.landmark_space import CODE_LIMIT, Condition, LandmarkSpace

UNITS, NO_HAIR = torch.tensor([0.0, 1.0, 5.0]), torch.zeros(1, 0, 3)
AHEAD = torch.tensor([0.0, 0.0, 0.7])


def clip(frames: int = 60, rank: int = 4) -> torch.Tensor:
    """A face of `rank` expressions, a few millimetres each."""
    weights = torch.randn(frames, rank)
    weights -= weights.mean(0)
    modes = torch.linalg.qr(torch.randn(478 * 3, rank)).Q.T
    scale = 0.1 * 0.6 ** torch.arange(rank)
    return 0.05 * torch.randn(478, 3) + (weights * scale @ modes).reshape(frames, 478, 3)


def fitted(landmarks: torch.Tensor, components: int) -> LandmarkSpace:
    space = LandmarkSpace(components, action_units=3, hair_points=0)
    space.fit(landmarks, NO_HAIR.expand(len(landmarks), 0, 3), AHEAD)
    return space


def condition(space: LandmarkSpace, landmarks: torch.Tensor, units: torch.Tensor = UNITS) -> Condition:
    return space.condition(landmarks, units, NO_HAIR[0])


def coordinates(space: LandmarkSpace, landmarks: torch.Tensor) -> torch.Tensor:
    """The code without the action units, its limit undone."""
    code = condition(space, landmarks).code[: -len(UNITS)]
    return CODE_LIMIT * torch.atanh(code / CODE_LIMIT)


def test_mean_is_the_mean_and_gives_a_code_of_zero():
    landmarks = clip()
    space = fitted(landmarks, 4)
    torch.testing.assert_close(space.mean, landmarks.mean(0))
    found = condition(space, space.mean.clone(), torch.zeros(3))
    assert not found.displacement.any()
    assert found.code.abs().max() < 1e-4
    assert len(found.code) == space.code_size == 7


def test_displacement_is_what_differs_from_the_mean():
    landmarks = clip()
    space = fitted(landmarks, 4)
    torch.testing.assert_close(condition(space, landmarks[3]).displacement, landmarks[3] - landmarks.mean(0))


def test_code_holds_all_there_is_to_know_of_the_landmarks():
    landmarks = clip()
    space = fitted(landmarks, 4)
    codes = torch.stack([coordinates(space, frame) for frame in landmarks])
    motion = (landmarks - space.mean).flatten(1)
    decoder = torch.linalg.lstsq(codes, motion).solution
    torch.testing.assert_close(codes @ decoder, motion, atol=1e-4, rtol=0)


def test_codes_of_the_training_frames_have_unit_spread():
    landmarks = clip(frames=200)
    space = fitted(landmarks, 4)
    codes = torch.stack([coordinates(space, frame) for frame in landmarks])
    torch.testing.assert_close(codes.square().mean(0).sqrt(), torch.ones(4), atol=0.02, rtol=0)
    assert (codes.T @ codes / 200 - torch.eye(4)).abs().max() < 0.02


def test_explained_variance_rises_to_one():
    landmarks = clip()
    explained = [
        LandmarkSpace(components, 3, 0).fit(landmarks, NO_HAIR.expand(60, 0, 3), AHEAD) for components in (1, 2, 4, 8)
    ]
    assert explained == sorted(explained)
    assert 0.3 < explained[0] < 1
    assert explained[2] == pytest.approx(1, abs=1e-5)


def test_unseen_faces_ask_for_no_unseen_motion():
    landmarks = clip()
    space = fitted(landmarks, 4)
    motion = landmarks[0] - space.mean
    code = condition(space, space.mean + 50 * motion).code[:4]
    assert 0.99 * CODE_LIMIT < code.abs().max() <= CODE_LIMIT
    known = coordinates(space, landmarks[0])
    torch.testing.assert_close(coordinates(space, space.mean + 0.1 * motion), 0.1 * known, atol=1e-3, rtol=0)


def test_action_units_follow_the_code():
    space = fitted(clip(), 4)
    one, double = (condition(space, space.mean.clone(), factor * UNITS).code[4:] for factor in (1, 2))
    torch.testing.assert_close(double, 2 * one)
    assert one[0] == 0
    assert 0 < one[1] < one[2] < 3


def test_fewer_frames_than_components():
    landmarks = clip(frames=5)
    space = fitted(landmarks, 20)
    code = condition(space, landmarks[2]).code
    assert len(code) == 23
    assert torch.isfinite(code).all()
    assert not code[5:20].any()


def test_hair_is_told_by_its_displacement():
    space, hair = LandmarkSpace(4, 3, hair_points=5), torch.randn(60, 5, 3) * 0.1
    space.fit(clip(), hair, AHEAD)
    found = space.condition(space.mean.clone(), UNITS, hair[7]).hair
    torch.testing.assert_close(found, hair[7] - hair.mean(0))
