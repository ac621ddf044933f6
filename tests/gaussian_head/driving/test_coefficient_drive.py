"""Face coefficients that move a head: by a face model, or as the subject's own coefficients tell."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flat_face import mesh
from scipy.io import savemat
from scipy.spatial.transform import Rotation

from gaussian_head.data.layout import SubjectLayout
from gaussian_head.data.subject import Subject
from gaussian_head.driving.coefficients import load_coefficient_driver, poses_of
from gaussian_head.driving.retarget import retarget
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.errors import UserError
from gaussian_head.geometry.coefficients import FaceCoefficients
from gaussian_head.geometry.face_model import FaceModel
from gaussian_head.geometry.landmarks import MESH_TO_68, mouth_aperture
from gaussian_head.media.mat import write_deep3d
from gaussian_head.media.video import VideoWriter
from gaussian_head.networks.bfm import save_face_model
from gaussian_head.networks.weights import WeightsMissingError, find_weights

RNG = np.random.default_rng(3)
TIME = np.arange(60) / 25
OPENINGS = 0.008 * (1 - np.cos(2 * np.pi * 1.7 * TIME)) / 2 * (0.6 + 0.4 * np.sin(2 * np.pi * 0.4 * TIME))
"""Of the drive, metres: none of the footage's."""
CLOSED_M = 0.002
"""How far the footage's lips are apart when they touch."""
ANGLES = np.stack([0.05 * np.sin(TIME * 2), 0.08 * np.cos(TIME * 1.5), 0.03 * np.sin(TIME)], 1)
ELSEWHERE = np.float32(RNG.standard_normal(64)) * 0.2
OPENS_BY = np.float32(RNG.standard_normal(64))
"""What the made-up regressor's 64 numbers do when a mouth opens by a centimetre."""


def coefficients(opening_m: np.ndarray, angles: np.ndarray | None = None) -> FaceCoefficients:
    """What the made-up regressor says of a face: noise of its own, and no trace of who it is."""
    frames = len(opening_m)
    vector = np.zeros((frames, 257), np.float32)
    vector[:, 80:144] = ELSEWHERE + opening_m[:, None] / 0.01 * OPENS_BY
    vector[:, 80:144] += RNG.normal(0, 0.05, (frames, 64))
    vector[:, 224:227] = 0 if angles is None else angles
    return FaceCoefficients.from_vector(vector, np.tile(np.float32([1.0, 112, 112]), (frames, 1)))


def save(path: Path, face: FaceCoefficients) -> Path:
    write_deep3d(path, *face.deep3d())
    return path


@pytest.fixture
def subject(tiny_subject: Path, tmp_path: Path) -> Subject:
    """The tiny person in a folder of its own, beside which files may be put."""
    shutil.copytree(tiny_subject, tmp_path / "data" / "tiny")
    return Subject(tmp_path / "data" / "tiny", 64)


@pytest.fixture
def footage(subject: Subject) -> DrivingSequence:
    return DrivingSequence.from_subject(subject, subject.train)


@pytest.fixture
def without_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GAUSSIAN_HEAD_CHECKPOINTS", str(tmp_path / "none"))
    monkeypatch.delenv("GAUSSIAN_HEAD_BFM", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsMissingError):
        find_weights("bfm", None)


@pytest.fixture
def own_coefficients(subject: Subject, without_model: None) -> Path:
    return save(subject.layout.coefficients, coefficients(mouth_aperture(subject.landmarks.numpy())))


