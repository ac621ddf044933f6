"""A z-buffer triangle rasterizer in numpy, made for many small triangles."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray


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
    corner, second, third = (xy[faces[:, i]] for i in range(3))  # [M, 2]
    low = np.ceil(np.minimum(np.minimum(corner, second), third) - np.float32(0.5)).astype(np.int32).clip(0)
    high = np.floor(np.maximum(np.maximum(corner, second), third) - np.float32(0.5)).astype(np.int32)
    size = np.minimum(high, np.array([width - 1, height - 1], np.int32)) - low + 1
    first, second = second - corner, third - corner
    area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]  # negative: facing us (y is down)
    keep = np.flatnonzero((size[:, 0] > 0) & (size[:, 1] > 0) & (area < -1e-9))
    low, size, area, first, second = low[keep], size[keep], area[keep], first[keep], second[keep]
    origin = low.astype(np.float32) + np.float32(0.5) - corner[keep]  # first pixel centre relative to the first corner
    to_b = np.stack([second[:, 1], -second[:, 0]], 1) / area[:, None]  # gradient of the second corner's weight
    to_c = np.stack([-first[:, 1], first[:, 0]], 1) / area[:, None]
    start_b, start_c = (origin * to_b).sum(1), (origin * to_c).sum(1)

    count = size[:, 0] * size[:, 1]
    tri = np.repeat(np.arange(len(keep), dtype=np.int32), count)
    offset = np.arange(len(tri), dtype=np.int32) - np.repeat((np.cumsum(count) - count).astype(np.int32), count)
    dy = offset // size[tri, 0]
    dx = offset - dy * size[tri, 0]
    x, y = dx.astype(np.float32), dy.astype(np.float32)
    b = start_b[tri] + x * to_b[tri, 0] + y * to_b[tri, 1]
    c = start_c[tri] + x * to_c[tri, 0] + y * to_c[tri, 1]
    inside = np.flatnonzero((b >= -1e-4) & (c >= -1e-4) & (b + c <= 1 + 1e-4))
    tri, b, c = tri[inside], b[inside], c[inside]
    pixel = (low[tri, 1] + dy[inside]) * width + low[tri, 0] + dx[inside]
    z = depth[faces[keep]]  # [K, 3]
    z = z[tri, 0] * (1 - b - c) + z[tri, 1] * b + z[tri, 2] * c
    return _nearest(pixel, z, keep[tri], b, c, width * height)


def _nearest(pixel: ndarray, z: ndarray, face: ndarray, b: ndarray, c: ndarray, pixels: int) -> tuple:
    """Keep, of all candidates of a pixel, the nearest (the last one where depths are equal)."""
    buffer = np.full(pixels, np.inf, np.float32)
    np.minimum.at(buffer, pixel, z)
    front = np.flatnonzero(z == buffer[pixel])
    winner = np.full(pixels, -1, np.int64)
    winner[pixel[front]] = front
    covered = np.flatnonzero(winner >= 0)
    chosen = winner[covered]
    b, c = b[chosen], c[chosen]
    return covered, face[chosen], np.stack([1 - b - c, b, c], 1)
