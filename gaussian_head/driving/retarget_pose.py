"""How another person's head moves, as this subject's head may: turns and shifts about its own usual pose."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation
from torch import Tensor

from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.geometry.cameras import project
from gaussian_head.geometry.landmarks import RIGID

logger = logging.getLogger(__name__)

SMOOTHING_FRAMES = 1.0
"""Standard deviation of the smoothing of transferred poses: the tracker trembles, and the neck shows it."""
TURN_MARGIN = np.radians(5.0)
"""A head may turn so much farther about any axis than its footage shows."""
SHIFT_MARGIN_M = 0.01
"""Likewise of shifts along any axis."""
STEPS = (-2, -1, 0, 1, 2)
"""Frames of footage by which the torso goes on in one frame: it never jumps."""
STEP_SHARE = 4e-4
"""A step of one frame must show the head so much better, in picture widths: 0.2 px of 512."""


def transfer_pose(driver: Float[Tensor, "T 4 4"], footage: Float[Tensor, "N 4 4"]) -> Float[Tensor, "T 4 4"]:
    """Move the subject's head about its mean pose as the driver's moves about the driver's.

    Turns and shifts are taken along the camera's axes: who turns to the left of the picture still does. Each is scaled
    by one factor for the whole clip where the driver goes farther than the footage does by more than a margin; the
    factors are logged.

    Args:
        driver: World to camera, OpenCV axes, metres.
        footage: The subject's.

    Returns:
        The subject's poses.
    """
    (turns, shifts, _), (own_turns, own_shifts, usual) = _about_mean(driver), _about_mean(footage)
    turns, shifts = (gaussian_filter1d(x, SMOOTHING_FRAMES, axis=0, mode="nearest") for x in (turns, shifts))
    turn_scale, shift_scale = _scale(turns, own_turns, TURN_MARGIN), _scale(shifts, own_shifts, SHIFT_MARGIN_M)
    if turn_scale < 1:
        _tell("turns", turn_scale, np.degrees(turns), np.degrees(own_turns), ("nods", "turns", "tilts"), "degrees")
    if shift_scale < 1:
        _tell("shifts", shift_scale, 1e3 * shifts, 1e3 * own_shifts, ("sideways", "up or down", "in depth"), "mm")
    poses = np.tile(np.eye(4), (len(turns), 1, 1))
    poses[:, :3, :3] = (Rotation.from_rotvec(turn_scale * turns) * usual).as_matrix()
    poses[:, :3, 3] = footage[:, :3, 3].double().mean(0).numpy() + shift_scale * shifts
    return torch.from_numpy(poses).float()


def nearest_torsos(viewmats: Float[Tensor, "T 4 4"], footage: DrivingSequence) -> Int[Tensor, " T"]:
    """Choose the frames of footage that show the torso: poses near the wanted ones, played without a jump.

    The cheapest path through the footage (dynamic programming), forward, backward or standing still, by the root mean
    square distance in px of the head's surface.

    Args:
        viewmats: The wanted poses.
        footage: Frames that follow each other.

    Returns:
        Indices into the footage.
    """
    K, rigid = footage.K.double().numpy(), footage.landmarks.double().numpy().mean(0)[RIGID]

    def places(poses: Float[Tensor, "P 4 4"]) -> Float[np.ndarray, "P D"]:
        seen = project(np.broadcast_to(rigid, (len(poses), *rigid.shape)), poses.double().numpy(), K)[0]
        return (seen / np.sqrt(len(rigid))).reshape(len(poses), -1)

    wanted, there = places(viewmats), places(footage.viewmats)
    came_by = np.zeros((len(wanted), len(there)), np.int8)
    cost = np.linalg.norm(there - wanted[0], axis=1)
    for t in range(1, len(wanted)):
        before = np.full((len(STEPS), len(there)), np.inf)
        for s, step in enumerate(STEPS):
            to = slice(max(step, 0), len(there) + min(step, 0))
            since = slice(max(-step, 0), len(there) - max(step, 0))
            before[s, to] = cost[since] + STEP_SHARE * footage.width * abs(step)
        came_by[t] = np.take(STEPS, before.argmin(0))
        cost = before.min(0) + np.linalg.norm(there - wanted[t], axis=1)
    path = [int(cost.argmin())]
    for t in range(len(wanted) - 1, 0, -1):
        path.append(path[-1] - int(came_by[t, path[-1]]))
    return torch.tensor(path[::-1])


def _about_mean(
    viewmats: Float[Tensor, "T 4 4"],
) -> tuple[Float[np.ndarray, "T 3"], Float[np.ndarray, "T 3"], Rotation]:
    """Return rotation vectors (radians) and shifts (metres) about the mean pose, camera axes, and its rotation."""
    poses = viewmats.double().numpy()
    rotations = Rotation.from_matrix(poses[:, :3, :3])
    usual = rotations.mean()
    return (rotations * usual.inv()).as_rotvec(), poses[:, :3, 3] - poses[:, :3, 3].mean(0), usual


def _scale(motion: Float[np.ndarray, "T 3"], own: Float[np.ndarray, "N 3"], margin: float) -> float:
    """Return the factor, at most 1, that brings a motion within another's reach and a margin, axis by axis."""
    reach, own_reach = np.abs(motion).max(0), np.abs(own).max(0)
    return float(np.min((own_reach + margin) / np.maximum(reach, own_reach + margin)))


def _tell(
    what: str, scale: float, motion: Float[np.ndarray, "T 3"], own: Float[np.ndarray, "N 3"], axes: Sequence[str],
    unit: str,
) -> None:  # fmt: skip
    """Log that a motion was scaled down, and how far both people go along each axis."""
    theirs, ours = (", ".join(f"{x:.0f}" for x in np.abs(side).max(0)) for side in (motion, own))
    logger.info(
        "the driver's head %s farther than this footage: by %s %s (%s), the footage's by %s; scaled by %.2f.",
        what, theirs, unit, ", ".join(axes), ours, scale,
    )  # fmt: skip
