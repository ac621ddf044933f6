"""A set of Gaussians: where it starts, and what its stored parameters mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gaussian_head.model.gaussians import Gaussians


def grid_points(spacing: float, side: int = 6) -> torch.Tensor:
    axis = torch.arange(side) * spacing
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_points_and_colors_are_kept(degree):
    points, colors = torch.randn(50, 3) * 0.05, torch.rand(50, 3)
    gaussians = Gaussians.from_points(points, colors, degree, opacity=0.4)
    assert len(gaussians) == 50
    assert torch.equal(gaussians.means, points)
    torch.testing.assert_close(gaussians.base_colors(), colors)
    torch.testing.assert_close(gaussians.opacities, torch.full((50,), 0.4))
    assert gaussians.shN.shape == (50, (degree + 1) ** 2 - 1, 3)
    assert not gaussians.shN.any()  # the same colour from everywhere
    torch.testing.assert_close(gaussians.quats, torch.tensor([1.0, 0, 0, 0]).repeat(50, 1))


@pytest.mark.parametrize("spacing", [0.001, 0.004, 0.01])
def test_gaussians_are_as_wide_as_the_gap_to_their_neighbours(spacing):
    gaussians = Gaussians.from_points(grid_points(spacing), torch.full((216, 3), 0.5), 0)
    torch.testing.assert_close(gaussians.scales, torch.full((216, 3), spacing), rtol=0.01, atol=0)


def test_doubled_and_lonely_points_get_sane_sizes():
    points = torch.tensor([[0.0, 0, 0]] * 5 + [[10.0, 0, 0]])
    scales = Gaussians.from_points(points, torch.rand(6, 3), 0).scales
    assert torch.isfinite(scales.log()).all()
    assert scales.min() > 1e-5
    assert scales.max() < 0.1


def test_activations_are_bounded_and_smooth():
    gaussians = Gaussians(3, 0)
    with torch.no_grad():
        gaussians.opacity_logits.copy_(torch.tensor([-100.0, 0, 100]))
        gaussians.log_scales.copy_(torch.log(torch.tensor([1e-4, 1e-2, 1.0]))[:, None].expand(3, 3))
    np.testing.assert_allclose(gaussians.opacities.detach(), [0, 0.5, 1], atol=1e-6)
    np.testing.assert_allclose(gaussians.scales.detach()[:, 0], [1e-4, 1e-2, 1], rtol=1e-5)


def test_every_named_parameter_is_one():
    assert set(Gaussians.NAMES) == {name for name, _ in Gaussians(2, 1).named_parameters()}
