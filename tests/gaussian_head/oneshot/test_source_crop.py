"""The square that a renderer sees: where it lies, what it shows, and that it is told in the original's px."""

from __future__ import annotations

import numpy as np
import pytest
from portraits import face_points, smooth_picture

from gaussian_head.oneshot.source.crop import Box, choose_box, cut, face_square, reference_crop


def sides(box: Box) -> np.ndarray:
    return np.array([box.left, box.top, box.right, box.bottom])


@pytest.mark.parametrize("turn_deg", [0.0, 20.0, -35.0])
def test_the_square_is_ffhqs(turn_deg: float) -> None:
    points = face_points(400, 300, 100, turn_deg)
    corners = face_square(points)
    edges = np.roll(corners, -1, 0) - corners
    lengths = np.linalg.norm(edges, axis=1)
    assert np.allclose(lengths, lengths[0])
    assert abs(edges[0] @ edges[1]) < 1e-6
    # 4 times the distance of the eyes, or 3.6 times that from eyes to mouth: here 0.55 of 100 px
    assert lengths[0] == pytest.approx(max(4 * 40, 3.6 * 55))
    down = np.array([-np.sin(np.radians(turn_deg)), np.cos(np.radians(turn_deg))])
    assert np.allclose(corners.mean(0), (400, 300) + 5.5 * down)
    box = choose_box(points, 800, 700, "crop")
    assert box.width == box.height
    assert np.abs(sides(box) - [*corners.min(0), *corners.max(0)]).max() <= 1


def test_the_box_follows_the_face() -> None:
    box, moved = (choose_box(face_points(x, y, 100), 800, 700, "full") for x, y in ((400, 300), (437, 278)))
    assert (sides(moved) - sides(box)).tolist() == [37, -22, 37, -22]
    wide = choose_box(face_points(400, 300, 100), 800, 700, "extfull")
    assert wide.width == box.width + 2 * round(0.1 * 198)
    assert choose_box(face_points(400, 300, 100), 800, 700, "resize") == Box(0, -50, 800, 750)
    assert choose_box(face_points(400, 300, 100), 800, 700, "resize", "clamp") == Box(0, 0, 800, 700)


def test_a_large_face_is_told_in_the_originals_px() -> None:
    width, height, points = 6000, 5000, face_points(3000, 2300, 1400)
    theirs, ours = reference_crop(points, width, height), choose_box(points, width, height, "crop")
    assert (theirs.width, theirs.height) == (3000, 2500)  # shrunk to a half: pasted there, the face would be lost
    assert np.abs(sides(ours) - 2 * sides(theirs.inner)).max() <= 4


@pytest.mark.parametrize("border", ["pad", "clamp"])
def test_landmarks_lie_where_the_crop_shows_them(border: str) -> None:
    points = face_points(70, 120, 90)
    picture = np.zeros((400, 300, 3), np.uint8)
    spots = np.floor(points[[8, 30, 36, 45]]).astype(int)
    for x, y in spots:
        picture[y - 2 : y + 3, x - 2 : x + 3] = 255
    box = choose_box(points, 300, 400, "crop", border)
    assert (box.left < 0) == (border == "pad")
    crop = cut(picture, box, 128)
    y, x = np.nonzero(crop[..., 0] > 60)
    for place in box.to_crop(spots + 0.5, 128):
        near = np.hypot(x + 0.5 - place[0], y + 0.5 - place[1]) < 8
        weight = crop[y[near], x[near], 0].astype(float)
        seen = np.average(x[near] + 0.5, weights=weight), np.average(y[near] + 0.5, weights=weight)
        assert np.abs(seen - place).max() < 0.3


def test_beyond_the_picture_its_edge_is_repeated() -> None:
    picture = smooth_picture(60, 50)
    crop = cut(picture, Box(-10, -20, 70, 60), 80)
    assert np.array_equal(crop[20:70, 10:70], picture)
    assert np.array_equal(crop[:20, 10:70], np.broadcast_to(picture[0], (20, 60, 3)))
    assert np.array_equal(crop[20:70, 70:], np.broadcast_to(picture[:, -1:], (50, 10, 3)))
    with pytest.raises(ValueError, match="lies outside of the picture of 60 x 50 px"):
        cut(picture, Box(60, 0, 90, 30), 80)
