"""A z-buffer triangle rasterizer in numpy, made for many small triangles."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

_ROUNDING = np.float32(1e-4)
"""Barycentric coordinates may be this far below zero, so that no crack opens between neighbours."""


def rasterize(
    xy: Float[ndarray, "N 2"], depth: Float[ndarray, "N"], faces: Int[ndarray, "M 3"], width: int, height: int
) -> tuple[Int[ndarray, "P"], Int[ndarray, "P"], Float[ndarray, "P 3"]]:
    """Find the nearest front-facing triangle of every covered pixel.

    Every triangle tries the pixels of its bounding box at once; the nearest depth wins. Interpolation is linear in
    the picture, which for triangles of a few pixels is as good as perspective-correct.

    Args:
        xy: Vertices in px, y down, the centre of pixel (j, i) at (j + 0.5, i + 0.5).
        depth: Distance along the viewing direction.
        faces: Triangles, counter-clockwise as seen from their outside with y up.
        width: Picture width in px.
        height: Picture height in px.

    Returns:
        Flat pixel numbers, increasing; the face of each; its barycentric coordinates there.
    """
    xy, depth = xy.astype(np.float32), depth.astype(np.float32)
    corner = xy.take(faces[:, 0], 0)
    first, second = xy.take(faces[:, 1], 0) - corner, xy.take(faces[:, 2], 0) - corner
    area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]  # negative: facing us (y is down)
    kept = np.flatnonzero(area < -1e-9)
    corner, first, second, area = corner[kept], first[kept], second[kept], area[kept]
    low, size = _boxes(corner, first, second, width, height)
    tri, dx, dy = _box_pixels(size)
    x, y = dx.astype(np.float32), dy.astype(np.float32)
    origin = low + np.float32(0.5) - corner  # first pixel centre relative to the first corner
    b = _linear(second[:, 1] / area, -second[:, 0] / area, origin, tri, x, y)
    c = _linear(-first[:, 1] / area, first[:, 0] / area, origin, tri, x, y)
    inside = np.flatnonzero((b >= -_ROUNDING) & (c >= -_ROUNDING) & (b + c <= 1 + _ROUNDING))
    tri, b, c = tri[inside], b[inside], c[inside]
    start = (low[:, 1] * width + low[:, 0]).astype(np.int32)
    pixel = start.take(tri) + dy[inside] * np.int32(width) + dx[inside]
    z = [depth.take(faces[kept, i]).take(tri) for i in range(3)]
    return _nearest(pixel, z[0] * (1 - b - c) + z[1] * b + z[2] * c, kept[tri], b, c, width * height)


def _boxes(corner: ndarray, first: ndarray, second: ndarray, width: int, height: int) -> tuple[ndarray, ndarray]:
    """Return the first pixel [K, 2] float32 and the size [K, 2] int32 of the pixel boxes, inside the picture."""
    zero, half = np.float32(0), np.float32(0.5)
    low = np.ceil(corner + np.minimum(np.minimum(first, second), zero) - half).clip(0)
    high = np.floor(corner + np.maximum(np.maximum(first, second), zero) - half)
    high = np.minimum(high, np.array([width - 1, height - 1], np.float32))
    return low, (high - low + 1).clip(0).astype(np.int32)


def _box_pixels(size: Int[ndarray, "K 2"]) -> tuple[ndarray, ndarray, ndarray]:
    """List all pixels of all boxes: box number, column and row inside the box (int32)."""
    count = size[:, 0] * size[:, 1]
    tri = np.repeat(np.arange(len(size), dtype=np.int32), count)
    offset = np.arange(len(tri), dtype=np.int32) - np.repeat((np.cumsum(count) - count).astype(np.int32), count)
    across = size[:, 0].take(tri)
    dy = offset // across
    return tri, offset - dy * across, dy


def _linear(
    slope_x: ndarray, slope_y: ndarray, origin: ndarray, tri: ndarray, x: ndarray, y: ndarray
) -> Float[ndarray, "P"]:
    """Evaluate a linear function of every triangle at pixels (x, y) counted from its box's first pixel."""
    start = slope_x * origin[:, 0] + slope_y * origin[:, 1]
    return start.take(tri) + x * slope_x.take(tri) + y * slope_y.take(tri)


def _nearest(pixel: ndarray, z: ndarray, face: ndarray, b: ndarray, c: ndarray, pixels: int) -> tuple:
    """Keep, of all candidates of a pixel, the nearest (the last one where depths are equal)."""
    buffer = np.full(pixels, np.inf, np.float32)
    np.minimum.at(buffer, pixel, z)
    front = np.flatnonzero(z == buffer.take(pixel))
    winner = np.full(pixels, -1, np.int32)
    winner[pixel[front]] = front
    covered = np.flatnonzero(winner >= 0)
    chosen = winner[covered]
    b, c = b[chosen], c[chosen]
    return covered, face[chosen], np.stack([1 - b - c, b, c], 1)
