"""The tracking stage: what it writes agrees with itself, with the picture, and with the truth where it is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from moving_face import FOCAL_PX, HEIGHT, WIDTH, draw, make_moving_face, rotation_errors_deg

from data_utils.tracking import track_head
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.geometry.cameras import intrinsics, project, viewmat_from_c2w
from gaussian_head.geometry.rotations import matrix_from_euler
from gaussian_head.media.image import write_jpeg

FRAMES, MISSING = 34, [0, 12, 33]
WRITTEN = ("track_params.pt", "transforms_train.json", "transforms_val.json", "lm3d.npy", "lm3d_valid.npy")


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A folder of 34 drawn frames, three of them without landmarks; its layout, the truth and the stage's facts."""
    layout = SubjectLayout(tmp_path_factory.mktemp("tracking") / "somebody")
    face = make_moving_face(FRAMES)
    for k in range(FRAMES):
        write_jpeg(layout.frame(k), draw(face.track, k))
    landmarks = face.landmarks(0.3)
    landmarks[MISSING] = np.nan
    np.save(layout.mesh_landmarks, landmarks)
    return layout, face, track_head(layout)


def cameras(layout: SubjectLayout) -> dict[int, np.ndarray]:
    """c2w by frame number, of both splits."""
    frames = [f for split in ("train", "val") for f in json.loads(layout.transforms(split).read_text())["frames"]]
    return {frame["img_id"]: np.array(frame["transform_matrix"]) for frame in frames}


def test_numbers_never_shift(tracked):
    layout, _, facts = tracked
    splits = {split: json.loads(layout.transforms(split).read_text()) for split in ("train", "val")}
    numbers = {split: [frame["img_id"] for frame in document["frames"]] for split, document in splits.items()}
    assert numbers["train"] == [k for k in range(30) if k not in MISSING]  # the first 10/11
    assert numbers["val"] == [30, 31, 32]
    assert facts["invalid_frames"] == MISSING
    assert facts["frames"] == FRAMES
    for document in splits.values():
        assert [frame["aud_id"] for frame in document["frames"]] == [frame["img_id"] for frame in document["frames"]]
        assert (document["cx"], document["cy"], document["fps"]) == (WIDTH / 2, HEIGHT / 2, 25)
        assert document["focal_len"] == pytest.approx(facts["focal_px"], abs=0.01)


def test_cameras_put_the_landmarks_where_they_were_seen(tracked):
    layout, face, facts = tracked
    points, seen = np.load(layout.landmarks_3d), face.track.project(torch.tensor([WIDTH / 2, HEIGHT / 2])).numpy()
    K = intrinsics(json.loads(layout.transforms("train").read_text())["focal_len"], WIDTH, HEIGHT)
    errors = []
    for k, c2w in cameras(layout).items():
        pixels, depth = project(points[k].astype(np.float64), viewmat_from_c2w(c2w), K)
        assert (depth > 0.3).all()
        errors.append(np.linalg.norm(pixels - seen[k], axis=1).mean())
    assert np.mean(errors) < 0.6
    assert facts["reprojection_error_px"] < 0.6


def test_arrays_have_every_frame(tracked):
    layout, _, _ = tracked
    points, valid = np.load(layout.landmarks_3d), np.load(layout.landmarks_3d_valid)
    assert points.shape == (FRAMES, 478, 3)
    assert points.dtype == np.float32
    assert np.isfinite(points).all()
    assert np.flatnonzero(~valid).tolist() == MISSING
    assert 0.12 < np.linalg.norm(points[:, 454] - points[:, 234], axis=1).mean() < 0.16  # metres, upright
    assert (points[:, 10, 1] > points[:, 152, 1]).all()
    assert (points[:, 4, 2] > points[:, 234, 2]).all()  # z out of the face


def test_track_params_are_the_fields_and_agree_with_the_cameras(tracked):
    layout, _, _ = tracked
    params = torch.load(layout.track_params, weights_only=True)
    assert {name: tuple(value.shape) for name, value in params.items()} == {
        "id": (1, 100), "exp": (FRAMES, 79), "euler": (FRAMES, 3), "trans": (FRAMES, 3), "focal": (1,),
    }  # fmt: skip
    rotations, places = matrix_from_euler(params["euler"]).numpy(), params["trans"].numpy() / 10
    for k, c2w in cameras(layout).items():
        np.testing.assert_allclose(c2w[:3, :3], rotations[k].T, atol=1e-5)
        np.testing.assert_allclose(c2w[:3, 3], -rotations[k].T @ places[k], atol=1e-5)
    assert (params["trans"][:, 2] < 0).all()


def test_poses_are_the_true_ones(tracked):
    layout, face, facts = tracked
    found = cameras(layout)
    numbers = sorted(found)
    estimated = np.stack([found[k][:3, :3].T for k in numbers])
    assert rotation_errors_deg(estimated, face.track.rotations.numpy()[numbers]).mean() < 1
    assert facts["focal_px"] == pytest.approx(FOCAL_PX, rel=0.1)


def test_trembling_is_told_before_and_after(tracked):
    facts = tracked[2]
    assert facts["jitter_after"]["rotation_deg"] < facts["jitter_before"]["rotation_deg"]
    assert facts["jitter_after"]["translation_mm"] < facts["jitter_before"]["translation_mm"]
    assert facts["texture_error"][-1] <= facts["texture_error"][0]
    json.dumps(facts)  # goes into the manifest


def test_nothing_half_written_is_left(tracked):
    layout, _, _ = tracked
    assert all((layout.root / name).is_file() for name in WRITTEN)
    assert not list(layout.root.glob(".*"))
