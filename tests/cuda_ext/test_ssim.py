"""`l1_ssim`: compiled = plain PyTorch = a direct 2D convolution, gradients, weights."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor

from cuda_ext import _reference, l1_ssim


def pair(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Return a picture, a noisy copy, and weights."""
    target = torch.rand(shape, dtype=torch.float64)
    prediction = (target + 0.1 * torch.randn(shape, dtype=torch.float64)).clamp(0, 1)
    return prediction.to(dtype), target.to(dtype), torch.rand(1, *shape[1:], dtype=torch.float64).to(dtype)


@pytest.mark.usefixtures("every_copy")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(3, 64, 64), (3, 37, 53), (1, 1, 1), (1, 3, 4), (2, 100, 8), (1, 5, 200)])
def test_compiled_equals_reference(shape: tuple[int, ...], weighted: bool) -> None:
    results = []
    prediction, target, mask = pair(shape, torch.float64)
    for implementation, dtype in (("reference", torch.float64), ("cpu", torch.float32)):
        leaf = prediction.to(dtype, copy=True).requires_grad_()
        weights = mask.to(dtype) if weighted else None
        l1, ssim = l1_ssim(leaf, target.to(dtype), weights, implementation=implementation)
        (0.8 * l1 - 0.2 * ssim).backward()
        results.append((l1.item(), ssim.item(), leaf.grad.double()))
    assert results[1][0] == pytest.approx(results[0][0], abs=1e-6)
    assert results[1][1] == pytest.approx(results[0][1], abs=1e-5)
    assert (results[1][2] - results[0][2]).norm() <= 1e-5 * results[0][2].norm()


def test_ssim_is_the_textbook_formula() -> None:
    x, y, _ = pair((3, 20, 30), torch.float64)
    taps = _reference.gaussian_window(torch.float64, torch.device("cpu"))
    kernel = torch.outer(taps, taps)[None, None]

    def mean(image: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(image[:, None], kernel, padding=5)[:, 0]

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    luminance = (2 * mx * my + 1e-4) / (mx**2 + my**2 + 1e-4)
    expected = (luminance * (2 * cov + 9e-4) / (vx + vy + 9e-4)).mean()
    assert l1_ssim(x, y)[1].item() == pytest.approx(expected.item(), abs=1e-12)


def test_reference_gradient_by_finite_differences() -> None:
    prediction, target, mask = pair((1, 9, 8), torch.float64)
    assert torch.autograd.gradcheck(lambda x: l1_ssim(x, target, mask), prediction.requires_grad_(), fast_mode=True)


@pytest.mark.parametrize("implementation", ["auto", "reference"])
def test_equal_pictures(implementation: str) -> None:
    _, target, mask = pair((3, 24, 24))
    leaf = target.clone().requires_grad_()
    l1, ssim = l1_ssim(leaf, target, mask, implementation=implementation)
    (l1 - ssim).backward()
    assert l1.item() == 0
    assert ssim.item() == pytest.approx(1, abs=1e-6)
    assert leaf.grad.abs().max() < 1e-5


@pytest.mark.parametrize("implementation", ["auto", "reference"])
def test_weights_of_ones_change_nothing_and_zeros_give_no_nan(implementation: str) -> None:
    prediction, target, mask = pair((3, 24, 24))
    plain = l1_ssim(prediction, target, implementation=implementation)
    ones = l1_ssim(prediction, target, torch.ones_like(mask), implementation=implementation)
    torch.testing.assert_close(ones, plain)
    leaf = prediction.requires_grad_()
    l1, ssim = l1_ssim(leaf, target, torch.zeros_like(mask), implementation=implementation)
    (l1 + ssim).backward()
    assert (l1.item(), ssim.item()) == (0, 0)
    assert not leaf.grad.any()


@pytest.mark.usefixtures("every_copy")
def test_every_thread_count_gives_the_same_bits() -> None:
    prediction, target, mask = pair((3, 90, 70))
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaf = prediction.clone().requires_grad_()
            l1, ssim = l1_ssim(leaf, target, mask, implementation="cpu")
            (l1 - ssim).backward()
            results.append((l1.item(), ssim.item(), leaf.grad))
    finally:
        torch.set_num_threads(before)
    assert all(r[:2] == results[0][:2] and torch.equal(r[2], results[0][2]) for r in results)


def test_unfit_arguments_are_refused() -> None:
    prediction, target, _ = pair((3, 8, 8))
    check = inspect.unwrap(l1_ssim)
    with pytest.raises(ValueError, match=r"must both be \[C, H, W\]"):
        check(prediction, target[:, 1:])
    with pytest.raises(ValueError, match="mask must be"):
        check(prediction, target, torch.ones(8, 8))
    with pytest.raises(ValueError, match="convert one"):
        check(prediction, target.double())
