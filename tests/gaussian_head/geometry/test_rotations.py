"""Rotations against SciPy, the field's formulas and automatic differentiation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from gaussian_head.geometry.rotations import euler_from_matrix, matrix_from_euler, matrix_from_quat, matrix_from_rotvec


def field_matrix(theta: float, phi: float, psi: float) -> np.ndarray:
    """R = Rx Ry Rz as specs/gaussian_head.md b.1 prints them."""
    c, s = np.cos, np.sin
    rx = np.array([[1, 0, 0], [0, c(theta), s(theta)], [0, -s(theta), c(theta)]])
    ry = np.array([[c(phi), 0, -s(phi)], [0, 1, 0], [s(phi), 0, c(phi)]])
    rz = np.array([[c(psi), -s(psi), 0], [s(psi), c(psi), 0], [0, 0, 1]])
    return rx @ ry @ rz


def random_angles(limits: tuple[float, float, float], count: int = 40) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (count, 3)) * limits)


def test_euler_is_the_fields():
    angles = random_angles((3.1, 3.1, 3.1))
    expected = np.stack([field_matrix(*row) for row in angles.numpy()])
    np.testing.assert_allclose(matrix_from_euler(angles).numpy(), expected, atol=1e-12)


def test_euler_round_trip():
    angles = random_angles((3.1, 1.55, 3.1))
    torch.testing.assert_close(euler_from_matrix(matrix_from_euler(angles)), angles)
    single = angles[0].float()
    torch.testing.assert_close(euler_from_matrix(matrix_from_euler(single)), single)


def test_rotvec_is_scipys():
    vectors = random_angles((2.5, 2.5, 2.5))
    scaled = torch.cat([vectors * 10.0**-power for power in range(9)] + [torch.zeros(1, 3, dtype=torch.float64)])
    expected = Rotation.from_rotvec(scaled.numpy()).as_matrix()
    np.testing.assert_allclose(matrix_from_rotvec(scaled).numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(matrix_from_rotvec(scaled.float()).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("size", [0.0, 1e-5, 1e-4, 1e-3, 0.7])
def test_rotvec_gradient_is_the_derivative_zero_included(size):
    vector = (size * torch.tensor([0.6, -0.3, 0.74], dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(matrix_from_rotvec, vector, eps=1e-7, atol=1e-6)


def test_rotvec_gradient_at_zero_is_the_generator():
    gradient = torch.autograd.functional.jacobian(matrix_from_rotvec, torch.zeros(3))
    assert torch.isfinite(gradient).all()
    about_z = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 0]])
    torch.testing.assert_close(gradient[..., 2], about_z)


def test_quaternions_are_scipys_whatever_their_length():
    rng = np.random.default_rng(0)
    rotations = Rotation.random(30, random_state=1)
    wxyz = rotations.as_quat()[:, [3, 0, 1, 2]] * rng.uniform(0.1, 5, (30, 1))
    matrices = matrix_from_quat(torch.from_numpy(wxyz))
    np.testing.assert_allclose(matrices.numpy(), rotations.as_matrix(), atol=1e-12)
    torch.testing.assert_close(matrix_from_quat(torch.from_numpy(-wxyz)), matrices)


def test_quaternion_without_turn_is_the_identity():
    torch.testing.assert_close(matrix_from_quat(torch.tensor([2.0, 0, 0, 0])), torch.eye(3))
