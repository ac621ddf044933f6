"""Another person's motion on this head: closed stays closed, shut stays shut, nothing leaves the subject's range."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from gaussian_head.data.subject import Subject
from gaussian_head.driving.retarget import EYES, MOUTH, FaceTransfer, retarget
from gaussian_head.driving.retarget_pose import SHIFT_MARGIN_M, STEPS, TURN_MARGIN, nearest_torsos, transfer_pose
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.driving.upper_face import (
    BLINK_UNIT,
    BROW_REACH_M,
    BROWS,
    EYE_UNITS,
    IRISES,
    around,
    eye_closure,
    made_up_blink,
)
from gaussian_head.geometry.landmarks import LEFT_EYE, LEFT_IRIS, RIGHT_EYE, RIGHT_IRIS, mouth_aperture

BLINKS_AT = (12, 47)
IDENTITY_MM = 0.01
"""What a subject's own motion may change when it is carried over to the subject itself."""


def with_eyes(motion: DrivingSequence) -> DrivingSequence:
    """Put the lids' points where the mesh has them, outer corner first, then along the lower lid; irises between."""
    landmarks = motion.landmarks.clone()
    angle = torch.arange(16) * (torch.pi / 8)
    for eye, iris, side in ((RIGHT_EYE, RIGHT_IRIS, -1.0), (LEFT_EYE, LEFT_IRIS, 1.0)):
        middle = torch.tensor([side * 0.03, 0.03, 0.045])
        lid = torch.stack([side * 0.013 * angle.cos(), -0.005 * angle.sin(), 0 * angle], 1)
        landmarks[:, eye], landmarks[:, iris] = middle + lid, middle
    return motion.with_landmarks(landmarks)


def with_life(motion: DrivingSequence, blinks: tuple[int, ...] = BLINKS_AT) -> DrivingSequence:
    """Add blinks, brows that move and eyes that wander."""
    motion = with_eyes(motion)
    landmarks, units = motion.landmarks.clone(), motion.action_units.clone()
    units[:, BLINK_UNIT] = 0
    time = torch.arange(len(motion))
    weights = around(landmarks.mean(0), BROWS, BROW_REACH_M)[:, None]
    landmarks += 0.003 * torch.sin(time / 7)[:, None, None] * weights * torch.tensor([0.0, 1.0, 0.0])
    landmarks[:, IRISES, 0] += 0.002 * torch.cos(time / 11)[:, None]
    blink = made_up_blink(motion)
    for first in blinks:
        inside = slice(first, first + len(blink.units))
        landmarks[inside] += blink.lids
        units[inside, EYE_UNITS] += blink.units
    return replace(motion, landmarks=landmarks, action_units=units)


def someone_else(motion: DrivingSequence, liveliness: float = 1.0) -> DrivingSequence:
    """The same performance by a person with a longer face, larger eyes and thicker lips, perhaps a livelier one."""
    rest = motion.landmarks[int(mouth_aperture(motion.landmarks.numpy()).argmin())]
    other = rest * torch.tensor([0.95, 1.1, 1.05]) + 0.002 * torch.sin(40 * rest[:, [1]])
    for eye in (RIGHT_EYE, LEFT_EYE):
        other[eye, 1] += 0.3 * (rest[eye, 1] - rest[eye, 1].mean())
    away = motion.landmarks - rest
    lids = torch.from_numpy(np.concatenate([RIGHT_EYE, LEFT_EYE]))
    moved = other + liveliness * away
    moved[:, lids] = other[lids] + 1.4 * away[:, lids]  # the larger eyes, shut as far
    return replace(motion, landmarks=moved)


def turned(motion: DrivingSequence, degrees: float) -> DrivingSequence:
    """Let the head swing that far to both sides, and move ten times as far."""
    swing = np.radians(degrees) * np.sin(np.arange(len(motion)) / 9)
    turns = Rotation.from_rotvec(swing[:, None] * [0, 1, 0]).as_matrix()
    viewmats = torch.eye(4).repeat(len(motion), 1, 1)
    viewmats[:, :3, :3] = torch.from_numpy(turns @ np.diag([1.0, -1, -1])).float()
    viewmats[:, 0, 3] = torch.from_numpy(0.5 * swing).float()
    viewmats[:, 2, 3] = 0.9
    return replace(motion, viewmats=viewmats)


