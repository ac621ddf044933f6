"""Broken input: a Gaussian that is no Gaussian is left out, and harms neither the picture nor the others' gradients."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cuda_ext import rasterize

Scene = dict[str, Tensor]
PER_GAUSSIAN = ("means", "quats", "scales", "opacities", "sh", "features")
LEAVES = (*PER_GAUSSIAN, "background", "means2d")
NAN, INF = math.nan, math.inf
pytestmark = pytest.mark.usefixtures("every_copy")


def run(scene: Scene, seed: int = 7) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Render and pull a fixed random loss back; returns color, alpha, depth, features and the gradients."""
    leaves = {k: scene[k].clone().requires_grad_() for k in LEAVES if k in scene}
    pictures = rasterize(**{**scene, **leaves}, implementation="cpu")[:4]
    generator = torch.Generator().manual_seed(seed)
    cotangents = [torch.rand(picture.shape, generator=generator) - 0.5 for picture in pictures]
    grads = torch.autograd.grad(pictures, list(leaves.values()), cotangents)
    return [picture.detach() for picture in pictures], dict(zip(leaves, grads, strict=True))


def without(scene: Scene, rows: Tensor) -> Scene:
    """Take Gaussians out; `rows` is True for those."""
    return {k: v[~rows] if k in (*PER_GAUSSIAN, "means2d") else v for k, v in scene.items()}


BROKEN = [
    *(((name, value)) for name in PER_GAUSSIAN for value in (NAN, INF, -INF)),
    ("scales", 1e20), ("opacities", 1e30), ("opacities", -1e30), ("opacities", -0.5), ("sh", 1e30), ("sh", 3e38),
    ("features", 1e30), ("means", 3e38), ("means", -3e38),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BROKEN)
@pytest.mark.parametrize("features", [2, 5])
def test_others_are_drawn_as_if_it_were_not_there(
    make_scene: Callable[..., Scene], name: str, value: float, features: int
) -> None:
    scene = make_scene(60, features=features) | {"means2d": torch.zeros(60, 4)}
    broken = torch.zeros(60, dtype=torch.bool)
    broken[[0, 3, 7, 20, 21, 59]] = True
    for row in broken.nonzero()[:, 0].tolist():
        flat = scene[name][row].view(-1) if scene[name].ndim > 1 else scene[name][row : row + 1]
        flat[row % len(flat)] = value
    if name == "sh" and abs(value) == 3e38:
        scene["sh"][broken] = value  # sums overflow
    pictures, grads = run(scene)
    expected, expected_grads = run(without(scene, broken))
    assert all(torch.equal(a, b) for a, b in zip(pictures, expected, strict=True))
    for leaf, grad in grads.items():
        if leaf == "background":
            assert torch.equal(grad, expected_grads[leaf])
        else:
            assert torch.equal(grad[~broken], expected_grads[leaf]), leaf
            assert not grad[broken].any(), leaf


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("quats", 0.0), ("quats", 1e-38), ("quats", 1e38), ("scales", 0.0), ("scales", -0.05), ("scales", 1e-38),
        ("scales", 1e3), ("scales", 1e7), ("opacities", 1.0), ("opacities", 1e6), ("opacities", 1 / 255), ("sh", 1e6),
        ("features", -1e6), ("means", 1e6),
    ],
)  # fmt: skip
def test_extreme_values_are_drawn_and_stay_finite(make_scene: Callable[..., Scene], name: str, value: float) -> None:
    scene = make_scene(60, features=2) | {"means2d": torch.zeros(60, 4)}
    scene[name][::7] = value
    pictures, grads = run(scene)
    assert all(torch.isfinite(picture).all() for picture in pictures)
    assert all(torch.isfinite(grad).all() for grad in grads.values())
    if name in ("sh", "features", "means") or value in (1e7, 1e38):
        return  # of another size than the oracle's tolerance, or beyond float32 there
    expected = rasterize(**scene, implementation="reference")[:4]
    for picture, reference in zip(pictures, expected, strict=True):
        assert int(((picture - reference).abs() > 1e-4).any(0).sum()) <= 2


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 40), (33, 2), (16, 16), (257, 3)])
@pytest.mark.parametrize("centre", [(0.0, 0.0), (-300.0, 0.5), (5.0, 1e4), (1e9, -1e9)])
def test_any_picture_and_principal_point(
    make_scene: Callable[..., Scene], width: int, height: int, centre: tuple[float, float]
) -> None:
    scene = make_scene(40, width, height)
    scene["K"][:2, 2] = torch.tensor(centre)
    pictures, grads = run(scene)
    assert all(torch.isfinite(grad).all() for grad in grads.values())
    expected = rasterize(**scene, implementation="reference")[:4]
    for picture, reference in zip(pictures, expected, strict=True):
        torch.testing.assert_close(picture, reference, rtol=1e-3, atol=1e-3)


VALUES = (NAN, INF, -INF, 0.0, -0.0, 1e-38, -1e-20, 1e-3, 2.0, -7.0, 1e4, 1e10, -1e15, 1e20, 3e38, -3e38)


@pytest.mark.parametrize("seed", range(60))
def test_anything_goes(make_scene: Callable[..., Scene], seed: int) -> None:
    """Random values in random places: nothing crashes, whoever is finite keeps finite gradients."""
    dice = random.Random(seed)  # noqa: S311 - no secret
    n, features = dice.choice([0, 1, 7, 8, 9, 40, 300]), dice.choice([0, 1, 2, 3, 9])
    scene = make_scene(n, dice.randint(1, 70), dice.randint(1, 50), seed=seed, features=features)
    scene["sh"] = scene["sh"][:, : dice.choice([1, 4, 9, 16])].contiguous()
    scene["K"][:2, 2] += torch.tensor([dice.uniform(-40, 40), dice.uniform(-40, 40)])
    if dice.random() < 0.7:
        scene["means2d"] = torch.zeros(n, dice.choice([2, 4]))
    broken = torch.zeros(n, dtype=torch.bool)
    for _ in range(dice.randint(0, n)):
        name, row = dice.choice([k for k in PER_GAUSSIAN if k in scene]), dice.randrange(n)
        place = scene[name].view(n, -1)[row]
        place[dice.randrange(len(place))] = dice.choice(VALUES)
        broken[row] = True
    pictures, grads = run(scene, seed)
    assert all(torch.isfinite(picture).all() for picture in pictures)
    for leaf, grad in grads.items():
        assert torch.isfinite(grad if leaf == "background" else grad[~broken]).all(), leaf
