"""Triangle meshes of the procedural person: grids, lofted bodies, normals.

Geometry in this package is in centimetres in the head frame (x to the right of the picture, y up, z out of the face),
because anatomy is tabulated so; `renderer` turns it to metres at its border. Counter-clockwise triangles face outward.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.interpolate import PchipInterpolator
from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class Part:
    """One body part: rest vertices [N, 3] cm, faces [M, 3], texture coordinates [N, 2] px (x, y) and its texture.

    The texture is [h, w, 4] float32: linear RGB albedo in [0, 1] and the strength of the specular light.
    """

    name: str
    vertices: Float[ndarray, "N 3"]
    faces: Int[ndarray, "M 3"]
    uv: Float[ndarray, "N 2"]
    texture: Float[ndarray, "h w 4"]


def grid_faces(rows: int, columns: int, *, wrap: bool = False) -> Int[ndarray, "M 3"]:
    """Triangulate a grid of vertices numbered row by row, rows going up, columns going right (seen from outside).

    Args:
        rows: Rows of vertices.
        columns: Columns of vertices.
        wrap: Join the last column to the first.
    """
    r = np.arange(rows - 1)
    c = np.arange(columns if wrap else columns - 1)
    a = (r[:, None] * columns + c).ravel()
    b = (r[:, None] * columns + (c + 1) % columns).ravel()
    return np.concatenate([np.stack([a, b, b + columns], 1), np.stack([a, b + columns, a + columns], 1)])


def grid_uv(rows: int, columns: int, texels: int) -> Float[ndarray, "N 2"]:
    """Return texture coordinates of a grid whose texture holds `texels` x `texels` px a cell."""
    v, u = np.mgrid[:rows, :columns].astype(np.float32)
    return np.stack([u.ravel(), v.ravel()], 1) * texels


def upsample(values: Float[ndarray, "rows columns"], texels: int) -> Float[ndarray, "h w"]:
    """Interpolate a quantity of the grid's vertices to the texels of `grid_uv`."""
    rows, columns = values.shape
    y = np.arange((rows - 1) * texels + 1) / texels
    x = np.arange((columns - 1) * texels + 1) / texels
    i, j = np.minimum(y.astype(int), rows - 2), np.minimum(x.astype(int), columns - 2)
    fy, fx = (y - i)[:, None], x - j
    top = values[i][:, j] * (1 - fx) + values[i][:, j + 1] * fx
    bottom = values[i + 1][:, j] * (1 - fx) + values[i + 1][:, j + 1] * fx
    return (top * (1 - fy) + bottom * fy).astype(np.float32)


def loft(table: Float[ndarray, "S 5"], y: ndarray, azimuth: ndarray, power: float) -> Float[ndarray, "R C 3"]:
    """Build a body from horizontal slices, each a super-ellipse.

    Args:
        table: Rows (y, centre z, half width, depth in front, depth behind) in cm, y increasing.
        y: [R] heights in cm.
        azimuth: [C] radians, 0 in front, growing to the right of the picture.
        power: Exponent of the super-ellipse (2: ellipse; more: boxier).
    """
    centre, width, front, back = PchipInterpolator(table[:, 0], table[:, 1:], axis=0)(y).T[..., None]
    sine, cosine = np.sin(azimuth), np.cos(azimuth)
    reach = (1 - np.abs(sine) ** power).clip(0) ** (1 / power)
    z = centre + np.where(cosine >= 0, front * reach, -back * reach)
    return np.stack([width * sine, np.broadcast_to(y[:, None], z.shape), z], -1)


class NormalField:
    """Vertex normals of a mesh of fixed topology."""

    def __init__(self, faces: Int[ndarray, "M 3"], vertices: int) -> None:
        corners = faces.ravel()
        columns = np.repeat(np.arange(len(faces)), 3)
        self._faces = faces
        self._gather = csr_matrix((np.ones(len(corners), np.float32), (corners, columns)), (vertices, len(faces)))

    def __call__(self, vertices: Float[ndarray, "N 3"]) -> Float[ndarray, "N 3"]:
        """Return area-weighted normals, not normalised."""
        a, b, c = (vertices[self._faces[:, i]] for i in range(3))
        return self._gather @ np.cross(b - a, c - a)


def normalized(vectors: Float[ndarray, "N 3"]) -> Float[ndarray, "N 3"]:
    """Return unit vectors (zero stays zero)."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-12)
