"""The face in another tool's head frame: found from where it is seen, whatever the frame's unit and origin."""

from __future__ import annotations

import numpy as np
import pytest
from moving_face import HEIGHT, WIDTH, MovingFace, make_moving_face

from data_utils.given_cameras import GivenCameras, metre_of, place_face
from gaussian_head.errors import UserError
from gaussian_head.geometry.landmarks import RIGID

SIZE = (WIDTH, HEIGHT)
FRAMES = 60
ORIGIN = np.array([0.002, -0.006, -0.03])
"""Of the other head frame in ours, metres, as that of a morphable model might lie."""


def cameras_of(face: MovingFace, unit_m: float, frames: list[int] | None = None) -> GivenCameras:
    """The true cameras, as another tool would give them: in another unit, with another origin."""
    track = face.track
    rotations, translations = track.rotations.double().numpy(), track.translations.double().numpy()
    c2w = np.tile(np.eye(4), (len(rotations), 1, 1))
    c2w[:, :3, :3] = np.swapaxes(rotations, 1, 2)
    c2w[:, :3, 3] = (-np.einsum("tji,tj->ti", rotations, translations) - ORIGIN) / unit_m
    frames = list(range(len(rotations))) if frames is None else frames
    return GivenCameras.from_c2w(track.focal_px, frames, c2w[frames], len(rotations))


@pytest.fixture(scope="module")
def face() -> MovingFace:
    return make_moving_face(FRAMES)


@pytest.mark.parametrize("unit_m", [1.0, 0.1, 0.001, 0.31])
def test_landmarks_are_placed_in_the_other_frame(face: MovingFace, unit_m: float) -> None:
    placed = place_face(face.landmarks(noise_px=0.3), cameras_of(face, unit_m), SIZE)
    truth = face.track.points().numpy() - ORIGIN
    found = placed.track.points().numpy()
    assert placed.metres_per_unit == pytest.approx(unit_m, rel=0.06 if unit_m == 0.31 else 1e-9)
    assert placed.valid.all()
    if unit_m != 0.31:  # there the metre itself is a guess
        off = np.linalg.norm(found - truth, axis=-1)[:, RIGID]
        assert np.median(off) < 0.004
    seen = placed.track.project(placed.track.shape.new_tensor(SIZE) / 2).numpy()
    true_px = face.landmarks(noise_px=0)[..., :2]
    assert np.median(np.linalg.norm(seen - true_px, axis=-1)) < 1.0


def test_frames_without_a_pose_or_a_face_are_not_valid(face: MovingFace) -> None:
    landmarks = face.landmarks(noise_px=0.3)
    landmarks[20:23] = np.nan
    known = [k for k in range(FRAMES) if k not in (40, 41)]
    placed = place_face(landmarks, cameras_of(face, 1.0, known), SIZE)
    assert np.flatnonzero(~placed.valid).tolist() == [20, 21, 22, 40, 41]
    assert np.isfinite(placed.track.points().numpy()).all()


def test_cameras_of_another_video_are_refused(face: MovingFace) -> None:
    cameras = cameras_of(face, 1.0)
    moved = GivenCameras(cameras.focal_px, cameras.rotations, cameras.translations[::-1] + (0.1, 0, 0), cameras.known)
    moved.translations[::2, 0] -= 0.2
    with pytest.raises(UserError, match=r"px from where it is in the pictures.*one video"):
        place_face(face.landmarks(noise_px=0.3), moved, SIZE)


def test_a_world_of_other_axes_is_refused(face: MovingFace) -> None:
    cameras = cameras_of(face, 1.0)
    y_to_z = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    turned = GivenCameras(cameras.focal_px, cameras.rotations @ y_to_z, cameras.translations, cameras.known)
    with pytest.raises(UserError, match=r"turned by \d+ degrees"):
        place_face(face.landmarks(noise_px=0.3), turned, SIZE)


def test_no_common_frame_is_refused(face: MovingFace) -> None:
    landmarks = np.full((FRAMES, 478, 3), np.nan, np.float32)
    with pytest.raises(UserError, match="no frame has both"):
        place_face(landmarks, cameras_of(face, 1.0), SIZE)


@pytest.mark.parametrize(("width", "metre"), [(0.14, 1.0), (0.16, 1.0), (1.2, 0.1), (150.0, 1e-3), (0.5, 0.28)])
def test_units_are_powers_of_ten_where_that_makes_a_face(width: float, metre: float) -> None:
    assert metre_of(width) == pytest.approx(metre)
