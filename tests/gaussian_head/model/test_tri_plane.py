"""The spatial encoder against bilinear interpolation done by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gaussian_head.model.tri_plane import TriPlane

BOUND = 0.2


def bilinear(grid: np.ndarray, x: float, y: float) -> np.ndarray:
    """Interpolate [features, rows, columns] at x (columns) and y (rows) in [-1, 1], the corners being cell centres."""
    last = grid.shape[1] - 1
    column, row = (np.clip(v, -1, 1) * 0.5 * last + 0.5 * last for v in (x, y))
    left, top = min(int(column), last - 1), min(int(row), last - 1)
    u, v = column - left, row - top
    upper = (1 - u) * grid[:, top, left] + u * grid[:, top, left + 1]
    lower = (1 - u) * grid[:, top + 1, left] + u * grid[:, top + 1, left + 1]
    return (1 - v) * upper + v * lower


def expected(encoder: TriPlane, point: np.ndarray) -> np.ndarray:
    x, y, z = point / BOUND
    planes = ((x, y), (y, z), (x, z))
    grids = [grid.detach().numpy() for grid in encoder.grids]
    return np.concatenate([bilinear(grid[i], *at) for grid in grids for i, at in enumerate(planes)])


@pytest.mark.parametrize("resolutions", [(3,), (4, 9)])
def test_features_are_bilinear(resolutions):
    encoder = TriPlane(resolutions, features=5, bound=BOUND)
    points = (torch.rand(40, 3) - 0.5) * 2 * BOUND
    found = encoder(points).detach().numpy()
    assert found.shape == (40, encoder.size)
    for point, row in zip(points.numpy(), found, strict=True):
        np.testing.assert_allclose(row, expected(encoder, point), atol=1e-7)


def test_corners_are_the_grids_own_values_and_the_border_holds_beyond():
    encoder = TriPlane((4,), features=2, bound=BOUND)
    corner = torch.tensor([[BOUND, BOUND, BOUND]])
    values = torch.cat([plane[:, -1, -1] for plane in encoder.grids[0]])
    torch.testing.assert_close(encoder(corner)[0], values)
    torch.testing.assert_close(encoder(3 * corner)[0], values)


def test_axes_do_not_mix():
    encoder = TriPlane((8,), features=1, bound=BOUND)
    here = torch.tensor([[0.03, -0.05, 0.07]])
    moved = encoder(here + torch.tensor([[0.0, 0, 0.02]])) - encoder(here)
    assert moved[0, 0] == 0  # the plane of x and y does not see z
    assert (moved[0, 1:] != 0).all()


def test_gradient_reaches_the_cells_around_a_point_alone():
    encoder = TriPlane((6,), features=1, bound=BOUND)
    encoder(torch.tensor([[0.01, 0.02, 0.03]])).sum().backward()
    gradient = encoder.grids[0].grad
    assert (gradient.flatten(1) != 0).sum(1).tolist() == [4, 4, 4]
    torch.testing.assert_close(gradient.flatten(1).sum(1), torch.ones(3))
