"""A linear morphable face model (3DMM): shape, albedo, normals, light, pose, projection; pure mathematics, any model.

Basel Face Model 2009 in the forms that the field uses (specs/gaussian_head.md b.1, specs/one_shot.md 0 and 1.4; Blanz
and Vetter 1999; light after Ramamoorthi and Hanrahan 2001). Files are read by `gaussian_head.networks.bfm`.

Units: decimetres, RGB in [0, 1] under a light of 1, radians, pixels; coefficients in standard deviations of the model.
Axes of the head and of the camera are OpenGL's: x right, y up, z out of the face and towards the camera, so that what
is seen has Z < 0.

Notation: B pictures, V vertices, F triangles, P triangles around a vertex at most; I, E, A coefficients of identity,
expression and albedo. Everything is differentiable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

LANDMARKS = 68
LIGHT_BANDS = 9
AMBIENT_LIGHT = 0.8
"""What is added to the constant band of each colour: coefficients of 0 are a plain grey light."""
SIDE_LANDMARKS = 8
"""Landmarks 0-7 and 9-16 lie on the outline of the cheeks, 8 is the chin."""

DEEP3D_FOCAL_PX, DEEP3D_PICTURE_PX, DEEP3D_DISTANCE = 1015.0, 224, 10.0
"""The camera of the coefficient regressor: focal length and picture in px, its distance in decimetres."""
_DEEP3D_WIDTHS = {"identity": 80, "expression": 64, "albedo": 80, "angles": 3, "light": 27, "translation": 3}

_BAND = (
    math.sqrt(math.pi) / 2,
    math.sqrt(math.pi),  # 2 pi / sqrt 3 * sqrt 3 / sqrt(4 pi)
    3 * math.sqrt(5) * math.pi / math.sqrt(24 * math.pi),  # 2 pi / sqrt 8 * 3 sqrt 5 / sqrt(12 pi)
)
"""Factors of harmonics of degree 0, 1, 2 in the light that a diffuse surface reflects."""


class FaceParameters(NamedTuple):
    """The 257 numbers of `coefficients.FaceCoefficients` as tensors, for the mathematics below."""

    identity: Float[Tensor, "*B 80"]
    expression: Float[Tensor, "*B 64"]
    albedo: Float[Tensor, "*B 80"]
    angles: Float[Tensor, "*B 3"]
    """Pitch, yaw, roll, radians; see `matrix_from_angles`."""
    light: Float[Tensor, "*B 3 9"]
    """Harmonics of red, green and blue light; see `shade`."""
    translation: Float[Tensor, "*B 3"]
    """Decimetres, from the point DEEP3D_DISTANCE before the camera."""

    @classmethod
    def split(cls, vector: Float[Tensor, "*B 257"]) -> FaceParameters:
        """Cut the 257 numbers up."""
        parts = vector.split(list(_DEEP3D_WIDTHS.values()), -1)
        return cls(*parts[:4], parts[4].unflatten(-1, (3, LIGHT_BANDS)), parts[5])

    def joined(self) -> Float[Tensor, "*B 257"]:
        """Return the 257 numbers."""
        return torch.cat([*self[:4], self.light.flatten(-2), self.translation], -1)


@dataclass(frozen=True)
class FaceModel:
    """A mean face and what it varies along. Bases hold one standard deviation a column."""

    mean_shape: Float[Tensor, "V 3"]
    """Decimetres, centred."""
    identity_basis: Float[Tensor, "V 3 I"]
    expression_basis: Float[Tensor, "V 3 E"]
    mean_albedo: Float[Tensor, "V 3"]
    """RGB in [0, 1]."""
    albedo_basis: Float[Tensor, "V 3 A"]
    faces: Int[Tensor, "F 3"]
    """Vertices of the triangles, counter-clockwise as seen from outside."""
    vertex_faces: Int[Tensor, "V P"]
    """Triangles around each vertex; F stands for none."""
    landmarks: Int[Tensor, " 68"]
    """Vertices of the 68 landmarks."""
    left_contour: Int[Tensor, "8 C"] | None = None
    """Where landmarks 0-7, on the left of the picture, may lie: the one furthest left is on the outline."""
    right_contour: Int[Tensor, "8 C"] | None = None
    """Likewise 9-16, the one furthest right."""
    skin: Bool[Tensor, " V"] | None = None
    """Vertices whose albedo is one skin's."""
    rigid: Int[Tensor, " R"] | None = None
    """Vertices that expressions hardly move."""

    def to(self, device: torch.device | str) -> FaceModel:
        """Return the model on a device."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: x.to(device) for name, x in tensors.items() if x is not None})

    def shape(self, identity: Float[Tensor, "#B I"], expression: Float[Tensor, "#B E"]) -> Float[Tensor, "#B V 3"]:
        """Return the vertices in the head's frame, decimetres; one identity serves many expressions.

        Fewer coefficients than the model has are those of its first columns; likewise in `albedo`.
        """
        return self.mean_shape + _combine(self.identity_basis, identity) + _combine(self.expression_basis, expression)

    def landmarks_only(self) -> FaceModel:
        """Return the model of its 68 landmarks alone, without triangles: vertex k is landmark k."""
        kept, none = self.landmarks, self.faces.new_zeros(0, 3)
        return FaceModel(
            self.mean_shape[kept], self.identity_basis[kept], self.expression_basis[kept], self.mean_albedo[kept],
            self.albedo_basis[kept], none, none.new_zeros(len(kept), 0), torch.arange(len(kept), device=kept.device),
        )  # fmt: skip

    def albedo(self, coefficients: Float[Tensor, "B A"]) -> Float[Tensor, "B V 3"]:
        """Return the vertices' colours under a light of 1, RGB; not clamped."""
        return self.mean_albedo + _combine(self.albedo_basis, coefficients)

    def normals(self, vertices: Float[Tensor, "B V 3"]) -> Float[Tensor, "B V 3"]:
        """Return unit normals, outward: the mean of the triangles' unit normals around a vertex.

        A vertex without triangles, or only with degenerate ones, has the normal 0.
        """
        a, b, c = (vertices[:, self.faces[:, corner]] for corner in range(3))
        of_faces = normalize(torch.linalg.cross(b - a, c - b), dim=-1, eps=1e-12)
        of_faces = torch.cat([of_faces, torch.zeros_like(of_faces[:, :1])], 1)
        return normalize(of_faces[:, self.vertex_faces].sum(2), dim=-1, eps=1e-12)

    def landmark_vertices(self, pixels: Float[Tensor, "B V 2"]) -> Int[Tensor, "B 68"]:
        """Return the vertices where the landmarks are seen; those of the cheeks slide along the outline.

        Args:
            pixels: The projected vertices. A model without contours has its landmarks on fixed vertices.
        """
        chosen = self.landmarks.expand(len(pixels), -1)
        if self.left_contour is None or self.right_contour is None:
            return chosen
        x = pixels.detach()[..., 0]
        left = _at_extreme(x, self.left_contour, largest=False)
        right = _at_extreme(x, self.right_contour, largest=True)
        return torch.cat([left, chosen[:, SIDE_LANDMARKS : SIDE_LANDMARKS + 1], right, chosen[:, 17:]], 1)


