"""How the implementations of an operator are compared: values and gradients of a fixed random loss."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from cuda_ext import Rasterization, _cuda, l1_ssim, rasterize

Scene = dict[str, Tensor]
LEAVES = ("means", "quats", "scales", "opacities", "sh", "colors", "features", "background", "means2d")


def every_scheme(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Set each way that the CUDA kernels can divide the work, one after the other; gives its name."""
    for lanes in (False, True):
        for tile in (8, 16):
            monkeypatch.setattr(_cuda, "TILE_PX", tile)
            monkeypatch.setattr(_cuda, "LANES", lanes)
            yield f"{tile} px, {'lanes' if lanes else 'pixels'}"


def draw(
    scene: Scene, implementation: str, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[Rasterization, dict[str, Tensor]]:
    """Render and pull a fixed random loss back; returns the view and the gradients, on the CPU."""
    scene = {k: v.to(device, dtype) if isinstance(v, Tensor) else v for k, v in scene.items()}
    leaves = {k: v.clone().requires_grad_() for k, v in scene.items() if k in LEAVES}
    leaves["means2d"] = torch.zeros(len(scene["means"]), 4, dtype=dtype, device=device, requires_grad=True)
    view = rasterize(**{**scene, **leaves}, implementation=implementation)
    generator = torch.Generator().manual_seed(7)
    loss = sum(
        (picture * (torch.rand(picture.shape, generator=generator, dtype=torch.float64) - 0.5).to(picture)).sum()
        for picture in view[:4]
    )
    loss.backward()
    grads = {k: torch.zeros_like(v) if v.grad is None else v.grad for k, v in leaves.items()}
    return Rasterization(*(x.detach().cpu() for x in view)), {k: v.cpu() for k, v in grads.items()}


def assert_views_agree(
    found: tuple[Rasterization, dict[str, Tensor]], expected: tuple[Rasterization, dict[str, Tensor]]
) -> None:
    """Float32 against an oracle. A decision may flip in a pixel or two, so a few outliers pass."""
    (view, grads), (oracle, oracle_grads) = found, expected
    flipped = int((view.n_contrib != oracle.n_contrib).sum())
    assert flipped <= 2
    for name in ("color", "alpha", "depth", "features"):
        picture, true = getattr(view, name), getattr(oracle, name)
        assert picture.shape == true.shape
        if picture.numel():
            assert int(((picture - true).abs().amax(0) > 2e-5).sum()) <= flipped, name
    assert int((view.radii != oracle.radii).sum()) <= 1
    for name, grad in oracle_grads.items():
        limit = 2e-5 if flipped == 0 else 2e-3
        assert (grads[name] - grad).norm() <= limit * grad.norm() + 1e-9, name


def assert_same_bits(
    found: tuple[Rasterization, dict[str, Tensor]], expected: tuple[Rasterization, dict[str, Tensor]]
) -> None:
    """Both views and all their gradients are equal."""
    for name, picture in expected[0]._asdict().items():
        assert torch.equal(getattr(found[0], name), picture), name
    for name, grad in expected[1].items():
        assert torch.equal(found[1][name], grad), name


def loss_and_gradient(
    prediction: Tensor, target: Tensor, mask: Tensor | None, implementation: str, device: str = "cpu"
) -> tuple[float, float, Tensor]:
    """Return L1, SSIM and the gradient of 0.8 L1 - 0.2 SSIM."""
    leaf = prediction.to(device, copy=True).requires_grad_()
    weights = None if mask is None else mask.to(device)
    l1, ssim = l1_ssim(leaf, target.to(device), weights, implementation=implementation)
    (0.8 * l1 - 0.2 * ssim).backward()
    return l1.item(), ssim.item(), leaf.grad.double().cpu()
