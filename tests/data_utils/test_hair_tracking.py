"""Hair that slides over a still head is followed; a head that only moves as a whole gives no displacement."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data_utils.hair_tracking import track_hair
from gaussian_head.data import layout as names
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.geometry.landmarks import FACE_OVAL
from gaussian_head.geometry.rotations import matrix_from_euler
from gaussian_head.media.image import write_jpeg, write_png

SIZE, FOCAL, DEPTH, FRAMES = 256, 600.0, 0.7, 12
PLANE_DEPTH = DEPTH + 0.04
PX_PER_M = FOCAL / PLANE_DEPTH


def make_subject(root: Path, hair_px: np.ndarray, head_px: np.ndarray) -> SubjectLayout:
    """A textured square of hair, shifted by `hair_px` [T, 2] on a head whose pose moves the picture by `head_px`."""
    layout = SubjectLayout(root)
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.uniform(0, 255, (SIZE, SIZE, 3)).astype(np.float32), (0, 0), 2)
    texture = np.clip((texture - 127) * 4 + 127, 0, 255)
    hair = np.zeros((SIZE, SIZE), np.float32)
    hair[40:200, 50:200] = 1
    for k in range(FRAMES):
        x, y = hair_px[k] + head_px[k]
        shift = np.array([[1, 0, x], [0, 1, y]], np.float32)
        picture = cv2.warpAffine(texture, shift, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT)
        mask = cv2.warpAffine(hair, shift, (SIZE, SIZE)) > 0.5
        write_jpeg(layout.frame(k), np.uint8(np.where(mask[..., None], picture, 255)))
        colors = np.where(mask[..., None], names.PARSING_HAIR, names.PARSING_BACKGROUND)
        write_png(layout.parsing(k), np.uint8(colors))
        write_png(layout.matte(k), np.uint8(mask) * 255)
    translations = np.zeros((FRAMES, 3), np.float32)
    translations[:, :2] = head_px * [1, -1] / PX_PER_M
    translations[:, 2] = -DEPTH
    torch.save(
        {
            "euler": torch.zeros(FRAMES, 3),
            "trans": torch.from_numpy(translations * 10).float(),
            "focal": torch.tensor([FOCAL]),
        },
        layout.track_params,
    )
    landmarks = np.zeros((FRAMES, 478, 3), np.float32)
    landmarks[:, FACE_OVAL, 2] = 0.0
    np.save(layout.landmarks_3d, landmarks)
    return layout


def turn_head(layout: SubjectLayout, yaw: np.ndarray, hair_z: float) -> None:
    """Redraw a subject's pictures: a flat textured sheet of hair at `hair_z` (metres) on a head that turns."""
    rng = np.random.default_rng(1)
    texture = cv2.GaussianBlur(rng.uniform(0, 255, (300, 300, 3)).astype(np.float32), (0, 0), 2)
    texture = np.uint8(np.clip((texture - 127) * 4 + 127, 0, 255))
    corners = np.array([[-0.1, 0.1], [0.1, 0.1], [0.1, -0.1], [-0.1, -0.1]])  # x, y of the sheet
    track = torch.load(layout.track_params, weights_only=True)
    track["euler"] = torch.zeros(FRAMES, 3)
    track["euler"][:, 1] = torch.from_numpy(yaw)
    track["trans"] = torch.tensor([0.0, 0.0, -DEPTH * 10]).expand(FRAMES, 3).clone()
    torch.save(track, layout.track_params)
    rotations = matrix_from_euler(track["euler"]).numpy()
    for k in range(FRAMES):
        seen = np.column_stack([corners, np.full(4, hair_z)]) @ rotations[k].T + [0, 0, -DEPTH]
        pixels = seen[:, :2] * [1, -1] / -seen[:, 2:] * FOCAL + SIZE / 2 - 0.5
        warp = cv2.getPerspectiveTransform(np.float32([[0, 0], [299, 0], [299, 299], [0, 299]]), np.float32(pixels))
        mask = cv2.warpPerspective(np.full((300, 300), 255, np.uint8), warp, (SIZE, SIZE)) > 127
        picture = cv2.warpPerspective(texture, warp, (SIZE, SIZE))
        write_jpeg(layout.frame(k), np.uint8(np.where(mask[..., None], picture, 255)))
        colors = np.where(mask[..., None], names.PARSING_HAIR, names.PARSING_BACKGROUND)
        write_png(layout.parsing(k), np.uint8(colors))
        write_png(layout.matte(k), np.uint8(mask) * 255)


def waves(amplitude_px: float) -> np.ndarray:
    phase = np.linspace(0, 2 * np.pi, FRAMES)
    return amplitude_px * np.stack([np.sin(phase), np.cos(phase)], 1)


def test_sliding_hair_is_followed(tmp_path: Path) -> None:
    shift = waves(3.0)
    layout = make_subject(tmp_path / "s", hair_px=shift, head_px=np.zeros((FRAMES, 2)))
    facts = track_hair(layout)
    points = np.load(layout.hair_3d)
    assert points.shape == (FRAMES, facts["points"], 3)
    found = (points - points.mean(0))[..., :2] * [1, -1] * PX_PER_M
    inner = np.median(found, axis=1)
    expected = shift - shift.mean(0)
    assert np.abs(inner - expected).max() < 0.8  # the filter over time takes a little off the peaks
    assert np.corrcoef(inner.ravel(), expected.ravel())[0, 1] > 0.98


def test_a_head_that_moves_as_a_whole_leaves_hair_at_rest(tmp_path: Path) -> None:
    layout = make_subject(tmp_path / "s", hair_px=np.zeros((FRAMES, 2)), head_px=waves(6.0))
    track_hair(layout)
    points = np.load(layout.hair_3d)
    moved = np.abs(points - points.mean(0))[..., :2] * PX_PER_M
    assert np.median(moved) < 0.3


@pytest.mark.parametrize("hair_z", [0.0, -0.08])
def test_hair_in_front_of_the_plane_or_behind_is_found_there_and_at_rest(tmp_path: Path, hair_z: float) -> None:
    layout = make_subject(tmp_path / "s", hair_px=np.zeros((FRAMES, 2)), head_px=np.zeros((FRAMES, 2)))
    turn_head(layout, np.linspace(-0.2, 0.2, FRAMES), hair_z)
    track_hair(layout)
    points = np.load(layout.hair_3d)
    assert abs(np.median(points[..., 2]) - hair_z) < 0.006  # the plane is at -0.04
    motion = np.linalg.norm(points - points.mean(0), axis=-1)
    assert np.median(motion) * PX_PER_M < 0.5  # the sheet's parallax on the plane is ten times that


def test_no_hair_gives_no_points(tmp_path: Path) -> None:
    layout = make_subject(tmp_path / "s", hair_px=np.zeros((FRAMES, 2)), head_px=np.zeros((FRAMES, 2)))
    for k in range(FRAMES):
        write_png(layout.parsing(k), np.full((SIZE, SIZE, 3), 255, np.uint8))
    assert track_hair(layout)["points"] == 0
    assert np.load(layout.hair_3d).shape == (FRAMES, 0, 3)
