"""The morphable model's stage: its choice, and what it writes beside what the built-in tracker's tests ask for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from face_models import make_face_model

from data_utils.model_fit import ModelTrack, render
from data_utils.model_tracking import _on_surface
from data_utils.stages import build_stages
from data_utils.tracker_choice import choose_tracker
from data_utils.tracking import write_track
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.geometry.face_model import move, project
from gaussian_head.geometry.rotations import matrix_from_rotvec
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
