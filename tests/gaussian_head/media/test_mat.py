"""Coefficient files: fields, shapes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from gaussian_head.errors import UserError
from gaussian_head.geometry.coefficients import ANGLES, EXPRESSION, TRANSLATION, FaceCoefficients
from gaussian_head.media.mat import read_deep3d, read_sadtalker, write_deep3d, write_sadtalker

ROWS = np.arange(4 * 257, dtype=np.float32).reshape(4, 257)
TRANSFORMS = np.arange(20, dtype=np.float32).reshape(4, 5)


def test_deep3d_fields(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    write_deep3d(path, ROWS.astype(np.float64), TRANSFORMS)
    held = loadmat(path)
    assert {key for key in held if not key.startswith("__")} == {"coeff", "transform_params"}
    assert (held["coeff"].shape, held["coeff"].dtype) == ((4, 257), np.float32)
    assert (held["transform_params"].shape, held["transform_params"].dtype) == ((4, 5), np.float32)
    coefficients, transforms = read_deep3d(path)
    assert np.array_equal(coefficients, ROWS)
    assert np.array_equal(transforms, TRANSFORMS)


def test_sadtalker_fields(tmp_path: Path) -> None:
    path, face = tmp_path / "a.mat", FaceCoefficients.from_deep3d(ROWS, TRANSFORMS)
    write_sadtalker(path, *face.sadtalker())
    held = loadmat(path)
    assert (held["coeff_3dmm"].shape, held["full_3dmm"].shape) == ((4, 73), (1, 257))
    parts = np.split(read_sadtalker(path)[0], [64, 67, 70], 1)
    expected = ROWS[:, EXPRESSION], ROWS[:, ANGLES], ROWS[:, TRANSLATION], TRANSFORMS[:, 2:]
    assert all(np.array_equal(*pair) for pair in zip(parts, expected, strict=True))
    savemat(path, {"coeff_3dmm": face.motion(crop=False)})
    generated, first = read_sadtalker(path)
    assert generated.shape == (4, 70)
    assert first is None


@pytest.mark.parametrize(("content", "message"), [
    ({"x": ROWS}, r"must hold coeff \[frames, 257\]; it holds x"),
    ({"coeff": ROWS[:, :200], "transform_params": TRANSFORMS}, r"coeff \[frames, 257\], got \[4, 200\] of float32"),
    ({"coeff": ROWS, "transform_params": TRANSFORMS[:3]}, "coeff has 4 rows, transform_params 3"),
    ({"coeff": np.where(ROWS == 300, np.nan, ROWS), "transform_params": TRANSFORMS}, r"coeff of frame 1 \(of 1 such\)"),
    ({"coeff": "text", "transform_params": TRANSFORMS}, "must hold coeff"),
])  # fmt: skip
def test_other_content_is_refused(tmp_path: Path, content: dict, message: str) -> None:
    savemat(tmp_path / "a.mat", content)
    with pytest.raises(UserError, match=message):
        read_deep3d(tmp_path / "a.mat")


def test_damaged_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    write_deep3d(path, ROWS, TRANSFORMS)
    whole = path.read_bytes()
    for piece in (b"", b"<html>404</html>", whole[:200], whole[: len(whole) // 2]):
        path.write_bytes(piece)
        with pytest.raises(UserError, match=r"a\.mat is no readable \.mat file"):
            read_deep3d(path)
    with pytest.raises(FileNotFoundError):
        read_deep3d(tmp_path / "none.mat")