@pytest.fixture
def with_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FaceModel:
    """A model of another person, larger and tilted, whose second expression opens the mouth."""
    closed, tilt = mesh(0.0), Rotation.from_rotvec([0.15, 0, 0]).as_matrix()

    def tensor(points: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(points @ tilt.T * (1.1, 1.1, 1.1) * 10).float()

    moves = torch.zeros(478, 3, 3)
    moves[..., 1] = tensor(mesh(0.01)) - tensor(closed)
    moves[MESH_TO_68[17:27], 1, 2] = 0.05  # the third lifts the brows
    none = torch.zeros(478, 3, 0)
    model = FaceModel(
        tensor(closed), none, moves, torch.full((478, 3), 0.5), none, torch.zeros(1, 3, dtype=torch.int64),
        torch.zeros(478, 1, dtype=torch.int64), torch.from_numpy(MESH_TO_68),
    )  # fmt: skip
    save_face_model(model, tmp_path / "bfm.safetensors")
    monkeypatch.setenv("GAUSSIAN_HEAD_BFM", str(tmp_path / "bfm.safetensors"))
    return model


def of_model(opening_m: np.ndarray, angles: np.ndarray | None = None) -> FaceCoefficients:
    face = coefficients(0 * opening_m, angles)
    expression = np.zeros((len(opening_m), 64), np.float32)
    expression[:, 1] = opening_m / 0.01
    return replace(face, expression=expression)


def turns(viewmats: torch.Tensor) -> Rotation:
    """Turns about the mean pose, along the camera's axes."""
    rotations = Rotation.from_matrix(viewmats[:, :3, :3].double().numpy())
    return rotations * rotations.mean().inv()


def check(driver: DrivingSequence, footage: DrivingSequence) -> None:
    moved = DrivingSequence.join(list(retarget(driver, footage, own_face=True)))
    opening = mouth_aperture(moved.landmarks.numpy())
    assert np.corrcoef(opening, OPENINGS)[0, 1] > 0.95
    assert np.ptp(opening) == pytest.approx(np.ptp(OPENINGS), rel=0.1)
    own = mouth_aperture(footage.landmarks.numpy())
    assert own.min() - 5e-4 < opening.min() < opening.max() < own.max() + 5e-4
    assert float((moved.landmarks - footage.landmarks.mean(0)).abs().amax()) < 0.015
    cv = np.diag([1.0, -1, -1])
    wanted = np.stack([cv @ r for r in (Rotation.from_euler("xyz", ANGLES).as_matrix())])
    far = (turns(moved.viewmats) * turns(torch.from_numpy(wanted)).inv()).magnitude()
    assert np.degrees(far).max() < 0.5


def test_the_face_model_moves_the_head(
    subject: Subject, footage: DrivingSequence, with_model: FaceModel, tmp_path: Path
) -> None:
    path = save(tmp_path / "drive.mat", of_model(OPENINGS, ANGLES))
    driver = load_coefficient_driver(path, footage, subject.layout)
    check(driver, footage)
    closed = load_coefficient_driver(save(path, of_model(np.zeros(3))), footage, subject.layout)
    own = mouth_aperture(footage.landmarks.numpy())
    assert mouth_aperture(closed.landmarks.numpy()).max() < own.min() + 1e-4


def test_the_subjects_own_coefficients_move_the_head(
    subject: Subject, footage: DrivingSequence, own_coefficients: Path, tmp_path: Path
) -> None:
    path = save(tmp_path / "drive.mat", coefficients(OPENINGS + CLOSED_M, ANGLES))
    check(load_coefficient_driver(path, footage, subject.layout), footage)


def test_files_of_sadtalker_drive_alike(
    subject: Subject, footage: DrivingSequence, own_coefficients: Path, tmp_path: Path
) -> None:
    face = coefficients(OPENINGS, ANGLES)
    driver = load_coefficient_driver(save(tmp_path / "a.mat", face), footage, subject.layout)
    savemat(tmp_path / "b.mat", {"coeff_3dmm": face.motion(crop=False)})
    other = load_coefficient_driver(tmp_path / "b.mat", footage, subject.layout)
    for name, part in driver.parts().items():
        assert torch.allclose(part, getattr(other, name), atol=1e-5), name


def test_thirty_frames_a_second_are_retimed(
    subject: Subject, footage: DrivingSequence, own_coefficients: Path, tmp_path: Path
) -> None:
    path = save(tmp_path / "drive.mat", coefficients(OPENINGS))
    driver = load_coefficient_driver(path, footage, subject.layout, 30)
    assert len(driver) == 50
    at = np.interp(np.arange(50) / 25, np.arange(60) / 30, OPENINGS)
    assert np.corrcoef(mouth_aperture(driver.landmarks.numpy()), at)[0, 1] > 0.95
    with VideoWriter(tmp_path / "drive.mp4", 30, 16, 16) as writer:
        for _ in range(3):
            writer.write(np.zeros((16, 16, 3), np.uint8))
    assert len(load_coefficient_driver(path, footage, subject.layout)) == 50
    assert len(load_coefficient_driver(path, footage, subject.layout, 25)) == 60


def test_what_is_missing_is_told(
    subject: Subject, footage: DrivingSequence, without_model: None, tmp_path: Path
) -> None:
    path = save(tmp_path / "drive.mat", coefficients(OPENINGS))
    with pytest.raises(UserError, match=r"data_utils\.coefficients .*tiny -- or: .*bfm"):
        load_coefficient_driver(path, footage, subject.layout)


def useless(face: FaceCoefficients) -> FaceCoefficients:
    return replace(face, expression=np.float32(RNG.standard_normal(face.expression.shape)))


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda face: face.take(slice(30)), r"coefficients of 30 frames, the footage has 80 or more"),
    (useless, r"does not tell how far this subject's mouth is open"),
])  # fmt: skip
def test_other_coefficients_are_refused(
    subject: Subject, footage: DrivingSequence, own_coefficients: Path, tmp_path: Path,
    spoil: Callable[[FaceCoefficients], FaceCoefficients], message: str,
) -> None:  # fmt: skip
    save(own_coefficients, spoil(coefficients(mouth_aperture(subject.landmarks.numpy()))))
    with pytest.raises(UserError, match=message):
        load_coefficient_driver(save(tmp_path / "drive.mat", coefficients(OPENINGS)), footage, subject.layout)


def test_poses_are_those_of_the_whole_picture() -> None:
    """A head that moves through the picture, cut out anew in each frame, moves as it does."""
    face = coefficients(np.zeros(3))
    vector = face.vector()
    vector[:, 254:257] = [[0, 0, 0], [0.1, -0.2, 0], [0, 0, 0]]
    crop = np.float32([[1, 100, 80], [1, 100, 80], [1.25, 130, 60]])
    place = poses_of(FaceCoefficients.from_vector(vector, crop))[:, :3, 3].numpy()
    assert place[0] == pytest.approx([0, 0, 1.0], abs=1e-6)  # OpenCV: before the camera
    assert place[1] - place[0] == pytest.approx([0.01, 0.02, 0], abs=1e-6)
    assert place[2] == pytest.approx([1.25 * 30 / 1015, 1.25 * 20 / 1015, 1.25], abs=1e-6)


def test_the_layout_names_the_file_that_the_front_end_writes() -> None:
    assert SubjectLayout(Path("/data/may")).coefficients == Path("/data/may.mat")
