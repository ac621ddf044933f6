"""OpenFace's CSV: versions, several faces, failed and missing frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gaussian_head.errors import UserError
from gaussian_head.media.openface import read_frames

UNITS = (1, 45)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "au.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("header", [
    "frame, face_id, timestamp, confidence, success, AU01_r, AU45_r",  # OpenFace 2.0
    "frame,face_id,timestamp,confidence,success,AU01_r,AU45_r",  # 2.2
    "\ufeffframe,face_id,timestamp,confidence,success,AU01_r,AU45_r",
])  # fmt: skip
def test_versions_of_the_header(tmp_path: Path, header: str) -> None:
    path = written(tmp_path, header + "\n1, 0, 0.0, 0.98, 1, 0.5, 1.5\n2, 0, 0.04, 0.98, 1, 0.7, 2.5\n")
    found = read_frames(path, UNITS)
    assert np.array_equal(found.intensities, [[0.5, 1.5], [0.7, 2.5]])
    assert (found.faces, found.failed.any()) == (1, False)


def test_the_first_version_has_no_face_id_and_a_bare_table_no_frames(tmp_path: Path) -> None:
    first = "frame, timestamp, confidence, success, AU01_r, AU45_r\n1, 0, 0.9, 1, 1, 2\n2, 0, 0.9, 1, 3, 4\n"
    for text in (first, "AU45_r,AU01_r\n2,1\n4,3\n"):
        assert np.array_equal(read_frames(written(tmp_path, text), UNITS).intensities, [[1, 2], [3, 4]])


def test_failed_and_missing_frames_are_interpolated(tmp_path: Path) -> None:
    rows = ["frame,confidence,success,AU01_r,AU45_r", "1,0.9,1,1,0", "2,0.1,0,0,0", "4,0.9,1,4,3", "5,0.0,0,0,0"]
    found = read_frames(written(tmp_path, "\n".join(rows)), UNITS)
    assert found.failed.tolist() == [False, True, True, False, True]
    assert np.allclose(found.intensities[:, 0], [1, 2, 3, 4, 4])
    rows = ["frame,confidence,AU01_r,AU45_r", "0,0.9,1,0", "1,0.3,9,9", "2,0.8,3,0"]  # no success: confidence decides
    assert np.allclose(read_frames(written(tmp_path, "\n".join(rows)), UNITS).intensities[:, 0], [1, 2, 3])


def test_of_several_faces_the_surest_is_taken(tmp_path: Path) -> None:
    rows = ["frame, face_id, confidence, success, AU01_r, AU45_r"]
    for k in range(1, 5):
        rows += [f"{k}, 0, 0.60, 1, 9, 9", f"{k}, 1, 0.95, 1, {k}, 0"]
    rows.append("5, 0, 0.6, 1, 9, 9")
    found = read_frames(written(tmp_path, "\n".join(rows)), UNITS)
    assert found.faces == 2
    assert found.intensities[:, 0].tolist() == [1, 2, 3, 4, 4]
    assert found.failed.tolist() == [False] * 4 + [True]


@pytest.mark.parametrize(("rows", "message"), [
    (["1,0.9,0,1,1", "2,0.9,0,1,1"], "found a face in none of 2 frames"),
    (["1.5,0.9,1,1,1"], "must hold whole numbers"),
    (["x,0.9,1,1,1", "2,0.9,1,1,1"], "must hold whole numbers"),
    (["900000000,0.9,1,1,1"], "has 1 rows and a frame 900000000"),
])  # fmt: skip
def test_nonsense_is_told(tmp_path: Path, rows: list[str], message: str) -> None:
    path = written(tmp_path, "\n".join(["frame,confidence,success,AU01_r,AU45_r", *rows]))
    with pytest.raises(UserError, match=message):
        read_frames(path, UNITS)
