"""Cameras: the frames they declare, by hand-made numbers and by what must not change."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from gaussian_head.geometry.cameras import (
    GL_TO_CV,
    Camera,
    c2w_from_viewmat,
    intrinsics,
    project,
    scale_intrinsics,
    viewmat_from_c2w,
)

POINTS = np.array([[0.0, 0, 0], [0.1, 0.2, 0], [-0.05, 0.03, 0.1], [0.02, -0.11, -0.04]])


def some_c2w(count: int = 5) -> np.ndarray:
    rng = np.random.default_rng(0)
    c2w = np.tile(np.eye(4), (count, 1, 1))
    c2w[:, :3, :3] = Rotation.from_euler("yxz", rng.uniform(-0.4, 0.4, (count, 3))).as_matrix()
    c2w[:, :3, 3] = [0, 0, 1] + rng.uniform(-0.2, 0.2, (count, 3))
    return c2w


def facing() -> np.ndarray:
    """A camera one metre in front of the face, level with it."""
    c2w = np.eye(4)
    c2w[2, 3] = 1.0
    return viewmat_from_c2w(c2w)


def test_viewmat_and_c2w_are_inverse():
    c2w = some_c2w()
    np.testing.assert_allclose(c2w_from_viewmat(viewmat_from_c2w(c2w)), c2w, atol=1e-12)
    np.testing.assert_allclose(viewmat_from_c2w(c2w_from_viewmat(GL_TO_CV @ c2w)), GL_TO_CV @ c2w, atol=1e-12)


def test_viewmat_is_rigid_and_keeps_the_cameras_place():
    c2w = some_c2w()
    viewmats = viewmat_from_c2w(c2w)
    np.testing.assert_allclose(np.linalg.det(viewmats[:, :3, :3]), 1)
    seen_from_itself = np.einsum("tij,tj->ti", viewmats, c2w[:, :, 3])
    np.testing.assert_allclose(seen_from_itself, np.tile([0.0, 0, 0, 1], (5, 1)), atol=1e-12)


def test_right_up_and_nearer_are_where_a_person_sees_them():
    K = intrinsics(500.0, 640, 480)
    center, right, up, nearer = np.concatenate([[[0.0, 0, 0]], 0.1 * np.eye(3)])
    (c, r, u, _), depth = project(np.stack([center, right, up, nearer]), facing(), K)
    np.testing.assert_allclose(c, [320, 240])
    np.testing.assert_allclose(r, [370, 240])
    np.testing.assert_allclose(u, [320, 190])
    np.testing.assert_allclose(depth, [1, 1, 1, 0.9])


def test_projection_against_hand_numbers():
    pixels, depth = project(np.array([[0.1, 0.2, 0.0], [0.1, 0.2, 0.5]]), facing(), intrinsics(500.0, 640, 480))
    np.testing.assert_allclose(pixels, [[370, 140], [420, 40]])
    np.testing.assert_allclose(depth, [1, 0.5])


def test_projection_is_the_field_trackers():
    """u = -f X/Z + w/2, v = f Y/Z + h/2 with X_c = R X + t (specs/gaussian_head.md b.1)."""
    pose = np.linalg.inv(some_c2w(1)[0])
    x, y, z = (POINTS @ pose[:3, :3].T + pose[:3, 3]).T
    expected = np.stack([-700 * x / z + 160, 700 * y / z + 120], 1)
    pixels, depth = project(POINTS, GL_TO_CV @ pose, intrinsics(700.0, 320, 240))
    np.testing.assert_allclose(pixels, expected)
    np.testing.assert_allclose(depth, -z)


def test_many_views_at_once_are_each_alone():
    viewmats, K = viewmat_from_c2w(some_c2w()), intrinsics(300.0, 256, 256)
    points = np.broadcast_to(POINTS, (5, *POINTS.shape))
    together = project(points, viewmats, K)
    for t in range(5):
        for all_views, one in zip(together, project(POINTS, viewmats[t], K), strict=True):
            np.testing.assert_allclose(all_views[t], one)


def test_crop_shifts_and_resize_scales_the_picture():
    camera = Camera(viewmat_from_c2w(some_c2w(1)[0]), intrinsics(500.0, 640, 480), 640, 480)
    whole, _ = project(POINTS, camera.viewmat, camera.K)
    crop = camera.cropped(100, 60, 200, 160)
    np.testing.assert_allclose(project(POINTS, crop.viewmat, crop.K)[0], whole - [100, 60])
    small = crop.resized(50, 80)
    np.testing.assert_allclose(project(POINTS, small.viewmat, small.K)[0], (whole - [100, 60]) * [0.25, 0.5])
    assert (crop.width, crop.height, small.width, small.height) == (200, 160, 50, 80)
    np.testing.assert_array_equal(camera.K, intrinsics(500.0, 640, 480))  # untouched


def test_picture_centre_stays_the_centre_when_scaled():
    K = scale_intrinsics(intrinsics(500.0, 640, 480), 0.5, 0.25)
    np.testing.assert_allclose(K[:2, 2], [160, 60])
    np.testing.assert_allclose(np.diag(K), [250, 125, 1])


@pytest.mark.parametrize("index", range(5))
def test_a_corner_of_the_picture_stays_its_corner(index):
    camera = Camera(viewmat_from_c2w(some_c2w())[index], intrinsics(300.0, 256, 200), 256, 200)
    ray = np.linalg.inv(camera.K) @ [256, 200, 1]
    corner = (np.linalg.inv(camera.viewmat) @ np.append(0.8 * ray, 1))[None, :3]
    small = camera.resized(64, 50)
    np.testing.assert_allclose(project(corner, small.viewmat, small.K)[0], [[64, 50]])
