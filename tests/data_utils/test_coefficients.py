"""The coefficient command on folders of frames: order, batches, frames without a face, files written."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_person import DrawnPerson

from data_utils.coefficients import CoefficientOptions, extract_coefficients, open_source, run
from gaussian_head.errors import UserError
from gaussian_head.geometry.landmarks import MESH_TO_68
from gaussian_head.media.image import write_png
from gaussian_head.media.mat import read_deep3d, read_sadtalker
from gaussian_head.networks.coefficient_regressor import CoefficientRegressor


class Toy(CoefficientRegressor):
    """Stands in for the regressor where its answer does not matter: means over parts of the picture."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(faces, (8, 11)).flatten(1)[:, :257]


def write_frames(root: Path, count: int, missing: tuple[int, ...] = ()) -> Path:
    person = DrawnPerson(frames=count)
    layout = person.write(root, missing=missing)
    for k in set(person) - set(missing):
        np.savetxt(layout.landmarks68(k), person.landmarks(k)[MESH_TO_68, :2])
    return layout.root


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Write a subject folder of 12 frames with landmarks, none of frame 3."""
    return write_frames(tmp_path / "subject", 12, missing=(3,))


def test_rows_follow_the_frames_whatever_the_batch(frames: Path) -> None:
    network = Toy()
    coefficients, transforms = extract_coefficients(frames, network, batch=5)
    assert coefficients.shape == (12, 257)
    assert transforms.shape == (12, 5)
    assert np.abs(np.diff(coefficients, axis=0)).max(1).min() > 1e-3
    again, _ = extract_coefficients(frames / "ori_imgs", network, batch=12)
    assert np.allclose(coefficients, again, atol=1e-6)
    for k in (2, 10):  # "10.jpg" sorts before "2.jpg" by name
        alone = shutil.copytree(frames / "ori_imgs", frames / f"only {k}", ignore=lambda _, names, k=k: [
            name for name in names if Path(name).stem != str(k)
        ])  # fmt: skip
        assert np.allclose(extract_coefficients(alone, network)[0][0], coefficients[k], atol=1e-6)


def test_a_frame_without_a_face_is_cut_as_its_neighbour(frames: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, transforms = extract_coefficients(frames, Toy())
    assert np.array_equal(transforms[3], transforms[2])
    assert not np.array_equal(transforms[4], transforms[2])
    assert "1 of 12 pictures show no face" in caplog.text


def test_files_of_both_layouts(tmp_path: Path) -> None:
    frames, weights = write_frames(tmp_path / "subject", 2), tmp_path / "epoch_20.pth"
    torch.manual_seed(4)
    torch.save({"net_recon": CoefficientRegressor().state_dict()}, weights)
    out = run(CoefficientOptions(frames, weights=weights))
    assert out == frames.with_suffix(".mat")
    coefficients, transforms = read_deep3d(out)
    out = run(CoefficientOptions(frames, out=tmp_path / "b.mat", layout="sadtalker", weights=weights))
    motion, first = read_sadtalker(out)
    assert np.array_equal(motion[:, -3:], transforms[:, 2:])
    assert np.array_equal(first, coefficients[:1])


def test_bad_sources_are_told(frames: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no picture"):
        open_source(tmp_path / "empty")
    (frames / "ori_imgs" / "5.lms").write_text("1 2\n3 4\n")
    with pytest.raises(UserError, match=r"5\.lms must hold 68 lines"):
        extract_coefficients(frames, Toy())
    with pytest.raises(UserError, match=r"--out must end in \.mat"):
        run(CoefficientOptions(frames, out=tmp_path / "a.npy"))
    with pytest.raises(UserError, match="needs epoch_20.pth, see scripts/prepare.sh"):
        run(CoefficientOptions(frames))


def test_a_picture_without_a_face_is_told(tmp_path: Path) -> None:
    pytest.importorskip("mediapipe")
    write_png(tmp_path / "grey.png", np.full((64, 64, 3), 128, np.uint8))
    with pytest.raises(UserError, match="no face found in .*grey.png"):
        extract_coefficients(tmp_path / "grey.png", Toy())
