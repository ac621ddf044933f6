"""The index tables of the face: sizes, ranges, and that they agree with each other."""

from __future__ import annotations

import numpy as np
import pytest

from gaussian_head.geometry import landmarks as face

LOOPS = {
    "FACE_OVAL": 36, "JAW_LINE": 21, "OUTER_LIPS": 20, "INNER_LIPS": 20, "RIGHT_EYE": 16, "LEFT_EYE": 16,
    "RIGHT_BROW": 10, "LEFT_BROW": 10, "RIGHT_IRIS": 5, "LEFT_IRIS": 5, "RIGID": 38,
}  # fmt: skip


@pytest.mark.parametrize("name", LOOPS)
def test_table_names_each_point_once(name):
    table = getattr(face, name)
    assert len(table) == len(set(table.tolist())) == LOOPS[name]
    assert 0 <= table.min() <= table.max() < face.MESH_POINTS


def test_68_points_are_material_points_of_the_skin():
    assert face.MESH_TO_68.shape == (68,)
    assert len(set(face.MESH_TO_68.tolist())) == 68
    assert 0 <= face.MESH_TO_68.min() <= face.MESH_TO_68.max() < 468  # no iris


@pytest.mark.parametrize(
    ("part", "table"),
    [
        (face.JAW_68, "FACE_OVAL"), (slice(17, 22), "RIGHT_BROW"), (slice(22, 27), "LEFT_BROW"),
        (slice(36, 42), "RIGHT_EYE"), (slice(42, 48), "LEFT_EYE"), (face.OUTER_LIPS_68, "OUTER_LIPS"),
        (face.INNER_LIPS_68, "INNER_LIPS"),
    ],
)  # fmt: skip
def test_parts_of_the_68_lie_on_the_meshs_loops(part, table):
    points = face.MESH_TO_68[part]
    loop = getattr(face, table)
    if table.endswith("BROW"):  # the tables' ends differ by a point
        assert np.isin(points, loop).sum() >= 4
    else:
        assert np.isin(points, loop).all()


def test_speech_points_are_lips_and_chin():
    assert len(face.SPEECH_68) == 29
    assert set(range(68)[face.LIPS_68]) < set(face.SPEECH_68.tolist())
    assert max(set(face.SPEECH_68.tolist()) - set(range(68)[face.LIPS_68])) <= 16


def test_jaw_line_is_the_lower_part_of_the_oval():
    assert np.isin(face.JAW_LINE, face.FACE_OVAL).all()
    assert 152 in face.JAW_LINE
    assert 10 not in face.JAW_LINE


def test_left_and_right_share_no_point():
    for part in ("EYE", "BROW", "IRIS"):
        assert not np.isin(getattr(face, f"LEFT_{part}"), getattr(face, f"RIGHT_{part}")).any()


def test_inner_lip_points_belong_to_the_inner_lips():
    for points in (face.UPPER_INNER_LIP, face.LOWER_INNER_LIP, face.MOUTH_CORNERS):
        assert np.isin(points, face.INNER_LIPS).all()


def test_conditioning_action_units_are_openfaces():
    assert set(face.EXPRESSION_ACTION_UNITS) < set(face.OPENFACE_ACTION_UNITS)
    assert list(face.OPENFACE_ACTION_UNITS) == sorted(face.OPENFACE_ACTION_UNITS)


def test_mouth_aperture_is_the_gap_of_the_inner_lips():
    landmarks = np.zeros((3, 478, 2))
    for frame, gap in enumerate((0.0, 2.0, 5.0)):
        landmarks[frame, face.LOWER_INNER_LIP, 1] = gap
    np.testing.assert_allclose(face.mouth_aperture(landmarks), [0, 2, 5])
    assert face.mouth_aperture(landmarks[2]) == 5
