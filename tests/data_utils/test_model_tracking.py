"""The morphable model's stage: its choice, and what it writes beside what the built-in tracker's tests ask for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from face_models import make_face_model

from data_utils import model_fit
from data_utils.model_fit import ModelTrack, render
from data_utils.model_tracking import _on_surface, track_head_by_model
from data_utils.stages import build_stages
from data_utils.tracker_choice import choose_tracker
from data_utils.tracking import write_track
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.geometry.cameras import intrinsics, viewmat_from_c2w
from gaussian_head.geometry.cameras import project as project_points
from gaussian_head.geometry.face_model import move, project
from gaussian_head.geometry.landmarks import MESH_TO_68
from gaussian_head.geometry.rotations import matrix_from_rotvec
from gaussian_head.media.image import write_jpeg
from gaussian_head.networks.bfm import save_face_model
from gaussian_head.networks.weights import WeightsMissingError

SIZE = (96, 128)


@pytest.fixture
def bfm_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GAUSSIAN_HEAD_CHECKPOINTS", str(tmp_path / "weights"))
    monkeypatch.delenv("GAUSSIAN_HEAD_BFM", raising=False)
    return tmp_path / "weights" / "bfm2009.safetensors"


def test_auto_takes_the_model_where_it_is(bfm_file: Path) -> None:
    assert choose_tracker("auto") == "canonical"
    with pytest.raises(WeightsMissingError, match="--tracker bfm needs bfm2009.safetensors.*convert_bfm"):
        choose_tracker("bfm")
    save_face_model(make_face_model(rings=3), bfm_file)
    assert choose_tracker("auto") == choose_tracker("bfm") == "bfm"
    assert choose_tracker("canonical") == "canonical"


def test_another_tracker_makes_the_stage_run_again(tmp_path: Path) -> None:
    layout = SubjectLayout(tmp_path)
    stages = [
        build_stages(layout, size=64, crop="none", extractor="mel", tracker=tracker)["tracking"]
        for tracker in ("canonical", "bfm")
    ]
    assert stages[0].options == {}  # as in folders made before there was a choice
    assert stages[1].options == {"tracker": "bfm"}
    assert stages[0].outputs == stages[1].outputs


def one_frame() -> tuple:
    model = make_face_model(rings=8)
    turn = matrix_from_rotvec(torch.tensor([[0.2, -0.3, 0.1]]))
    track = ModelTrack(
        300.0, torch.zeros(1, 6), torch.zeros(1, 5), turn, torch.tensor([[0.2, -0.1, -8.0]]), torch.zeros(1, 4),
        torch.zeros(1, 3, 9),
    )  # fmt: skip
    return model, track


def test_landmarks_are_laid_onto_the_surface() -> None:
    model, track = one_frame()
    chosen = torch.arange(478) % 90  # vertices of the face's middle, which nothing hides
    camera = move(model.mean_shape[None], track.rotations, track.translations)
    pixels = project(camera, track.focal_px, torch.tensor(SIZE) / 2)[0, chosen]
    landmarks = torch.cat([pixels, torch.zeros(478, 1)], 1).numpy()
    found = _on_surface(model, track, landmarks, SIZE)
    error = (found - model.mean_shape[chosen]).norm(dim=1)
    assert error.median() < 0.02  # decimetres: the depth is that of the nearest pixel's centre
    assert found.isfinite().all()


def test_landmarks_beside_the_model_get_a_depth_too() -> None:
    model, track = one_frame()
    found = _on_surface(model, track, np.zeros((478, 3), np.float32), SIZE)
    depth = move(found[None], track.rotations, track.translations)[0, 0, 2]
    _, _, drawn = render(model, track, SIZE, SIZE)
    assert -drawn.max() - 1e-3 <= depth <= -drawn[drawn > 0].min() + 1e-3


def test_the_models_coefficients_are_written(tmp_path: Path) -> None:
    from data_utils.face_track import FaceTrack

    track = FaceTrack(
        500.0, torch.zeros(478, 3), torch.zeros(0, 478, 3), torch.zeros(3, 0), torch.eye(3).expand(3, 3, 3).clone(),
        torch.tensor([[0.0, 0.0, -0.9]]).expand(3, 3).clone(),
    )  # fmt: skip
    layout, identity, expression = SubjectLayout(tmp_path), torch.randn(1, 6), torch.randn(3, 5)
    write_track(layout, track, np.ones(3, bool), SIZE, identity, expression)
    params = torch.load(layout.track_params, weights_only=True)
    assert params["id"].shape == (1, 100)
    assert torch.equal(params["id"][:, :6], identity)
    assert torch.equal(params["exp"][:, :5], expression)
    assert not params["exp"][:, 5:].any()
    torch.testing.assert_close(params["trans"][0], torch.tensor([0.0, 0.0, -9.0]))


@pytest.mark.slow
def test_stage_writes_the_contract(bfm_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With few steps, so that only the form is judged here: what is found is judged in test_model_fit."""
    for name, steps in (("START", 10), ("KEY", 40), ("POSE", 20), ("LIGHT", 6), ("REFINE", 2)):
        monkeypatch.setattr(model_fit, f"{name}_STEPS", steps)
    model, frames, missing = make_face_model(rings=8), 6, 3
    save_face_model(model, bfm_file)
    turns = matrix_from_rotvec(torch.linspace(-0.3, 0.3, frames)[:, None] * torch.tensor([0.3, 1.0, 0.1]))
    truth = ModelTrack(
        300.0, torch.zeros(1, 6), torch.linspace(-1, 1, frames)[:, None].expand(-1, 5),
        turns, torch.tensor([0.1, -0.1, -8.0]).expand(frames, 3), torch.zeros(1, 4), torch.zeros(frames, 3, 9),
    )  # fmt: skip
    colors, shown, _ = render(model, truth, SIZE, SIZE)
    layout = SubjectLayout(tmp_path / "somebody")
    for k in range(frames):
        picture = torch.where(shown[k, ..., None], colors[k], torch.full_like(colors[k], 0.3))
        write_jpeg(layout.frame(k), (255 * picture.clamp(0, 1)).round().byte().numpy())
    vertices = torch.arange(478) % 127
    vertices[MESH_TO_68] = model.landmarks
    camera = move(model.shape(truth.identity, truth.expression), truth.rotations, truth.translations)
    pixels = project(camera, truth.focal_px, torch.tensor(SIZE) / 2)[:, vertices]
    landmarks = torch.cat([pixels, torch.zeros(frames, 478, 1)], 2).numpy()
    landmarks[missing] = np.nan
    np.save(layout.mesh_landmarks, landmarks)

    facts = track_head_by_model(layout)
    json.dumps(facts)
    assert facts["invalid_frames"] == [missing]
    points = np.load(layout.landmarks_3d)
    assert points.shape == (frames, 478, 3)
    assert np.flatnonzero(~np.load(layout.landmarks_3d_valid)).tolist() == [missing]
    params = torch.load(layout.track_params, weights_only=True)
    assert {name: tuple(value.shape) for name, value in params.items()} == {
        "id": (1, 100), "exp": (frames, 79), "euler": (frames, 3), "trans": (frames, 3), "focal": (1,),
    }  # fmt: skip
    documents = [json.loads(layout.transforms(split).read_text()) for split in ("train", "val")]
    entries = [entry for document in documents for entry in document["frames"]]
    assert [entry["img_id"] for entry in entries] == [k for k in range(frames) if k != missing]
    K = intrinsics(documents[0]["focal_len"], *SIZE)
    for entry in entries:
        viewmat = viewmat_from_c2w(np.array(entry["transform_matrix"]))
        found, depth = project_points(points[entry["img_id"]].astype(np.float64), viewmat, K)
        assert (depth > 0.3).all()
        assert np.linalg.norm(found - landmarks[entry["img_id"], :, :2], axis=1).mean() < 1.5
