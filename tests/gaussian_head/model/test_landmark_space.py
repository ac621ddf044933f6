"""The expression code of a subject's landmarks."""

from __future__ import annotations

import math

import pytest
import torch

from gaussian_head.geometry.landmarks import LOWER_INNER_LIP, mouth_aperture
from gaussian_head.model.landmark_space import CODE_LIMIT, REST_APERTURE_M, Condition, LandmarkSpace, open_mouth

UNITS, NO_HAIR = torch.tensor([0.0, 1.0, 5.0]), torch.zeros(1, 0, 3)
JAW = [int(i) for i in LOWER_INNER_LIP] + [152]


def pose(yaw: float, distance: float = 0.7) -> torch.Tensor:
    """A camera `distance` metres ahead of a head that has turned by `yaw` radians."""
    c, s = math.cos(yaw), math.sin(yaw)
    viewmat = torch.eye(4)
    viewmat[:3, :3] = torch.diag(torch.tensor([1.0, -1.0, -1.0])) @ torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    viewmat[2, 3] = distance
    return viewmat


def poses(frames: int) -> torch.Tensor:
    return torch.stack([pose(yaw) for yaw in torch.linspace(-0.2, 0.2, frames).tolist()])


def clip(frames: int = 60, rank: int = 4) -> torch.Tensor:
    """A face of `rank` expressions, a few millimetres each."""
    weights = torch.randn(frames, rank)
    weights -= weights.mean(0)
    modes = torch.linalg.qr(torch.randn(478 * 3, rank)).Q.T
    scale = 0.1 * 0.6 ** torch.arange(rank)
    return 0.05 * torch.randn(478, 3) + (weights * scale @ modes).reshape(frames, 478, 3)


def fitted(landmarks: torch.Tensor, components: int) -> LandmarkSpace:
    space = LandmarkSpace(components, action_units=3, pose_components=2, hair_points=0)
    space.fit(landmarks, NO_HAIR.expand(len(landmarks), 0, 3), poses(len(landmarks)))
    return space


def condition(space: LandmarkSpace, landmarks: torch.Tensor, units: torch.Tensor = UNITS) -> Condition:
    return space.condition(landmarks, units, NO_HAIR[0], pose(0.0))


def coordinates(space: LandmarkSpace, landmarks: torch.Tensor) -> torch.Tensor:
    """The code without the action units, its limit undone."""
    code = condition(space, landmarks).code[: -len(UNITS)]
    return CODE_LIMIT * torch.atanh(code / CODE_LIMIT)


def test_mean_is_the_mean_and_gives_a_code_of_zero():
    landmarks = clip()
    space = fitted(landmarks, 4)
    torch.testing.assert_close(space.mean, landmarks.mean(0))
    found = condition(space, space.mean.clone(), torch.zeros(3))
    assert found.code.abs().max() < 1e-4
    assert len(found.code) == space.code_size == 7


def test_displacement_is_what_differs_from_the_face_at_rest():
    landmarks = clip()
    space = fitted(landmarks, 4)
    torch.testing.assert_close(condition(space, landmarks[3]).displacement, landmarks[3] - space.rest)
    assert not condition(space, space.rest.clone()).displacement.any()


def test_at_rest_the_mouth_is_open_and_nothing_else_differs_from_the_mean():
    opening = 0.004 * torch.rand(40)
    landmarks = torch.zeros(1, 478, 3).repeat(40, 1, 1)
    landmarks[:, JAW] -= opening[:, None, None] * torch.tensor([0.0, 1.0, 0.0])
    landmarks[:, 8, 0] = 0.002 * torch.randn(40)  # a point that moves, but not with the mouth
    rest = open_mouth(landmarks)
    assert (
        abs(mouth_aperture(rest.numpy()) - REST_APERTURE_M) < 0.02 * REST_APERTURE_M
    )  # less where the mouth hardly moves
    still = torch.ones(478, dtype=torch.bool)
    still[JAW], still[8] = False, False
    torch.testing.assert_close(rest[still], landmarks.mean(0)[still])
    torch.testing.assert_close(rest[JAW, 1], torch.full((len(JAW),), -REST_APERTURE_M), rtol=0.02, atol=0)
    assert torch.isfinite(open_mouth(landmarks[:1].repeat(5, 1, 1))).all()  # a mouth that never moves


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
        LandmarkSpace(components, 3, 2, 0).fit(landmarks, NO_HAIR.expand(60, 0, 3), poses(60))
        for components in (1, 2, 4, 8)
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
    space, hair = LandmarkSpace(4, 3, 2, hair_points=5), torch.randn(60, 5, 3) * 0.1
    space.fit(clip(), hair, poses(60))
    found = space.condition(space.mean.clone(), UNITS, hair[7], pose(0.0)).hair
    torch.testing.assert_close(found, hair[7] - hair.mean(0))


def test_pose_code_tells_turns_apart_and_stays_bounded():
    space = fitted(clip(), 4)

    def code(yaw: float) -> torch.Tensor:
        return space.condition(space.mean.clone(), UNITS, NO_HAIR[0], pose(yaw)).pose

    turned, middle, other = code(0.15), code(0.0), code(-0.15)
    assert (turned - middle).norm() > 0.8
    torch.testing.assert_close((turned - middle)[0], -(other - middle)[0], rtol=0.05, atol=0)
    assert code(1.5).abs().max() <= CODE_LIMIT
    torch.testing.assert_close(space.viewpoint, torch.tensor([0.0, 0.0, 0.7]), atol=0.01, rtol=0)


def test_a_head_that_hardly_turns_gives_a_small_code():
    space = LandmarkSpace(4, 3, 2, hair_points=0)
    viewmats = torch.stack([pose(1e-4 * k) for k in range(60)])
    space.fit(clip(), NO_HAIR.expand(60, 0, 3), viewmats)
    assert max(space.condition(space.mean.clone(), UNITS, NO_HAIR[0], v).pose.abs().max() for v in viewmats) < 0.5
