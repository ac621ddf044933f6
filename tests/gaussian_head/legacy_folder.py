"""Subject folders as other tools write them, generated from the made-up subject: nobody's files are in here."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from gaussian_head.data import layout as names
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.geometry.cameras import GL_TO_CV, intrinsics, project, viewmat_from_c2w
from gaussian_head.geometry.landmarks import MESH_TO_68, OPENFACE_ACTION_UNITS
from gaussian_head.geometry.rotations import euler_from_matrix
from gaussian_head.media.image import read_rgb, write_png
from gaussian_head.networks.face_follower import Face, FaceFollower

Lineage = Literal["talking_gaussian", "er_nerf", "ad_nerf"]
LINEAGES: tuple[Lineage, ...] = ("talking_gaussian", "er_nerf", "ad_nerf")
ORIGIN = np.array([0.003, -0.005, -0.02])
"""Of a morphable model's head frame in the made-up subject's, metres."""
OURS = ("landmarks_3d", "landmarks_3d_valid", "hair_3d", "mesh_landmarks", "manifest")


def make_legacy_folder(
    tiny: Path, root: Path, lineage: Lineage, *, unit_m: float = 1.0, without_face: tuple[int, ...] = ()
) -> SubjectLayout:
    """Write what that tool would have left of the made-up subject.

    Args:
        tiny: The made-up subject.
        root: Where to.
        lineage: Whose tool.
        unit_m: Unit of the transforms.
        without_face: Frames in which its landmark detector found nothing, which RAD-NeRF's lineage skips in counting.
    """
    layout, ours = SubjectLayout(root), SubjectLayout(tiny)
    shutil.copytree(tiny, root)
    landmarks = np.load(ours.landmarks_3d)
    frames = len(landmarks)
    _write_poses(ours, layout, lineage, unit_m, without_face)
    mesh_px = true_mesh_px(ours)
    for k in range(frames):
        if k not in without_face:
            np.savetxt(layout.landmarks68(k), mesh_px[k, MESH_TO_68, :2], fmt="%f")
    for name in OURS:
        getattr(layout, name).unlink(missing_ok=True)
    layout.audio_features("mel").unlink()
    shutil.rmtree(layout.matte(0).parent)
    features = np.random.default_rng(3).normal(size=(frames, 16, 29))
    features[..., 0] += np.load(ours.audio_features("mel")).mean((1, 2))[:, None] * 6  # loud frames sound so
    np.save(layout.root / ("aud.npy" if lineage == "ad_nerf" else "aud_ds.npy"), features)
    if lineage != "talking_gaussian":
        shutil.rmtree(layout.teeth_mask(0).parent)
        for k in range(frames):
            parsing = read_rgb(layout.parsing(k))
            for color in (names.PARSING_HAIR, names.PARSING_MOUTH):
                parsing[(parsing == color).all(-1)] = names.PARSING_HEAD
            write_png(layout.parsing(k), parsing)
    if lineage == "ad_nerf":
        layout.action_units.unlink()
        layout.gt_image(0).parent.rename(layout.composed_image(0).parent)
        shutil.rmtree(layout.torso_image(0).parent)
    else:
        _write_action_units(layout, frames)
    return layout


def true_mesh_px(ours: SubjectLayout) -> np.ndarray:
    """What a detector would say of the made-up subject [T, 478, 3]: x, y and relative z in px."""
    document = [json.loads(ours.transforms(split).read_text()) for split in ("train", "val")]
    views = [viewmat_from_c2w(np.array(f["transform_matrix"])) for part in document for f in part["frames"]]
    side = read_rgb(ours.frame(0)).shape[0]
    focal = document[0]["focal_len"]
    found = []
    for points, view in zip(np.load(ours.landmarks_3d), views, strict=True):
        pixels, depth = project(points, view, intrinsics(focal, side, side))
        found.append(np.column_stack([pixels, focal * (depth / depth.mean() - 1)]))
    return np.array(found, np.float32)


class TrueDetector(FaceFollower):
    """Stands for MediaPipe, which sees no face in flat colours: says what is true, picture after picture."""

    def __init__(self, mesh_px: np.ndarray) -> None:
        super().__init__(views=((0.0, 1.0),))
        self._answers = iter(mesh_px)

    def __enter__(self) -> TrueDetector:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _find(self, rgb: np.ndarray, *, static: bool) -> list[Face]:
        return [Face(next(self._answers))]


def patch_detector(patch: pytest.MonkeyPatch, tiny: Path) -> None:
    """Let the detector say what is true of the made-up subject."""
    mesh_px = true_mesh_px(SubjectLayout(tiny))
    patch.setattr("gaussian_head.networks.face_mesh.FaceMeshDetector", lambda: TrueDetector(mesh_px))


def _write_poses(
    ours: SubjectLayout, layout: SubjectLayout, lineage: Lineage, unit_m: float, without_face: tuple[int, ...]
) -> None:
    documents = {split: json.loads(ours.transforms(split).read_text()) for split in ("train", "val")}
    c2w = [np.array(f["transform_matrix"]) for part in documents.values() for f in part["frames"]]
    posed = [k for k in range(len(c2w)) if k not in without_face]
    for matrix in c2w:
        matrix[:3, 3] = (matrix[:3, 3] - ORIGIN) / unit_m
    w2c = np.array([GL_TO_CV @ viewmat_from_c2w(c2w[k]) for k in posed])  # OpenGL axes on both sides
    focal = documents["train"]["focal_len"]
    torch.save(
        {
            "id": torch.zeros(1, 100),
            "exp": torch.zeros(len(posed), 79),
            "euler": euler_from_matrix(torch.from_numpy(w2c[:, :3, :3])).float(),
            "trans": torch.from_numpy(w2c[:, :3, 3]).float() * 10,
            "focal": torch.tensor([focal]),
        },
        layout.track_params,
    )
    split_at = len(posed) * 10 // 11
    for split, members in (("train", range(split_at)), ("val", range(split_at, len(posed)))):
        poses = []
        for i in members:
            number = posed[i] if lineage == "ad_nerf" else i
            pose = {"img_id": number, "aud_id": number, "transform_matrix": c2w[posed[i]].tolist()}
            poses.append(pose | ({"face_rect": [10, 10, 40, 40]} if lineage == "ad_nerf" else {}))
        document = {"focal_len": focal, "cx": documents["train"]["cx"], "cy": documents["train"]["cy"], "frames": poses}
        layout.transforms(split).write_text(json.dumps(document, indent=2))


def _write_action_units(layout: SubjectLayout, frames: int) -> None:
    """OpenFace 2: all columns, blanks before the names."""
    with layout.action_units.open("w", newline="") as file:
        writer = csv.writer(file)
        head = ["frame", " face_id", " timestamp", " confidence", " success"]
        writer.writerow([*head, *(f" AU{unit:02d}_r" for unit in OPENFACE_ACTION_UNITS)])
        for k in range(frames):
            units = [2.4 if unit == 45 and k % 40 < 3 else 0.3 for unit in OPENFACE_ACTION_UNITS]
            writer.writerow([k + 1, 0, k / 25, 0.98, 1, *units])