def _combine(basis: Float[Tensor, "V 3 K"], coefficients: Float[Tensor, "B C"]) -> Float[Tensor, "B V 3"]:
    used = basis[..., : coefficients.shape[1]].flatten(0, 1)  # [3 V, C]
    return (coefficients @ used.T).unflatten(1, (-1, 3))


def _at_extreme(x: Float[Tensor, "B V"], rows: Int[Tensor, "8 C"], *, largest: bool) -> Int[Tensor, "B 8"]:
    along = x[:, rows]  # [B, 8, C]
    place = along.argmax(-1) if largest else along.argmin(-1)
    return rows.expand(len(x), -1, -1).gather(2, place[..., None])[..., 0]


def vertex_faces(faces: Int[Tensor, "F 3"], vertices: int) -> Int[Tensor, "V P"]:
    """List the triangles around each vertex, as many columns as the busiest vertex has; F stands for none."""
    corner, triangle = faces.flatten(), torch.arange(len(faces), device=faces.device).repeat_interleave(3)
    order = corner.argsort(stable=True)
    corner, triangle = corner[order], triangle[order]
    counts = torch.bincount(corner, minlength=vertices)
    place = torch.arange(len(corner), device=faces.device) - (counts.cumsum(0) - counts)[corner]
    table = torch.full((vertices, max(int(counts.max()), 1)), len(faces), device=faces.device)
    table[corner, place] = triangle
    return table