def shut(closure: np.ndarray) -> np.ndarray:
    """Frames in which the eyes are as shut as they ever are."""
    assert closure.max() > 0.8
    return closure > 0.97 * closure.max()


def angles(viewmats: torch.Tensor) -> np.ndarray:
    """Rotation vectors about the mean pose, radians."""
    rotations = Rotation.from_matrix(viewmats[:, :3, :3].double().numpy())
    return (rotations * rotations.mean().inv()).as_rotvec()


@pytest.fixture(scope="module")
def footage(tiny_subject: Path) -> DrivingSequence:
    subject = Subject(tiny_subject, 64)
    return with_life(DrivingSequence.from_subject(subject, subject.train))


def carried(driver: DrivingSequence, footage: DrivingSequence, **options: object) -> DrivingSequence:
    return DrivingSequence.join(list(retarget(driver, footage, **options)))


def test_ones_own_motion_comes_back(footage: DrivingSequence) -> None:
    moved = carried(footage, footage)
    assert 1e3 * (moved.landmarks - footage.landmarks).norm(dim=-1).max() < IDENTITY_MM
    torch.testing.assert_close(moved.action_units, footage.action_units)
    assert np.degrees(np.abs(angles(moved.viewmats) - angles(footage.viewmats)).max()) < 0.2  # smoothed over time
    assert 1e3 * (moved.viewmats - footage.viewmats)[:, :3, 3].abs().max() < 0.1
    torsos, wanted = (
        Rotation.from_matrix(v[:, :3, :3].double().numpy())
        for v in (footage.viewmats[moved.frame_index], footage.viewmats)
    )
    assert np.degrees((torsos * wanted.inv()).magnitude().max()) < 0.5


@pytest.mark.parametrize("liveliness", [0.7, 1.0, 2.0])
def test_a_driver_of_any_liveliness_moves_as_far_as_the_subject(footage: DrivingSequence, liveliness: float) -> None:
    driver = someone_else(footage, liveliness)
    own, given, moved = (
        mouth_aperture(motion.landmarks.numpy()) for motion in (footage, driver, carried(driver, footage))
    )
    assert np.corrcoef(given, moved)[0, 1] > 0.99
    assert 1e3 * np.abs(np.quantile(moved, (0.5, 0.95)) - np.quantile(own, (0.5, 0.95))).max() < 0.5
    assert moved.max() < own.max() + 1e-4


def test_a_closed_mouth_is_closed(footage: DrivingSequence) -> None:
    driver = someone_else(footage, 2.0)
    own, given, moved = (
        MOUTH[0].measure(motion.landmarks.numpy()) for motion in (footage, driver, carried(driver, footage))
    )
    closed = given < given.min() + 2e-4
    assert closed.sum() > 5
    assert 1e3 * (moved[closed].max() - own.min()) < 0.5


def test_lips_of_one_who_never_closes_them_stay_apart(footage: DrivingSequence) -> None:
    opening = mouth_aperture(footage.landmarks.numpy())
    open_frames = torch.from_numpy(np.flatnonzero(opening > 0.006))
    driver = replace(footage, **{name: part[open_frames] for name, part in footage.parts().items()})
    moved = carried(driver, footage)
    assert mouth_aperture(moved.landmarks.numpy()).min() > 0.003


def test_shut_eyes_are_shut_and_open_ones_open(footage: DrivingSequence) -> None:
    given, moved = eye_closure(someone_else(footage)), eye_closure(carried(someone_else(footage), footage))
    assert moved[shut(given)].min() > 0.85
    assert np.abs(moved - given).max() < 0.15


