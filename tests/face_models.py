"""A small morphable face: an egg's front with a nose, and smooth random bases of a few millimetres."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gaussian_head.geometry.face_model import FaceModel, vertex_faces


def make_face_model(
    rings: int = 14, identity: int = 6, expression: int = 5, albedo: int = 4, seed: int = 0
) -> FaceModel:
    """Make a face of about 3 rings^2 vertices, decimetres, as large as a real one, and centred.

    Landmarks lie on a regular pattern: the outline (0-16), the rest spread over the face; the nose's tip is 30.
    """
    generator = torch.Generator().manual_seed(seed)
    flat, faces = _disc(rings)
    bulge = (1.15 - flat.square().sum(1)).sqrt()
    nose = torch.exp(-((flat[:, 0] / 0.16) ** 2) - (((flat[:, 1] + 0.05) / 0.25) ** 2))
    brows = torch.exp(-(((flat[:, 1] - 0.35) / 0.1) ** 2))
    shape = torch.stack([0.72 * flat[:, 0], 0.95 * flat[:, 1], 0.75 * bulge + 0.22 * nose + 0.06 * brows], 1)
    shape = shape - shape.mean(0)

    def smooth(columns: int, size: float, width: float) -> Tensor:
        waves = torch.randn(columns, 3, 3, 2, generator=generator) / width  # [K, xyz, waves, xy]
        phases = 2 * math.pi * torch.rand(columns, 3, 3, generator=generator)
        values = torch.sin(torch.einsum("vd,kcwd->vckw", flat, waves) + phases.transpose(0, 1)).mean(-1)
        values = values - values.mean(0)
        return (size * values / values.square().mean((0, 1)).sqrt()).contiguous()

    bases = smooth(identity, 0.03, 0.8), smooth(expression, 0.03, 0.4), smooth(albedo, 0.04, 0.3)
    lower = torch.sigmoid((-0.2 - flat[:, 1:]) / 0.08)[..., None]
    spots = torch.sin(flat @ torch.tensor([[23.0, 9.0], [-7.0, 31.0]])).prod(1)
    colors = torch.tensor([0.75, 0.55, 0.45]) * (1 + 0.25 * spots[:, None])
    landmarks, contours = _landmarks(flat, rings)
    return FaceModel(
        mean_shape=shape, identity_basis=bases[0], expression_basis=bases[1] * lower, mean_albedo=colors,
        albedo_basis=bases[2], faces=faces, vertex_faces=vertex_faces(faces, len(shape)), landmarks=landmarks,
        left_contour=contours[0], right_contour=contours[1], skin=flat[:, 1] > -0.2,
        rigid=(flat[:, 1] > 0.2).nonzero()[:, 0],
    )  # fmt: skip


def _disc(rings: int) -> tuple[Tensor, Tensor]:
    """A triangulated unit disc: 6 r vertices on ring r; triangles counter-clockwise as seen from above."""
    points, starts = [torch.zeros(1, 2)], [0]
    for ring in range(1, rings + 1):
        starts.append(starts[-1] + (1 if ring == 1 else 6 * (ring - 1)))
        angle = torch.arange(6 * ring) * (2 * math.pi / (6 * ring))
        points.append(ring / rings * torch.stack([angle.cos(), angle.sin()], 1))
    faces = []
    for ring in range(1, rings + 1):
        inner, outer = starts[ring - 1], starts[ring]
        inner_count, outer_count = max(6 * (ring - 1), 1), 6 * ring
        for sector in range(6):
            for step in range(ring):
                a = outer + sector * ring + step
                b = outer + (sector * ring + step + 1) % outer_count
                c = inner + (sector * (ring - 1) + step) % inner_count
                faces.append([c, a, b])
                if step < ring - 1:
                    faces.append([c, b, inner + (sector * (ring - 1) + step + 1) % inner_count])
    return torch.cat(points), torch.tensor(faces)


def _landmarks(flat: Tensor, rings: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """17 points from one temple over the chin to the other, and 51 within; candidates for the outline's."""

    def nearest(places: Tensor) -> Tensor:
        return torch.cdist(places, flat).argmin(-1)

    angle = math.pi + torch.arange(17) * (math.pi / 16)
    outline = torch.stack([angle.cos(), angle.sin()], 1)
    spiral = torch.arange(51) * 2.39996
    within = (0.8 * (torch.arange(51) / 50).sqrt())[:, None] * torch.stack([spiral.cos(), spiral.sin()], 1)
    within[13] = torch.tensor([0.0, -0.05])  # 17 + 13 = 30, the nose's tip
    radii = torch.linspace(0.75, 1.0, 6)[:, None]
    sides = [torch.stack([nearest(radii * place) for place in outline[part]]) for part in (slice(8), slice(9, 17))]
    return torch.cat([nearest(outline), nearest(within)]), (sides[0], sides[1])
