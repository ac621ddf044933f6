"""The morphable model: directions, units, sliding landmarks, gradients (numbers: tests/parity)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from face_models import make_face_model
from torch import Tensor

from gaussian_head.geometry import face_model as fm
from gaussian_head.geometry.rotations import matrix_from_rotvec


def test_coefficients_are_deviations_from_the_mean() -> None:
    model = make_face_model()
    zero = model.shape(torch.zeros(1, 6), torch.zeros(1, 5))[0]
    torch.testing.assert_close(zero, model.mean_shape)
    one = torch.zeros(2, 6)
    one[1, 2] = 2.0
    moved = model.shape(one, torch.zeros(2, 5))
    torch.testing.assert_close(moved[1] - moved[0], 2 * model.identity_basis[..., 2], atol=1e-6, rtol=1e-5)
    assert torch.equal(model.shape(one[:, :3], torch.zeros(2, 0)), moved)  # the first ones alone
    assert torch.equal(model.albedo(torch.zeros(1, 4))[0], model.mean_albedo)


def test_normals_point_out_of_the_face_and_turn_with_it() -> None:
    model = make_face_model()
    shape = model.mean_shape[None]
    normals = model.normals(shape)
    assert normals[0, model.landmarks[30], 2] > 0.6
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(1, len(model.mean_shape)))
    turn = matrix_from_rotvec(torch.tensor([[0.3, -0.5, 0.2]]))
    torch.testing.assert_close(
        model.normals(fm.move(shape, turn, torch.zeros(1, 3))), normals @ turn.transpose(1, 2), atol=1e-5, rtol=1e-5
    )


def test_degenerate_triangles_give_no_nan() -> None:
    model = make_face_model()
    flat = torch.zeros_like(model.mean_shape)[None].requires_grad_()
    normals = model.normals(flat)
    normals.sum().backward()
    assert not normals.any()
    assert flat.grad.isfinite().all()


def test_triangles_around_vertices() -> None:
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [2, 1, 4]])
    table = fm.vertex_faces(faces, 6)
    expected = [{0, 1}, {0, 2}, {0, 1, 2}, {1}, {2}, set()]
    assert [set(row.tolist()) - {3} for row in table] == expected
    assert table.shape == (6, 3)


def test_light_from_above_lights_what_looks_up() -> None:
    up, down = torch.tensor([0.0, 1.0, 0.0]), torch.tensor([0.0, -1.0, 0.0])
    normals, albedo = torch.stack([up, down])[None], torch.full((1, 2, 3), 0.5)
    light = torch.zeros(1, 3, 9)
    grey = fm.shade(albedo, normals, light)
    assert torch.allclose(grey[0, 0], grey[0, 1])
    assert 0.3 < grey[0, 0, 0] < 0.4  # AMBIENT_LIGHT times sqrt(pi) / 2 times the albedo
    light[:, :, 1] = -0.3
    lit = fm.shade(albedo, normals, light)
    assert (lit[0, 0] > grey[0, 0] + 0.2).all()
    assert (lit[0, 1] < grey[0, 1] - 0.2).all()


def test_projection_is_upright() -> None:
    points = torch.tensor([[[0.0, 0, -7], [1, 0, -7], [0, 1, -7]]])
    pixels = fm.project(points, 700.0, torch.tensor([128.0, 96.0]))[0]
    torch.testing.assert_close(pixels, torch.tensor([[128.0, 96], [228, 96], [128, -4]]))


def test_angles_are_those_of_the_axes() -> None:
    quarter = torch.pi / 2
    pitched, yawed, rolled = fm.matrix_from_angles(quarter * torch.eye(3)).unbind()
    x, y, z = torch.eye(3).unbind()
    for found, expected in ((pitched @ y, z), (yawed @ z, x), (rolled @ x, y)):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    angles = torch.tensor([0.2, -0.4, 0.3])
    one, two, three = fm.matrix_from_angles(angles * torch.eye(3)).unbind()
    torch.testing.assert_close(fm.matrix_from_angles(angles), three @ two @ one)


def test_landmarks_of_the_cheeks_slide_along_the_outline() -> None:
    model = make_face_model()
    pixels = model.mean_shape[None, :, :2] * torch.tensor([100.0, -100.0])
    fixed = replace(model, left_contour=None, right_contour=None).landmark_vertices(pixels)
    assert torch.equal(fixed[0], model.landmarks)
    vertices = model.landmark_vertices(pixels)[0]
    assert torch.equal(vertices[17:], model.landmarks[17:])
    assert vertices[8] == model.landmarks[8]
    for row, vertex in zip(model.left_contour, vertices[:8], strict=True):
        assert pixels[0, vertex, 0] == pixels[0, row, 0].min()
    for row, vertex in zip(model.right_contour, vertices[9:17], strict=True):
        assert pixels[0, vertex, 0] == pixels[0, row, 0].max()


def test_everything_has_gradients() -> None:
    """Against finite differences, in float64, through shape, pose, normals, light and projection."""
    model = make_face_model(rings=4)
    model = replace(model, **{
        name: getattr(model, name).double()
        for name in ("mean_shape", "identity_basis", "expression_basis", "mean_albedo", "albedo_basis")
    })  # fmt: skip
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return (0.3 * torch.randn(*shape, generator=generator, dtype=torch.float64)).requires_grad_()

    def picture(identity: Tensor, expression: Tensor, albedo: Tensor, angles: Tensor, light: Tensor) -> Tensor:
        rotation = fm.matrix_from_angles(angles)
        shape = model.shape(identity, expression)
        camera = fm.move(shape, rotation, shape.new_tensor([[0.1, 0.2, -7.0]]).expand(len(shape), -1))
        colors = fm.shade(model.albedo(albedo), model.normals(shape) @ rotation.transpose(1, 2), light)
        return torch.cat([fm.project(camera, 1.0, shape.new_zeros(2)), colors], -1)[:, ::9]

    assert torch.autograd.gradcheck(
        picture, (draw(2, 6), draw(2, 5), draw(2, 4), draw(2, 3), draw(2, 3, 9)), fast_mode=True
    )


@pytest.mark.parametrize("energy", ["light", "skin"])
def test_energies_are_zero_where_nothing_varies(energy: str) -> None:
    if energy == "light":
        assert fm.light_tint(torch.randn(2, 1, 9).expand(-1, 3, -1)) < 1e-12
        assert fm.light_tint(torch.randn(2, 3, 9)) > 0.01
    else:
        model = make_face_model()
        one = torch.tensor([0.7, 0.5, 0.4]).expand(1, len(model.mean_shape), -1)
        assert fm.albedo_variance(one, model.skin) < 1e-12
        assert fm.albedo_variance(model.mean_albedo[None], model.skin) > 0