def test_a_subject_that_was_never_seen_to_blink_shuts_its_eyes(tiny_subject: Path, footage: DrivingSequence) -> None:
    subject = Subject(tiny_subject, 64)
    staring = with_life(DrivingSequence.from_subject(subject, subject.train), blinks=())
    given, moved = eye_closure(someone_else(footage)), eye_closure(carried(someone_else(footage), staring))
    assert moved[shut(given)].min() > 0.7  # the mesh's opening of a shut eye is a quarter of the usual
    assert moved[given < 0.05].max() < 0.1


def test_a_wink_shuts_one_eye(footage: DrivingSequence) -> None:
    winking = someone_else(footage)
    still = winking.landmarks[0]
    landmarks = winking.landmarks.clone()
    landmarks[:, LEFT_EYE] = still[LEFT_EYE]
    moved = carried(replace(winking, landmarks=landmarks), footage).landmarks.numpy()
    right, left = (eye.measure(moved) / np.median(eye.measure(moved)) for eye in EYES)
    assert right.min() < 0.1
    assert left.min() > 0.85


def test_action_units_stay_within_the_subjects(footage: DrivingSequence) -> None:
    lively = replace(someone_else(footage), action_units=(2.5 * footage.action_units).clamp(max=5))
    units = carried(lively, footage).action_units
    assert (units <= footage.action_units.amax(0) + 1e-6).all()
    assert units[:, BLINK_UNIT].max() == pytest.approx(2.0)


def test_poses_keep_to_the_footages_reach(footage: DrivingSequence, caplog: pytest.LogCaptureFixture) -> None:
    far = turned(footage, 40)
    with caplog.at_level(logging.INFO):
        moved = transfer_pose(far.viewmats, footage.viewmats)
    assert "turns farther than this footage: by 0, 4" in caplog.text
    assert "shifts farther" in caplog.text
    reach = np.abs(angles(footage.viewmats)).max(0) + TURN_MARGIN
    assert (np.abs(angles(moved)).max(0) < reach + np.radians(1)).all()
    assert np.corrcoef(angles(far.viewmats)[:, 1], angles(moved)[:, 1])[0, 1] > 0.999
    shifts, own = ((v[:, :3, 3] - footage.viewmats[:, :3, 3].mean(0)).abs().amax(0) for v in (moved, footage.viewmats))
    assert (shifts < own + SHIFT_MARGIN_M + 1e-3).all()


def test_small_turns_are_not_scaled(footage: DrivingSequence, caplog: pytest.LogCaptureFixture) -> None:
    near = turned(footage, 4)
    with caplog.at_level(logging.INFO):
        moved = transfer_pose(near.viewmats, footage.viewmats)
    assert "turns" not in caplog.text
    assert np.degrees(np.abs(angles(near.viewmats) - angles(moved)).max()) < 0.3  # the clip's ends are smoothed


def test_the_torso_never_jumps(footage: DrivingSequence) -> None:
    torsos = nearest_torsos(turned(footage, 4).viewmats, footage)
    assert torsos.diff().abs().max() <= max(STEPS)
    assert torsos.unique().numel() > 5


def test_pieces_are_the_whole(footage: DrivingSequence) -> None:
    driver = someone_else(footage)
    whole, pieces = carried(driver, footage, chunk=1000), carried(driver, footage, chunk=7)
    for name, part in whole.parts().items():
        torch.testing.assert_close(pieces.parts()[name], part)


def test_own_poses_under_the_drivers_face(footage: DrivingSequence) -> None:
    driver = turned(someone_else(footage), 40)
    moved = carried(driver, footage, pose="own", chunk=33)
    torch.testing.assert_close(moved.landmarks, carried(driver, footage).landmarks)
    assert len(moved) == len(driver)
    assert np.abs(angles(moved.viewmats)).max() < np.abs(angles(footage.viewmats)).max() * 1.3


def test_a_driver_that_does_not_move(footage: DrivingSequence) -> None:
    index = torch.zeros(3, dtype=torch.long)
    driver = replace(footage, **{name: part[index] for name, part in footage.parts().items()})
    moved = FaceTransfer(driver, footage)
    assert moved.landmarks(driver.landmarks).isfinite().all()
    assert transfer_pose(driver.viewmats, footage.viewmats).isfinite().all()
