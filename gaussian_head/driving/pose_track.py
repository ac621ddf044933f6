"""Pose tracks of one's own: where the camera is in each frame, read from JSON or safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import Tensor

from gaussian_head.errors import UserError
from gaussian_head.geometry.cameras import viewmat_from_c2w
from gaussian_head.geometry.rotations import matrix_from_rotvec

SUFFIXES = (".json", ".safetensors")
ROTATION_TOLERANCE = 1e-2
EXPECTED = (
    "a pose track must be camera-to-world matrices [P, 4, 4] (OpenGL axes, metres; a JSON list, or named "
    "camera_to_world), or rotation [P, 3, 3] or [P, 3] with translation [P, 3], or a DrivingSequence's viewmats"
)


def load_pose_track(path: Path) -> Float[Tensor, "P 4 4"]:
    """Read a track of head poses.

    Args:
        path: `.json`: a list of 4 x 4 matrices, or an object of named arrays; `.safetensors`: named arrays. Names:
            `camera_to_world` [P, 4, 4], or `rotation` [P, 3, 3] or [P, 3] (rotation vectors, radians) and `translation`
            [P, 3] of the camera in the head's frame (OpenGL axes, metres, as in transforms_train.json); or `viewmats`
            [P, 4, 4], as in the files of `DrivingSequence.save`.

    Returns:
        World-to-camera matrices, OpenCV axes.

    Raises:
        FileNotFoundError: No such file.
        UserError: It holds something else; names the shapes that came.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; give --pose walk, still, or a track ({' or '.join(SUFFIXES)})."
        )
    arrays = _read(path)
    if "viewmats" in arrays:
        viewmats = arrays["viewmats"]
        return _checked(path, viewmats if viewmats.ndim == 3 else viewmats[None])
    if "camera_to_world" in arrays:
        c2w = arrays["camera_to_world"]
    elif {"rotation", "translation"} <= set(arrays):
        rotation, translation = arrays["rotation"], arrays["translation"]
        if rotation.ndim == 2 and rotation.shape[1] == 3:
            rotation = matrix_from_rotvec(torch.from_numpy(rotation)).numpy()
        if rotation.ndim != 3 or rotation.shape[1:] != (3, 3) or translation.shape != (len(rotation), 3):
            raise UserError(
                f"{path}: {EXPECTED}; got rotation {list(arrays['rotation'].shape)} and "
                f"translation {list(translation.shape)}."
            )
        c2w = np.tile(np.eye(4), (len(rotation), 1, 1))
        c2w[:, :3, :3], c2w[:, :3, 3] = rotation, translation
    else:
        raise UserError(f"{path}: {EXPECTED}; got {', '.join(sorted(arrays)) or 'nothing'}.")
    if c2w.ndim != 3 or c2w.shape[1:] != (4, 4) or not len(c2w):
        raise UserError(f"{path}: {EXPECTED}; got camera_to_world {list(c2w.shape)}.")
    if not np.isfinite(c2w).all() or (np.abs(np.linalg.det(c2w[:, :3, :3]) - 1) > ROTATION_TOLERANCE).any():
        raise _no_rotations(path)
    return _checked(path, viewmat_from_c2w(c2w))


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        if path.suffix == ".safetensors":
            return {name: value.astype(np.float64) for name, value in load_file(path).items()}
        document: Any = json.loads(path.read_text())
        named = document if isinstance(document, dict) else {"camera_to_world": document}
        return {name: np.array(value, np.float64) for name, value in named.items()}
    except (SafetensorError, UnicodeDecodeError, json.JSONDecodeError, ValueError, TypeError) as error:
        raise UserError(f"{path}: {EXPECTED}; got something else ({error}).") from error


def _checked(path: Path, viewmats: np.ndarray) -> Float[Tensor, "P 4 4"]:
    if viewmats.shape[1:] != (4, 4) or not len(viewmats):
        raise UserError(f"{path}: {EXPECTED}; got viewmats {list(viewmats.shape)}.")
    rotation = viewmats[:, :3, :3]
    orthogonal = np.allclose(rotation @ rotation.swapaxes(1, 2), np.eye(3), atol=ROTATION_TOLERANCE)
    if not np.isfinite(viewmats).all() or not orthogonal or (np.linalg.det(rotation) < 0).any():
        raise _no_rotations(path)
    return torch.from_numpy(viewmats).float()


def _no_rotations(path: Path) -> UserError:
    return UserError(
        f"{path}: the upper left 3 x 3 numbers of each pose must be a rotation (orthogonal, determinant 1, no NaN); "
        "give rigid poses without scale."
    )
