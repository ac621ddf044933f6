"""Bundle adjustment on a face whose poses are known, seen through noise and with frames missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from moving_face import FOCAL_PX, HEIGHT, WIDTH, make_moving_face, rotation_errors_deg
from scipy.spatial.transform import Rotation

from data_utils.bundle_adjustment import FACE_WIDTH_M, adjust_bundle, fit_expressions
from data_utils.face_track import align_shapes, project
from gaussian_head.geometry import cameras
from gaussian_head.geometry.landmarks import RIGID
from gaussian_head.geometry.rotations import euler_from_matrix

SIZE, CENTER = (WIDTH, HEIGHT), torch.tensor([WIDTH / 2, HEIGHT / 2])
FRAMES, MISSING, NOISE_PX = 48, [7, 8, 30], 0.3


@pytest.fixture(scope="module")
def face():
    return make_moving_face(FRAMES)


@pytest.fixture(scope="module")
def landmarks(face):
    seen = face.landmarks(NOISE_PX)
    seen[MISSING] = np.nan
    return seen


@pytest.fixture(scope="module")
def adjusted(landmarks):
    """The adjusted track and the frame-by-frame one."""
    return adjust_bundle(landmarks, SIZE)


def jitter(track) -> tuple[float, float]:
    turning, moving = euler_from_matrix(track.rotations).diff(n=2, dim=0), track.translations.diff(n=2, dim=0)
    return turning.norm(dim=1).mean().item(), moving.norm(dim=1).mean().item()


def distances(track, face, frames=slice(None)) -> np.ndarray:
    """Between where a track projects the landmarks and where they truly are, px."""
    return (track.project(CENTER) - face.track.project(CENTER)).norm(dim=-1).numpy()[frames]


def test_rotations_are_found(adjusted, face):
    error = rotation_errors_deg(adjusted[0].rotations.numpy(), face.track.rotations.numpy())
    assert error.mean() < 0.6
    assert error.max() < 1.2
    assert np.degrees(np.ptp(Rotation.from_matrix(face.track.rotations.numpy()).as_rotvec(), axis=0)).max() > 20


def test_focal_length_and_size_are_sane(adjusted):
    track, _ = adjusted
    assert track.focal_px == pytest.approx(FOCAL_PX, rel=0.1)
    assert (track.shape[454] - track.shape[234]).norm().item() == pytest.approx(FACE_WIDTH_M, rel=0.05)
    ratio = track.translations[:, 2].mean() / track.focal_px  # what a picture can know
    assert ratio.item() == pytest.approx(-0.9 / FOCAL_PX, rel=0.05)


def test_the_head_trembles_less_than_before(adjusted):
    track, start = adjusted
    for after, before in zip(jitter(track), jitter(start), strict=True):
        assert after < 0.7 * before


def test_the_model_is_nearer_to_the_truth_than_what_was_seen(adjusted, face, landmarks):
    noise = np.linalg.norm(landmarks[..., :2] - face.track.project(CENTER).numpy(), axis=-1)
    seen = [k for k in range(FRAMES) if k not in MISSING]
    assert distances(adjusted[0], face, seen).mean() < noise[seen].mean()


def test_frames_without_a_face_are_interpolated(adjusted, face):
    track, _ = adjusted
    assert all(torch.isfinite(value).all() for value in (track.rotations, track.translations, track.coefficients))
    assert distances(track, face, MISSING).mean() < 2
    assert rotation_errors_deg(track.rotations.numpy(), face.track.rotations.numpy())[MISSING].max() < 3


def test_speech_is_expression_not_pose(adjusted, face):
    """The gap between forehead and chin, in the head frame, follows the jaw."""
    points = adjusted[0].points()
    height = (points[:, 10] - points[:, 152]).norm(dim=1).numpy()
    true = face.track.points()
    assert np.corrcoef(height, (true[:, 10] - true[:, 152]).norm(dim=1).numpy())[0, 1] > 0.9


def test_fitting_expressions_again_keeps_poses_and_what_is_still(adjusted, face, landmarks):
    track, _ = adjusted
    still = np.zeros(478)
    still[RIGID] = 1
    again = fit_expressions(track, landmarks, SIZE, still)
    assert torch.equal(again.rotations, track.rotations)
    assert torch.equal(again.translations, track.translations)
    assert again.focal_px == track.focal_px
    assert again.points()[:, RIGID].std(0).max() < 1e-6
    assert again.points()[:, 152].std(0).norm() > 1e-3  # the chin
    assert distances(again, face).mean() < distances(track, face).mean() + 0.02


def test_same_landmarks_same_track(adjusted, landmarks):
    one, other = adjusted[0], adjust_bundle(landmarks.copy(), SIZE)[0]
    for name in ("shape", "basis", "coefficients", "rotations", "translations"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert one.focal_px == other.focal_px


def test_similarities_are_found_exactly():
    rng = np.random.default_rng(0)
    target = torch.from_numpy(rng.normal(size=(30, 3)))
    turns = torch.from_numpy(Rotation.random(4, random_state=2).as_matrix())
    scales, shifts = torch.tensor([0.5, 1, 2, 7], dtype=torch.float64), torch.from_numpy(rng.normal(size=(4, 3)))
    points = scales[:, None, None] * (target @ turns.transpose(1, 2)) + shifts[:, None]
    found = align_shapes(points, target, torch.from_numpy(rng.uniform(0.1, 2, 30)))
    for value, expected in zip(found, (scales, turns, shifts), strict=True):
        torch.testing.assert_close(value, expected)


def test_a_mirrored_shape_is_not_taken_for_a_turned_one():
    target = torch.from_numpy(np.random.default_rng(0).normal(size=(30, 3)))
    _, rotation, _ = align_shapes((target * torch.tensor([-1.0, 1, 1]))[None], target, torch.ones(30).double())
    assert torch.det(rotation).item() == pytest.approx(1)


def test_projection_is_that_of_the_geometry_package(face):
    track = face.track
    pixels = track.project(CENTER)
    pose = np.tile(np.eye(4), (FRAMES, 1, 1))
    pose[:, :3, :3], pose[:, :3, 3] = track.rotations.numpy(), track.translations.numpy()
    K = cameras.intrinsics(track.focal_px, WIDTH, HEIGHT)
    expected, depth = cameras.project(track.points().numpy(), cameras.GL_TO_CV @ pose, K)
    np.testing.assert_allclose(pixels.numpy(), expected, atol=1e-3)
    assert (depth > 0).all()
    again = project(track.points(), track.rotations, track.translations, track.focal_px, CENTER)
    assert torch.equal(again, pixels)
