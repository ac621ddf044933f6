"""The operator of `mesh.py` in plain PyTorch: every pixel asks every triangle.

The oracle of the tests, and what runs on other devices and types.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

GRID = 65536
"""Coverage is decided on a grid of 1 / GRID px, in whole numbers."""
FURTHEST_PX = 8192.0
MOST_OUTSIDE = 0.01
MOST_PAIRS = 1 << 21
"""Pairs of triangle and pixel that are looked at at a time."""


def rasterize_mesh(
    vertices: Float[Tensor, "B V 3"], faces: Int[Tensor, "F 3"], width: int, height: int, near: float
) -> tuple[Int[Tensor, "B H W"], Float[Tensor, "B H W 3"], Float[Tensor, "B H W"]]:
    """See `cuda_ext.rasterize_mesh`; returns face_index, barycentrics, depth."""
    shape = (len(vertices), height, width)
    if not len(faces) or not vertices.numel():
        nothing = vertices[..., :0].sum()  # of no number, yet with a way back to the vertices
        none = torch.full(shape, -1, dtype=torch.int32, device=vertices.device)
        return none, nothing.expand(*shape, 3), nothing.expand(shape)
    columns, rows = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy")
    pixels = torch.stack([columns.flatten(), rows.flatten()], 1).to(vertices.device)  # [P, 2]
    with torch.no_grad():
        index = torch.stack([_nearest(v, faces, pixels, near) for v in vertices])
    shown = index >= 0
    picture = torch.arange(len(vertices), device=vertices.device)[:, None, None]
    triangles = vertices[picture, faces.long()[index.clamp_min(0)]]  # [B, P, 3, 3]
    triangles = torch.where(shown[..., None, None], triangles, torch.ones_like(triangles))
    barycentrics, depth = _place(triangles, pixels + 0.5)
    barycentrics = torch.where(shown[..., None], barycentrics, torch.zeros_like(barycentrics))
    depth = torch.where(shown, depth, torch.zeros_like(depth))
    return index.to(torch.int32).reshape(shape), barycentrics.reshape(*shape, 3), depth.reshape(shape)


def _nearest(
    vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], pixels: Int[Tensor, "P 2"], near: float
) -> Int[Tensor, " P"]:
    """Return the triangle that each pixel shows, -1 for none; of equally near ones the first."""
    best = torch.full((len(pixels),), torch.inf, dtype=torch.float32, device=vertices.device)
    index = torch.full((len(pixels),), -1, device=vertices.device)
    exists = ((faces >= 0) & (faces < len(vertices))).all(1).nonzero()[:, 0]
    for some in exists.split(max(MOST_PAIRS // max(len(pixels), 1), 1)):
        triangles = vertices[faces.long()[some]].double()  # [S, 3, 3]
        z = triangles[..., 2]
        usable = (triangles[..., :2].abs() < FURTHEST_PX).all((1, 2)) & (z > near).all(1) & (z < 1e30).all(1)
        some, triangles = some[usable], triangles[usable]
        if not len(some):
            continue
        _, depth = _place(triangles[:, None].expand(-1, len(pixels), -1, -1), pixels + 0.5)
        depth = torch.where(_covers(triangles[..., :2], pixels), depth.float(), torch.inf)
        nearest, which = depth.min(0)  # the first of equal ones
        nearer = nearest < best
        best = torch.where(nearer, nearest, best)
        index = torch.where(nearer, some[which], index)
    return index


def _covers(triangles: Float[Tensor, "S 3 2"], pixels: Int[Tensor, "P 2"]) -> Bool[Tensor, "S P"]:
    """Apply the top-left rule in whole numbers."""
    corners = (triangles * GRID).round().long()
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    corners = torch.where((area < 0)[:, None, None], corners[:, [0, 2, 1]], corners)
    centers = pixels * GRID + GRID // 2
    covered = (area != 0)[:, None].expand(-1, len(pixels))
    for i in range(3):
        start, along = corners[:, i], corners[:, (i + 1) % 3] - corners[:, i]
        away = centers - start[:, None]  # [S, P, 2]
        side = along[:, None, 0] * away[..., 1] - along[:, None, 1] * away[..., 0]
        is_top_or_left = (along[:, 1] < 0) | ((along[:, 1] == 0) & (along[:, 0] > 0))
        covered = covered & ((side > 0) | ((side == 0) & is_top_or_left[:, None]))
    return covered


def _place(
    triangles: Float[Tensor, "*P 3 3"], centers: Float[Tensor, "N 2"]
) -> tuple[Float[Tensor, "*P 3"], Float[Tensor, "*P"]]:
    """Return barycentric coordinates, linear in space rather than in the picture, and depths."""
    away, z = triangles[..., :2].double() - centers[:, None], triangles[..., 2].double()
    x, y = away.unbind(-1)
    parts = x.roll(-1, -1) * y.roll(1, -1) - y.roll(-1, -1) * x.roll(1, -1)
    area = parts.sum(-1, keepdim=True)
    inside = (area != 0) & (parts / area > -MOST_OUTSIDE).all(-1, keepdim=True)
    parts = torch.where(inside, parts, torch.ones_like(parts).detach() / 3)
    weights = torch.where(inside, parts / z, parts.detach() / z.detach())
    total = weights.sum(-1, keepdim=True)
    even = torch.full_like(weights, 1 / 3)
    barycentrics = torch.where(inside, weights / total, even)
    depth = parts.sum(-1) / total[..., 0]
    return barycentrics.to(triangles.dtype), depth.to(triangles.dtype)
