"""The five-point alignment: where a face lands, and that cutting equals resizing the whole picture."""

from __future__ import annotations

import numpy as np
import pytest

from gaussian_head.geometry.face_alignment import STANDARD_POINTS, align_points, cut_aligned, fit_alignment, five_points


def face_at(x: float, y: float, unit_px: float) -> np.ndarray:
    """Return 68 points of which those that count are the standard face seen straight on; (x, y) is its middle."""
    flat = STANDARD_POINTS[:, :2] * (unit_px, -unit_px) + (x, y)
    landmarks = np.full((68, 2), np.nan)
    landmarks[[36, 39]], landmarks[[42, 45]] = flat[0], flat[1]
    landmarks[[30, 48, 54]] = flat[2:]
    return landmarks


def test_a_standard_face_is_found_where_it_is() -> None:
    transform = fit_alignment(face_at(130, 90, 51.0), 300, 200)
    assert transform.dtype == np.float32
    assert transform == pytest.approx([300, 200, 2.0, 130, 199 - 90], abs=1e-3)


def test_aligned_points_lie_around_the_middle_at_the_standard_size() -> None:
    landmarks = face_at(130.3, 91.2, 37.0)
    points = five_points(align_points(landmarks, fit_alignment(landmarks, 300, 200)))
    assert np.abs(points - (112 + 102 * STANDARD_POINTS[:, :2])).max() < 1.0  # sizes and cut are whole px


def test_points_without_extent_are_refused() -> None:
    with pytest.raises(ValueError, match="without extent"):
        fit_alignment(np.full((68, 2), 5.0), 300, 200)


@pytest.mark.parametrize(("width", "height", "scale", "x", "y"), [
    (640, 480, 0.5, 300, 250), (512, 512, 0.45, 256, 256), (200, 300, 0.9, 50, 290), (120, 90, 2.5, 60, 45),
])  # fmt: skip
def test_cutting_equals_pillow(width: int, height: int, scale: float, x: float, y: float) -> None:
    image_module = pytest.importorskip("PIL.Image")
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    resized = int(width * scale), int(height * scale)
    left = int(resized[0] / 2 - 112 + (x - width / 2) * scale)
    up = int(resized[1] / 2 - 112 + (height / 2 - y) * scale)
    whole = image_module.fromarray(picture).resize(resized, image_module.Resampling.BICUBIC)
    expected = np.asarray(whole.crop((left, up, left + 224, up + 224)))
    found = cut_aligned(picture, np.array([width, height, scale, x, y]))
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_a_face_outside_the_picture_is_black() -> None:
    picture = np.full((90, 120, 3), 200, np.uint8)
    assert not cut_aligned(picture, np.array([120, 90, 1.0, 900, 45])).any()
