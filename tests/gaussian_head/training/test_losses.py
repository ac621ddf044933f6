"""Losses: zero where nothing is wrong, finite where nothing is visible, and pulling the right way."""

from __future__ import annotations

import pytest
import torch

from gaussian_head.training.losses import coverage, dilate, erode, masked_mean, photometric

SHAPE = (3, 24, 30)


def half_mask() -> torch.Tensor:
    mask = torch.zeros(1, *SHAPE[1:])
    mask[:, :, :15] = 1
    return mask


@pytest.mark.parametrize("mask", [None, half_mask()])
def test_identical_pictures_cost_nothing(mask):
    picture = torch.rand(SHAPE)
    assert photometric(picture, picture.clone(), mask) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("mask", [None, half_mask()])
def test_a_worse_picture_costs_more(mask):
    target, noise = torch.rand(SHAPE), torch.randn(SHAPE)
    costs = [float(photometric(target + amount * noise, target, mask)) for amount in (0.0, 0.02, 0.1, 0.3)]
    assert costs == sorted(costs)
    assert costs[1] > 0


def test_what_the_mask_hides_hardly_matters():
    target, mask = torch.rand(SHAPE), half_mask()
    picture = target.clone().requires_grad_()
    wrong = torch.where(torch.arange(SHAPE[2]) >= 25, 1 - target, target)  # further than a window from the mask
    assert photometric(wrong, target, mask) == pytest.approx(0, abs=1e-6)
    photometric(picture + 0.1, target, mask).backward()
    assert picture.grad[:, :, :15].abs().min() > 0
    assert not picture.grad[:, :, 25:].any()


def test_gradient_leads_to_the_target():
    target, picture = torch.rand(SHAPE), torch.rand(SHAPE).requires_grad_()
    optimizer = torch.optim.Adam([picture], lr=0.02)
    first = photometric(picture, target).item()
    for _ in range(60):
        optimizer.zero_grad()
        photometric(picture, target).backward()
        optimizer.step()
    assert photometric(picture, target).item() < 0.1 * first


@pytest.mark.parametrize("target", [torch.zeros(SHAPE), torch.rand(SHAPE)])
def test_an_empty_mask_asks_for_nothing(target):
    picture = torch.rand(SHAPE).requires_grad_()
    loss = photometric(picture, target, torch.zeros(1, *SHAPE[1:]))
    loss.backward()
    assert torch.isfinite(loss)
    assert abs(loss.item()) <= 0.2 + 1e-6
    assert not picture.grad.any()


def test_masked_mean():
    value = torch.arange(12.0).reshape(1, 3, 4).requires_grad_()
    mask = torch.zeros(1, 3, 4)
    empty = masked_mean(value, mask)
    empty.backward()
    assert empty == 0
    assert not value.grad.any()
    mask[0, 1] = 1
    assert masked_mean(value, mask).item() == pytest.approx(5.5)


def test_coverage_wants_one_inside_and_none_outside():
    opaque = half_mask()
    empty = 1 - opaque
    assert coverage(opaque.clone(), opaque, empty) == 0
    assert coverage(empty.clone(), opaque, empty) == pytest.approx(2)
    alpha = torch.full_like(opaque, 0.5).requires_grad_()
    coverage(alpha, opaque, empty).backward()
    assert (alpha.grad[opaque > 0] < 0).all()
    assert (alpha.grad[empty > 0] > 0).all()
    nowhere = torch.zeros_like(opaque)
    assert coverage(alpha, nowhere, nowhere) == 0


def test_masks_shrink_and_grow_by_pixels():
    mask = torch.zeros(1, 21, 21, dtype=torch.uint8)
    mask[:, 6:15, 6:15] = 255
    for radius in (1, 2, 3):
        small, large = erode(mask, radius), dilate(mask, radius)
        assert small[0, 10].count_nonzero() == 9 - 2 * radius
        assert large[0, 10].count_nonzero() == 9 + 2 * radius
        assert ((small <= mask) & (mask <= large)).all()
        assert small.dtype == large.dtype == torch.uint8
    assert torch.equal(erode(mask, 0), mask)
