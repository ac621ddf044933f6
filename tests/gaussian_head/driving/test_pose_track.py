"""Pose tracks of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from gaussian_head.data.subject import Subject
from gaussian_head.driving.pose_track import load_pose_track
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.errors import UserError
from gaussian_head.geometry.cameras import c2w_from_viewmat
from gaussian_head.geometry.rotations import matrix_from_rotvec


@pytest.fixture
def tracked(tiny_subject: Path) -> DrivingSequence:
    return DrivingSequence.from_subject(Subject(tiny_subject, 64), list(range(12)))


def test_every_form_gives_the_same_poses(tracked: DrivingSequence, tmp_path: Path) -> None:
    c2w = c2w_from_viewmat(tracked.viewmats.double().numpy())
    (tmp_path / "list.json").write_text(json.dumps(c2w.tolist()))
    (tmp_path / "named.json").write_text(json.dumps({"camera_to_world": c2w.tolist()}))
    parts = {"rotation": c2w[:, :3, :3].tolist(), "translation": c2w[:, :3, 3].tolist()}
    (tmp_path / "parts.json").write_text(json.dumps(parts))
    save_file({"camera_to_world": c2w}, tmp_path / "named.safetensors")
    tracked.save(tmp_path / "sequence.safetensors")
    for path in sorted(tmp_path.iterdir()):
        assert torch.allclose(load_pose_track(path), tracked.viewmats, atol=1e-5), path.name


def test_rotation_vectors(tmp_path: Path) -> None:
    vectors = torch.tensor([[0.1, 0.0, 0.0], [0.0, 0.3, -0.1]], dtype=torch.float64)
    place = [[0.0, 0.0, 0.6]] * 2
    (tmp_path / "v.json").write_text(json.dumps({"rotation": vectors.tolist(), "translation": place}))
    matrices = {"rotation": matrix_from_rotvec(vectors).tolist(), "translation": place}
    (tmp_path / "m.json").write_text(json.dumps(matrices))
    assert torch.allclose(load_pose_track(tmp_path / "v.json"), load_pose_track(tmp_path / "m.json"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (np.zeros((5, 3, 4)).tolist(), r"got camera_to_world \[5, 3, 4\]"),
        (np.eye(4).tolist(), r"got camera_to_world \[4, 4\]"),
        ([], r"got camera_to_world \[0\]"),
        ({"rotation": np.zeros((5, 4)).tolist(), "translation": np.zeros((5, 3)).tolist()}, r"got rotation \[5, 4\]"),
        ({"rotation": np.zeros((5, 3)).tolist(), "translation": np.zeros((4, 3)).tolist()}, r"translation \[4, 3\]"),
        ({"poses": [1, 2]}, "got poses"),
        ({"camera_to_world": [[1, 2], [3]]}, "got something else"),
        ([{"transform_matrix": 3}], "got something else"),
        ((2 * np.eye(4))[None].tolist(), "must be a rotation"),
        (np.diag([1.0, 1.0, -1.0, 1.0])[None].tolist(), "must be a rotation"),
        (np.zeros((3, 4, 4)).tolist(), "must be a rotation"),
        ([[[None] * 4] * 4], "must be a rotation|got something else"),
    ],
)
def test_another_shape_is_refused(tmp_path: Path, content: object, told: str) -> None:
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=told):
        load_pose_track(tmp_path / "x.json")


@pytest.mark.parametrize("name", ["x.json", "x.safetensors"])
def test_a_damaged_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x00\xff nonsense")
    with pytest.raises(UserError, match="got something else"):
        load_pose_track(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_pose_track(tmp_path / f"no_{name}")