def shade(
    albedo: Float[Tensor, "#B V 3"], normals: Float[Tensor, "#B V 3"], light: Float[Tensor, "#B 3 9"]
) -> Float[Tensor, "#B V 3"]:
    """Light a diffuse surface from far away by nine harmonics a colour.

    Args:
        albedo: RGB.
        normals: Of unit length, in the axes of the light: turned into the camera for a light that stands still.
        light: Coefficients of red, green and blue; AMBIENT_LIGHT is added to the first of each.

    Returns:
        RGB, not clamped.
    """
    x, y, z = normals.unbind(-1)
    one = torch.ones_like(x)
    zero, first, second = _BAND
    bands = torch.stack([
        zero * one, -first * y, first * z, -first * x, second * x * y, -second * y * z,
        second / math.sqrt(12) * (3 * z * z - 1), -second * x * z, second / 2 * (x * x - y * y),
    ], -1)  # fmt: skip
    ambient = light.new_zeros(LIGHT_BANDS)
    ambient[0] = AMBIENT_LIGHT
    return (bands @ (light + ambient).transpose(1, 2)) * albedo


def matrix_from_angles(angles: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 3 3"]:
    """Turn the regressor's pitch, yaw and roll (radians) into R = Rz Ry Rx, each counter-clockwise about its axis."""
    (cx, cy, cz), (sx, sy, sz) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    rows = [
        cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx,
        sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx,
        -sy, cy * sx, cy * cx,
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def move(
    points: Float[Tensor, "B V 3"], rotation: Float[Tensor, "B 3 3"], translation: Float[Tensor, "B 3"]
) -> Float[Tensor, "B V 3"]:
    """Return R x + t for every point."""
    return points @ rotation.transpose(1, 2) + translation[:, None]


def project(
    camera_points: Float[Tensor, "B V 3"], focal_px: float | Float[Tensor, ""], center: Float[Tensor, " 2"]
) -> Float[Tensor, "B V 2"]:
    """Project points in the camera (OpenGL axes, Z < 0) to pixels, x right, y down, pixel centres at + 0.5."""
    x, y, z = camera_points.unbind(-1)
    return center + focal_px * torch.stack([-x / z, y / z], -1)


def deep3d_to_camera(points: Float[Tensor, "B V 3"]) -> Float[Tensor, "B V 3"]:
    """Put the regressor's moved head, whose origin lies DEEP3D_DISTANCE before its camera, into the camera."""
    return points - points.new_tensor([0.0, 0.0, DEEP3D_DISTANCE])


def coefficient_energy(
    coefficients: FaceParameters, weights: tuple[float, float, float] = (1.0, 0.8, 0.017)
) -> Float[Tensor, ""]:
    """Sum the weighted squares of identity, expression and albedo, averaged over pictures (specs/one_shot.md 1.4)."""
    squares = [part.square().sum() for part in coefficients[:3]]
    return sum(w * s for w, s in zip(weights, squares, strict=True)) / len(coefficients.identity)


def light_tint(light: Float[Tensor, "B 3 9"]) -> Float[Tensor, ""]:
    """Measure how far the light is from grey: the variance of its coefficients over red, green and blue."""
    return (light - light.mean(1, keepdim=True)).square().mean()


def albedo_variance(albedo: Float[Tensor, "B V 3"], skin: Bool[Tensor, " V"]) -> Float[Tensor, ""]:
    """Measure how uneven the skin is: squared distance (RGB) to its mean colour, averaged over its vertices."""
    colors = albedo[:, skin]
    return (colors - colors.mean(1, keepdim=True)).square().sum(-1).mean()


def landmark_energy(found: Float[Tensor, "B 68 2"], seen: Float[Tensor, "B 68 2"]) -> Float[Tensor, ""]:
    """Average the landmarks' squared distances; nose bridge (28-30) and inner lips (60-67) count twenty-fold."""
    weights = found.new_ones(LANDMARKS)
    weights[28:31] = 20.0
    weights[-8:] = 20.0
    return ((found - seen).square().sum(-1) * weights).mean()
