"""Coefficients that match their picture pass, others are told with how far they are off."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from face_models import make_face_model
from scipy.spatial.transform import Rotation

from gaussian_head.geometry.coefficients import FaceCoefficients
from gaussian_head.geometry.face_alignment import STANDARD_POINTS
from gaussian_head.geometry.face_model import FaceModel
from gaussian_head.networks.bfm import save_face_model
from gaussian_head.oneshot.first_frame import check_first_frame, warn_of_mismatch

WIDTH, HEIGHT = 640, 480
CROP = (0.8, 300.0, 250.0)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return make_face_model(rings=8)


def coefficients(angles: tuple[float, float, float] = (0.1, -0.2, 0.05), expression: float = 0.5) -> FaceCoefficients:
    vector = np.zeros((1, 257), np.float32)
    vector[0, :6] = 0.4
    vector[0, 80:85] = expression
    vector[0, 224:227], vector[0, 254:257] = angles, (0.05, -0.1, 0.3)
    return FaceCoefficients.from_vector(vector, np.float32([CROP]))


def seen_by(model: FaceModel, face: FaceCoefficients) -> np.ndarray:
    """Landmarks of the picture, each step by hand: turn, shift, project, and the way back from the aligned picture."""
    bases = model.identity_basis[..., :6], model.expression_basis[..., :5]
    shape = (
        model.mean_shape.numpy() + bases[0].numpy() @ face.identity[0, :6] + bases[1].numpy() @ face.expression[0, :5]
    )
    x, y, z = face.angles[0]
    points = shape[model.landmarks] @ Rotation.from_euler("xyz", (x, y, z)).as_matrix().T + face.translation[0]
    offset = 1015 * points[:, :2] / (10 - points[:, 2:])
    picture = np.array(CROP[1:]) + offset / CROP[0]
    return np.stack([picture[:, 0], HEIGHT - 1 - picture[:, 1]], 1) + 0.5


def test_matching_coefficients_pass(model: FaceModel) -> None:
    face = coefficients()
    landmarks = seen_by(model, face)
    exact = check_first_frame(face, landmarks, WIDTH, HEIGHT, model)
    assert exact.by_model
    assert exact.matches
    assert exact.error_px < 2.0  # the aligned picture begins at whole px
    noisy = check_first_frame(face, landmarks + RNG.normal(0, 2, (68, 2)), WIDTH, HEIGHT, model)
    assert noisy.matches
    assert noisy.error_px > exact.error_px


@pytest.mark.parametrize("other", [
    coefficients(angles=(0.1, 0.15, 0.05)), coefficients(angles=(-0.25, -0.2, 0.05)),
    coefficients(expression=-4.0), replace(coefficients(), crop=np.float32([[1.0, 300, 250]])),
    replace(coefficients(), crop=np.float32([[0.8, 330, 250]])),
])  # fmt: skip
def test_coefficients_of_another_frame_are_told(model: FaceModel, other: FaceCoefficients) -> None:
    found = check_first_frame(other, seen_by(model, coefficients()), WIDTH, HEIGHT, model)
    assert not found.matches
    assert f"{found.error_px:.1f} px" in found.told


def test_the_error_is_that_of_the_picture(model: FaceModel) -> None:
    """Shifted by 60 px, every point is 60 px off, whatever the picture's scale."""
    landmarks = seen_by(model, coefficients())
    found = check_first_frame(coefficients(), landmarks + (60, 0), WIDTH, HEIGHT, model)
    assert found.error_px == pytest.approx(60, abs=2)
    assert found.share == pytest.approx(found.error_px / np.linalg.norm(landmarks[16] - landmarks[0]), rel=1e-6)


def five_points_at(angles: tuple[float, float, float]) -> np.ndarray:
    flat = (STANDARD_POINTS * (1.1, 1, 1)) @ Rotation.from_euler("xyz", angles).as_matrix().T  # a broader face
    points = np.array(CROP[1:]) + flat[:, :2] * 102 / CROP[0]
    points = np.stack([points[:, 0], HEIGHT - 1 - points[:, 1]], 1) + 0.5
    landmarks = np.tile(points.mean(0), (68, 1))
    landmarks[[0, 16]] = points.mean(0) + [[-95.0, 0], [95, 0]]
    landmarks[[36, 39]], landmarks[[42, 45]] = points[0], points[1]
    landmarks[[30, 48, 54]] = points[2:]
    return landmarks


def test_without_a_model_place_and_turn_are_checked() -> None:
    face, landmarks = coefficients(), five_points_at((0.1, -0.2, 0.05))
    found = check_first_frame(face, landmarks, WIDTH, HEIGHT)
    assert found.matches
    assert not found.by_model
    assert "expression not checked" in found.told
    assert check_first_frame(coefficients(expression=4), landmarks, WIDTH, HEIGHT).matches
    for other in (
        coefficients(angles=(0.1, 0.5, 0.05)), replace(face, crop=np.float32([[0.8, 330, 250]])),
        replace(face, crop=np.float32([[1.3, 300, 250]])),
    ):  # fmt: skip
        assert not check_first_frame(other, landmarks, WIDTH, HEIGHT).matches
    unplaced = check_first_frame(replace(face, crop=None), landmarks, WIDTH, HEIGHT)
    assert unplaced.matches
    assert unplaced.error_px < found.error_px + 1


def test_the_warning_names_the_figure_and_the_picture(
    model: FaceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save_face_model(model, tmp_path / "bfm.safetensors")
    monkeypatch.setenv("GAUSSIAN_HEAD_BFM", str(tmp_path / "bfm.safetensors"))
    landmarks = seen_by(model, coefficients())
    with caplog.at_level(logging.WARNING):
        assert warn_of_mismatch(coefficients(), landmarks, WIDTH, HEIGHT, "a.png").by_model
        assert not caplog.records
        found = warn_of_mismatch(coefficients(angles=(0, 0.4, 0)), landmarks, WIDTH, HEIGHT, "a.png")
    assert [record.getMessage().startswith(f"a.png: {found.told}") for record in caplog.records] == [True]


def test_without_the_models_file_the_weaker_check_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("GAUSSIAN_HEAD_BFM", raising=False)
    monkeypatch.setenv("GAUSSIAN_HEAD_CHECKPOINTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    warn_of_mismatch(coefficients(angles=(0.1, 0.9, 0)), five_points_at((0.1, -0.2, 0.05)), WIDTH, HEIGHT, "a.png")
    assert "expression not checked" in caplog.text


def test_nothing_to_check_is_refused() -> None:
    with pytest.raises(ValueError, match="one frame at least"):
        check_first_frame(coefficients().take(slice(0)), np.zeros((68, 2)), WIDTH, HEIGHT)
