"""Alignment to the clip's texture: poses that are off come back, poses that are right stay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from moving_face import HEIGHT, WIDTH, draw, make_moving_face, rotation_errors_deg
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from data_utils.face_track import FaceTrack, project
from data_utils.photometric_alignment import align_to_texture
from gaussian_head.geometry.landmarks import RIGID
from gaussian_head.geometry.rotations import matrix_from_rotvec

FRAMES, SIZE, CENTER = 12, (WIDTH, HEIGHT), torch.tensor([WIDTH / 2, HEIGHT / 2])


@pytest.fixture(scope="module")
def truth() -> FaceTrack:
    return make_moving_face(FRAMES).track


@pytest.fixture(scope="module")
def pictures(truth) -> list[np.ndarray]:
    return [draw(truth, k) for k in range(FRAMES)]


def perturbed(truth: FaceTrack, size: float) -> FaceTrack:
    """Poses that wander, smoothly as adjusted ones do, by about `size` degrees and half a millimetre."""
    walk = gaussian_filter1d(np.cumsum(np.random.default_rng(1).normal(size=(FRAMES, 6)), 0), 2.0, axis=0)
    walk = torch.from_numpy(size * (walk - walk.mean(0)) / walk.std(0)).float()
    return replace(
        truth,
        rotations=matrix_from_rotvec(walk[:, :3] * 0.01) @ truth.rotations,
        translations=truth.translations + walk[:, 3:] * torch.tensor([5e-4, 5e-4, 3e-3]),
    )


def rotation_error(track: FaceTrack, truth: FaceTrack) -> float:
    return rotation_errors_deg(track.rotations.numpy(), truth.rotations.numpy()).mean()


def drift_px(track: FaceTrack, truth: FaceTrack) -> float:
    """How far the rigid points wander from their true places, but for a constant offset."""
    seen = [
        project(t.shape.expand(FRAMES, 478, 3), t.rotations, t.translations, t.focal_px, CENTER)[:, RIGID]
        for t in (track, truth)
    ]
    offset = seen[0] - seen[1]
    return (offset - offset.mean(0)).norm(dim=-1).mean().item()


@pytest.mark.parametrize("size", [0.3, 0.6])
def test_poses_come_nearer_to_the_truth(truth, pictures, size):
    start = perturbed(truth, size)
    refined, errors = align_to_texture(start, pictures.__getitem__, SIZE)
    assert rotation_error(refined, truth) < 0.7 * rotation_error(start, truth)
    assert drift_px(refined, truth) < 0.7 * drift_px(start, truth)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.7 * errors[0]


def test_true_poses_stay(truth, pictures):
    refined, _ = align_to_texture(truth, pictures.__getitem__, SIZE)
    assert rotation_error(refined, truth) < 0.05
    assert drift_px(refined, truth) < 0.15  # the skin beside the mouth, which counts a little, moves


def test_expressions_are_untouched_and_rotations_are_ones(truth, pictures):
    refined, _ = align_to_texture(perturbed(truth, 0.6), pictures.__getitem__, SIZE)
    for name in ("basis", "coefficients"):
        assert torch.equal(getattr(refined, name), getattr(truth, name)), name
    assert refined.focal_px == truth.focal_px
    identity = torch.eye(3).expand(FRAMES, 3, 3)
    torch.testing.assert_close(refined.rotations @ refined.rotations.transpose(1, 2), identity, atol=1e-5, rtol=0)
    assert (torch.det(refined.rotations) > 0).all()


def test_a_face_made_too_deep_becomes_flatter_and_turns_more(truth, pictures):
    depth = truth.shape[:, 2] - truth.shape[:, 2].mean()
    deeper = replace(truth, shape=truth.shape + 0.25 * depth[:, None] * torch.tensor([0, 0, 1.0]))
    middle = truth.rotations[FRAMES // 2]
    turns = Rotation.from_matrix((truth.rotations @ middle.T).double().numpy()).as_rotvec()
    less = matrix_from_rotvec(torch.from_numpy(0.8 * turns).float())
    start = replace(deeper, rotations=less @ middle)
    refined, _ = align_to_texture(start, pictures.__getitem__, SIZE)
    assert rotation_error(refined, truth) < 0.5 * rotation_error(start, truth)
    found = (refined.shape[:, 2] - refined.shape[:, 2].mean()) @ depth / (depth @ depth)
    assert found.item() == pytest.approx(1, abs=0.15)


def test_brighter_and_darker_frames_do_not_matter(truth, pictures):
    flicker = [np.clip(picture * (0.9 + 0.2 * (k % 2)), 0, 255).astype(np.uint8) for k, picture in enumerate(pictures)]
    start = perturbed(truth, 0.6)
    refined, _ = align_to_texture(start, flicker.__getitem__, SIZE)
    assert drift_px(refined, truth) < 0.8 * drift_px(start, truth)


def test_a_face_without_texture_leaves_the_poses(truth):
    start = perturbed(truth, 0.6)
    flat = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    refined, _ = align_to_texture(start, lambda k: flat, SIZE)
    assert rotation_error(refined, start) < 0.01
    assert drift_px(refined, start) < 0.01


def test_same_pictures_same_poses(truth, pictures):
    start = perturbed(truth, 0.3)
    one, other = (align_to_texture(start, pictures.__getitem__, SIZE) for _ in range(2))
    assert torch.equal(one[0].rotations, other[0].rotations)
    assert torch.equal(one[0].translations, other[0].translations)
    assert one[1] == other[1]
