"""Differentiable rasterization of triangle meshes by z-buffer, and interpolation over what it shows."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cuda_ext import _reference_mesh as reference
from cuda_ext._library import choose

LARGEST_PX = 4096
"""Widest and highest picture."""


class MeshFragments(NamedTuple):
    """What each pixel of B pictures shows of a mesh."""

    face_index: Int[Tensor, "B H W"]
    """Nearest triangle at the pixel's centre, -1 for none; of equally near ones the first. No gradient."""
    barycentrics: Float[Tensor, "B H W 3"]
    """Shares of the triangle's corners, linear in space (perspective-correct), summing to 1; 0 where there is none."""
    depth: Float[Tensor, "B H W"]
    """Of the surface there; 0 where there is none."""


def rasterize_mesh(
    vertices: Float[Tensor, "B V 3"],
    faces: Int[Tensor, "F 3"],
    width: int,
    height: int,
    *,
    near: float = 1e-6,
    implementation: str = "auto",
) -> MeshFragments:
    """Find which triangle each pixel shows and where in it the pixel lies.

    Gradients reach the vertices through barycentrics and depth; what is covered, and by whom, is taken as fixed.
    Triangles that share an edge leave no gap and share no pixel (top-left rule, on a grid of 2^-16 px). Both sides are
    drawn.
    Left out are triangles of no area, with a vertex that is not finite, not beyond `near`, or 8192 px and more from the
    picture's corner: nothing is clipped. In a triangle thinner than the grid, shares are thirds, without gradient.

    Args:
        vertices: x and y in px (x right, y down, pixel centres at + 0.5) and depth along the camera's axis, any unit,
            positive in front, by which perspective is undone.
        faces: Vertices of each triangle, the same in all pictures.
        width: Of the pictures, px.
        height: Of the pictures, px.
        near: Smallest depth.
        implementation: `auto`, `cpu` or `cuda` (compiled), or `reference` (plain PyTorch: slow, any type).

    Raises:
        ValueError: A size that cannot be drawn, or on the CPU a triangle with a vertex that does not exist.
    """
    if not (0 < width <= LARGEST_PX and 0 < height <= LARGEST_PX):
        raise ValueError(f"rasterize_mesh: pictures may be 1 to {LARGEST_PX} px wide and high, got {width} x {height}.")
    if vertices.ndim != 3 or vertices.shape[2] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(
            f"rasterize_mesh: vertices must be [B, V, 3] and faces [F, 3], got {list(vertices.shape)} and "
            f"{list(faces.shape)}."
        )
    if not 0 < near < float("inf"):
        raise ValueError(f"rasterize_mesh: near must be a positive depth, got {near}.")
    if faces.device.type == "cpu" and faces.numel():  # on a GPU looking would wait for it: such triangles are left out
        low, high = faces.aminmax()
        if low < 0 or high >= vertices.shape[1]:
            raise ValueError(
                f"rasterize_mesh: faces name vertices {int(low)} to {int(high)}, there are {vertices.shape[1]}."
            )
    chosen = choose(implementation, vertices, "rasterize_mesh")
    if chosen == "reference":
        return MeshFragments(*reference.rasterize_mesh(vertices, faces, width, height, near))
    from cuda_ext._compiled_mesh import RasterizeMesh

    return MeshFragments(*RasterizeMesh.apply(vertices, faces, width, height, near, chosen))


def interpolate_mesh(
    fragments: MeshFragments, faces: Int[Tensor, "F 3"], attributes: Float[Tensor, "B V C"]
) -> Float[Tensor, "B H W C"]:
    """Interpolate what is known at the vertices over the pixels that show the mesh; 0 elsewhere.

    Gradients reach the attributes, and through the barycentrics the vertices.
    """
    if not len(faces):
        return attributes.new_zeros(*fragments.depth.shape, attributes.shape[2])
    shown = fragments.face_index >= 0
    picture, row, column = shown.nonzero(as_tuple=True)
    corners = faces.long()[fragments.face_index[picture, row, column].long()]  # [P, 3]
    values = attributes[picture[:, None], corners]  # [P, 3, C]
    mixed = (fragments.barycentrics[picture, row, column][..., None] * values).sum(1)
    out = attributes.new_zeros(*fragments.depth.shape, attributes.shape[2])
    return torch.index_put(out, (picture, row, column), mixed)
