"""Other rasterizers behind our interface, tried on faithful stand-ins: the drop-in, and a gsplat of ours."""

from __future__ import annotations

import sys
from collections.abc import Callable

import fake_gsplat
import pytest
import torch
from torch import Tensor

from cuda_ext import Rasterization, diff_gaussian_rasterization, rasterize
from cuda_ext.adapters import RasterizerMissingError, find_rasterizer

Scene = dict[str, Tensor]
INRIA, GSPLAT = "diff-gaussian-rasterization", "gsplat"
LEAVES = ("means", "quats", "scales", "opacities", "sh", "colors", "features", "background")
BOTH = pytest.mark.parametrize("name", [INRIA, GSPLAT])
FORKS = pytest.mark.parametrize("name", [GSPLAT, *diff_gaussian_rasterization.RETURNS])


@pytest.fixture
def rasterizer(name: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Rasterization]:
    """The adapter `name`, or that of Inria's for the fork `name`, on its stand-in."""
    if name == GSPLAT:
        monkeypatch.setitem(sys.modules, "gsplat", fake_gsplat)
        return find_rasterizer(GSPLAT)
    monkeypatch.setitem(sys.modules, diff_gaussian_rasterization.NAME, sys)  # put back afterwards
    diff_gaussian_rasterization.install("inria" if name == INRIA else name, replace=True)
    return find_rasterizer(INRIA)


def pulled_back(render: Callable[..., Rasterization], scene: Scene) -> tuple[Rasterization, dict[str, Tensor]]:
    """Render and pull a fixed random loss of every picture back."""
    leaves = {k: v.clone().requires_grad_() for k, v in scene.items() if k in LEAVES}
    leaves["means2d"] = torch.zeros(len(scene["means"]), 2, requires_grad=True)
    view = render(**{**scene, **leaves})
    generator = torch.Generator().manual_seed(7)
    loss = sum((p * (torch.rand(p.shape, generator=generator) - 0.5)).sum() for p in view[:4])
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return view, {k: torch.zeros_like(leaves[k]) if g is None else g for k, g in zip(leaves, grads, strict=True)}


def assert_like_ours(render: Callable[..., Rasterization], scene: Scene) -> None:
    expected, expected_grads = pulled_back(rasterize, scene)
    found, grads = pulled_back(render, scene)
    for name in ("color", "alpha", "depth", "features"):
        theirs, ours = getattr(found, name), getattr(expected, name)
        assert theirs.shape == ours.shape
        assert theirs.numel() == 0 or (theirs - ours).abs().max() < 1e-4, name
    assert found.radii.dtype == torch.int32
    assert torch.equal(found.radii > 0, expected.radii > 0)
    assert (found.n_contrib == -1).all()
    for name, grad in expected_grads.items():
        assert (grads[name] - grad).norm() <= 2e-4 * grad.norm() + 1e-9, name


@FORKS
@pytest.mark.parametrize("features", [0, 1, 5])
def test_pictures_and_gradients_are_ours(
    make_scene: Callable[..., Scene], rasterizer: Callable[..., Rasterization], features: int
) -> None:
    scene = make_scene(80, features=features)
    scene["means"] *= 0.7  # well inside, where everybody's Jacobian is the same
    assert_like_ours(rasterizer, scene)


@BOTH
def test_given_colors_and_lower_degrees(
    make_scene: Callable[..., Scene], rasterizer: Callable[..., Rasterization]
) -> None:
    scene = make_scene(60)
    scene["means"] *= 0.7
    assert_like_ours(rasterizer, scene | {"sh_degree": 1})
    colors = scene.pop("sh")[:, 0]
    assert_like_ours(rasterizer, scene | {"colors": colors})


@BOTH
def test_a_crop_far_from_the_optical_axis(
    make_scene: Callable[..., Scene], rasterizer: Callable[..., Rasterization]
) -> None:
    """The picture's principal point is outside; what is drawn is what a whole picture shows there."""
    scene = make_scene(200, 96, 80)
    scene["means"] = scene["means"] * 0.3 - torch.tensor([0.3, 0.2, 0.0])
    scene["scales"] *= 0.2
    whole = rasterize(**scene)
    left, top, width, height = 3, 5, 24, 16
    scene["K"][0, 2] -= left
    scene["K"][1, 2] -= top
    crop = rasterizer(**scene | {"width": width, "height": height})
    window = (slice(None), slice(top, top + height), slice(left, left + width))
    assert crop.color.shape == (3, height, width)
    assert crop.alpha.max() > 0.3
    torch.testing.assert_close(crop.color, whole.color[window], rtol=0, atol=5e-4)  # a crop limits its own Jacobian


@BOTH
def test_nothing_to_draw(make_scene: Callable[..., Scene], rasterizer: Callable[..., Rasterization]) -> None:
    scene = make_scene(0)
    view, grads = pulled_back(rasterizer, scene)
    assert torch.equal(view.color, scene["background"][:, None, None].expand_as(view.color))
    assert grads["means2d"].shape == (0, 2)


@BOTH
def test_frozen_geometry_needs_no_gradient(
    make_scene: Callable[..., Scene], rasterizer: Callable[..., Rasterization]
) -> None:
    scene = make_scene(30)
    leaf = scene["sh"].clone().requires_grad_()
    rasterizer(**{**scene, "sh": leaf}).color.sum().backward()
    assert leaf.grad.any()
    with torch.no_grad():
        assert not rasterizer(**scene).color.requires_grad


@BOTH
def test_limits_are_told(make_scene: Callable[..., Scene], rasterizer: Callable[..., Rasterization]) -> None:
    scene = make_scene(10)
    with pytest.raises(ValueError, match="absolute gradients come from our own"):
        rasterizer(**scene, means2d=torch.zeros(10, 4))
    with pytest.raises(ValueError, match="takes float32"):
        rasterizer(**{k: v.double() if isinstance(v, Tensor) else v for k, v in scene.items()})
    with pytest.raises(ValueError, match="quats must be"):
        rasterizer(**{**scene, "quats": torch.zeros(10, 3)})


@pytest.mark.parametrize("name", [INRIA])
def test_inrias_near_plane_is_fixed(make_scene: Callable[..., Scene], rasterizer: Callable[..., Rasterization]) -> None:
    with pytest.raises(ValueError, match=r"near is fixed at 0\.2, got 0\.01"):
        rasterizer(**make_scene(10), near=0.01)


@pytest.mark.parametrize("name", [GSPLAT])
def test_gsplats_near_plane_is_ours(make_scene: Callable[..., Scene], rasterizer: Callable[..., Rasterization]) -> None:
    scene = make_scene(30)
    assert rasterizer(**scene, near=1.9).alpha.mean() < rasterizer(**scene).alpha.mean()


@BOTH
def test_a_missing_rasterizer_is_explained(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name.replace("-", "_"), None)  # importing it fails
    with pytest.raises(RasterizerMissingError, match=rf"{name} cannot be imported .*; install it: pip install"):
        find_rasterizer(name)


def test_a_rasterizer_for_cuda_alone_needs_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gsplat", fake_gsplat)
    monkeypatch.delattr(fake_gsplat, "devices")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RasterizerMissingError, match="runs on CUDA only"):
        find_rasterizer(GSPLAT)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="must be one of diff-gaussian-rasterization, gsplat, got 'theirs'"):
        find_rasterizer("theirs")
