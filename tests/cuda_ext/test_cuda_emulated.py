"""The CUDA kernels, compiled for the emulator, against the float64 oracle: it takes no GPU to know that they are right.

The recorded cases go through them in tests/parity. What an emulator cannot tell: speed, and what nvcc makes of them.
"""

from __future__ import annotations

import ctypes
import logging
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from agreement import Scene, assert_same_bits, assert_views_agree, draw, every_scheme, loss_and_gradient
from emulated_cuda import build
from torch import Tensor

from cuda_ext import _cuda, check_pair_room, rasterize

pytestmark = pytest.mark.usefixtures("emulated_cuda")
MakeScene = Callable[..., Scene]
FORWARD, REVERSED, SHUFFLED = range(3)
NAN, INF = math.nan, math.inf


def assert_agrees(scene: Scene) -> None:
    assert_views_agree(draw(scene, "cuda"), draw(scene, "reference", torch.float64))


def assert_every_scheme_agrees(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = draw(scene, "reference", torch.float64)
    for _scheme in every_scheme(monkeypatch):
        assert_views_agree(draw(scene, "cuda"), expected)


@pytest.mark.parametrize("features", [0, 1, 4, 5, 23])
def test_equals_the_reference(make_scene: MakeScene, features: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_every_scheme_agrees(make_scene(150, features=features), monkeypatch)


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (7, 130), (33, 8)])
def test_odd_sizes(make_scene: MakeScene, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert_every_scheme_agrees(make_scene(150, *size, features=2), monkeypatch)


@pytest.mark.parametrize("picture", ["color", "alpha", "depth", "features"])
def test_a_loss_of_one_picture_alone(make_scene: MakeScene, picture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients that autograd does not hand over stand for zeros; a second backward gives the same."""
    scene = make_scene(80, features=6)
    names = ("means", "opacities", "features", "background")

    def gradients(implementation: str, dtype: torch.dtype) -> list[list[Tensor]]:
        given = {k: v.to(dtype) if isinstance(v, Tensor) else v for k, v in scene.items()}
        leaves = {name: given[name].requires_grad_() for name in names}
        view = rasterize(**{**given, **leaves}, implementation=implementation)
        loss = getattr(view, picture).square().sum()
        found = [torch.autograd.grad(loss, leaves.values(), retain_graph=True, allow_unused=True) for _ in range(2)]
        return [
            [torch.zeros_like(x) if g is None else g for g, x in zip(f, leaves.values(), strict=True)] for f in found
        ]

    expected = gradients("reference", torch.float64)[0]
    for _scheme in every_scheme(monkeypatch):
        first, second = gradients("cuda", torch.float32)
        for name, a, b, true in zip(names, first, second, expected, strict=True):
            assert (a - true).norm() <= 2e-5 * true.norm() + 1e-9, name
            assert torch.equal(a, b), name


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_every_sh_degree(make_scene: MakeScene, degree: int) -> None:
    assert_agrees(make_scene(60) | {"sh_degree": degree})


def test_fewer_harmonics_than_degree_three(make_scene: MakeScene) -> None:
    scene = make_scene(60)
    assert_agrees(scene | {"sh": scene["sh"][:, :9]})


def test_given_colors(make_scene: MakeScene) -> None:
    scene = make_scene(90)
    scene["colors"] = scene.pop("sh")[:, 0]  # negative ones too: given colours are not clamped
    assert_agrees(scene)


@pytest.mark.parametrize("features", [2, 6])
def test_very_large_and_very_small_gaussians(
    make_scene: MakeScene, features: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The large ones meet more tiles than a single thread takes."""
    scene = make_scene(60, 75, 61, features=features)
    scene["scales"][:5] = 3.0
    scene["scales"][5:20] = 1e-9
    scene["scales"][20:30, 1] = 1.5
    assert_every_scheme_agrees(scene, monkeypatch)


def test_stacked_opaque_layers(make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_scene(200, 40, 30)
    scene["scales"] += 0.3
    scene["opacities"][:] = 1.0
    assert_every_scheme_agrees(scene, monkeypatch)


BROKEN = [
    *((name, value) for name in ("means", "quats", "scales", "opacities", "sh", "features") for value in (NAN, -INF)),
    ("means", INF), ("scales", INF), ("opacities", INF), ("sh", INF), ("features", INF),
    ("scales", 1e20), ("opacities", 1e30), ("sh", 1e30), ("features", 1e30), ("means", 3e38),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BROKEN)
def test_others_are_drawn_as_if_a_broken_one_were_not_there(make_scene: MakeScene, name: str, value: float) -> None:
    scene = make_scene(60, features=5)
    whole = torch.ones(60, dtype=torch.bool)
    whole[[0, 3, 7, 20, 59]] = False
    scene[name][~whole] = value
    view, grads = draw(scene, "cuda")
    without = {k: v[whole] if isinstance(v, Tensor) and len(v) == 60 else v for k, v in scene.items()}
    expected, expected_grads = draw(without, "cuda")
    assert torch.equal(view.color, expected.color)
    for leaf, grad in grads.items():
        if leaf == "background":
            assert torch.equal(grad, expected_grads[leaf])
        else:
            assert torch.equal(grad[whole], expected_grads[leaf]), leaf
            assert not grad[~whole].any(), leaf


def test_lists_longer_than_shared_memory(make_scene: MakeScene) -> None:
    """One tile with three runs to merge; many equal depths, whose order is that of the input."""
    scene = make_scene(4500, 16, 16)
    scene["scales"] += 0.5
    scene["means"][:, 2] = (scene["means"][:, 2] * 40).round() / 40
    scene["viewmat"][:3, :3] = torch.eye(3)
    scene["opacities"][:] = 0.006
    view, grads = draw(scene, "cuda")
    assert view.n_contrib.max() > 500
    expected, expected_grads = draw(scene, "cpu")
    assert (view.n_contrib != expected.n_contrib).sum() <= 2
    torch.testing.assert_close(view.color, expected.color, rtol=0, atol=2e-4)
    for name in ("means", "sh", "opacities"):
        assert (grads[name] - expected_grads[name]).norm() <= 1e-3 * expected_grads[name].norm(), name


@pytest.mark.parametrize("features", [0, 3])
def test_nothing_to_draw_shows_the_background(make_scene: MakeScene, features: int) -> None:
    scene = make_scene(0, features=features)
    view, grads = draw(scene, "cuda")
    assert torch.equal(view.color, scene["background"][:, None, None].expand_as(view.color))
    assert not view.alpha.any()
    assert not view.features.any()
    assert grads["means"].shape == (0, 3)
    assert_views_agree((view, grads), draw(scene, "reference"))


def test_gaussians_behind_or_beside_the_camera(make_scene: MakeScene) -> None:
    scene = make_scene(40)
    eye = -scene["viewmat"][:3, :3].T @ scene["viewmat"][:3, 3]
    away = scene["viewmat"][2, :3]
    scene["means"] = eye - away * torch.linspace(0.0, 2.0, 40)[:, None]
    scene["means"][30:] = eye + away + scene["viewmat"][0, :3] * 50
    view, grads = draw(scene, "cuda")
    assert not view.alpha.any()
    assert not view.radii.any()
    assert not any(grad.any() for name, grad in grads.items() if name != "background")


def test_degenerate_values_stay_finite(make_scene: MakeScene) -> None:
    scene = make_scene(40)
    scene["quats"][:4] = 0
    scene["scales"][4:8] = 0
    scene["opacities"][8:12] = 0
    scene["means"][12:16] = -scene["viewmat"][:3, :3].T @ scene["viewmat"][:3, 3]
    scene["means"][16] = torch.nan
    view, grads = draw(scene, "cuda")
    assert all(torch.isfinite(picture).all() for picture in view[:4])
    assert all(torch.isfinite(grad).all() for grad in grads.values())
    assert not grads["opacities"][8:17].any()


def test_any_order_of_threads_and_blocks_gives_the_same_bits(
    make_scene: MakeScene, emulated_cuda: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _scheme in every_scheme(monkeypatch):
        for features in (2, 6):
            scene = make_scene(120, 40, 36, features=features)
            scene["scales"][:3] = 1.0  # more tiles than a single thread takes
            results = []
            for order in (FORWARD, REVERSED, SHUFFLED):
                emulated_cuda.emulate_order(order)
                results.append(draw(scene, "cuda"))
            for result in results[1:]:
                assert_same_bits(result, results[0])


def test_first_picture_without_room_is_drawn_again(make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cuda.PairRoom, "FIRST_GUESS", 0)
    monkeypatch.setattr(_cuda.PairRoom, "STEP", 1)
    assert_agrees(make_scene(100))
    check_pair_room()


def test_later_picture_without_room_is_reported(
    make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_cuda.PairRoom, "STEP", 1)
    small, large = make_scene(100), make_scene(100)
    small["scales"] *= 0.1
    draw(small, "cuda")
    view, grads = draw(large, "cuda")
    assert not view.alpha.any()
    assert torch.equal(view.color, large["background"][:, None, None].expand_as(view.color))
    assert not any(grad.any() for name, grad in grads.items() if name != "background")
    with caplog.at_level(logging.WARNING):
        view, _ = draw(large, "cuda")
    assert "did not fit" in caplog.text
    assert view.alpha.any()


def test_pictures_without_room_are_an_error_when_checked(
    make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_cuda.PairRoom, "STEP", 1)
    small, large = make_scene(100), make_scene(100)
    small["scales"] *= 0.1
    draw(small, "cuda")
    check_pair_room()
    draw(large, "cuda")
    with pytest.raises(_cuda.PairOverflowError, match=r"61 x 45 px needed \d+"):
        check_pair_room()
    check_pair_room()
    assert draw(large, "cuda")[0].alpha.any()


def test_room_grows_with_the_number_of_gaussians(make_scene: MakeScene, caplog: pytest.LogCaptureFixture) -> None:
    for n in (50, 500, 100):
        assert draw(make_scene(n), "cuda")[0].alpha.any()
    assert not caplog.records


def test_more_pairs_than_can_be_counted_are_refused(make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cuda, "MOST_PAIRS", 10)
    with pytest.raises(ValueError, match="room for 800 pairs .* smaller or fewer"):
        draw(make_scene(100), "cuda")


def test_a_graph_needs_a_first_picture(make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cuda, "_is_capturing", lambda: True)
    with pytest.raises(RuntimeError, match="step once before capturing a CUDA graph"):
        draw(make_scene(10), "cuda")


def test_near_must_be_positive(make_scene: MakeScene) -> None:
    with pytest.raises(ValueError, match="near must be a positive distance, got -1"):
        draw(make_scene(3) | {"near": -1.0}, "cuda")


def pictures(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Return a picture, a noisy copy, and weights."""
    target = torch.rand(shape)
    return (target + 0.1 * torch.randn(shape)).clamp(0, 1), target, torch.rand(1, *shape[1:])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(3, 37, 53), (1, 3, 4), (2, 40, 8), (1, 1, 1)])
def test_loss_equals_the_reference(shape: tuple[int, ...], weighted: bool) -> None:
    prediction, target, mask = pictures(shape)
    mask = mask if weighted else None
    found = loss_and_gradient(prediction, target, mask, "cuda")
    double = None if mask is None else mask.double()
    expected = loss_and_gradient(prediction.double(), target.double(), double, "reference")
    assert found[0] == pytest.approx(expected[0], abs=1e-6)
    assert found[1] == pytest.approx(expected[1], abs=1e-5)
    assert (found[2] - expected[2]).norm() <= 1e-5 * expected[2].norm()


def test_loss_with_weights_of_zero_is_zero() -> None:
    prediction, target, mask = pictures((3, 20, 20))
    l1, ssim, grad = loss_and_gradient(prediction, target, torch.zeros_like(mask), "cuda")
    assert (l1, ssim) == (0, 0)
    assert not grad.any()


def test_loss_in_any_order_of_threads_and_blocks_gives_the_same_bits(emulated_cuda: ctypes.CDLL) -> None:
    prediction, target, mask = pictures((3, 45, 30))
    results = []
    for order in (FORWARD, REVERSED, SHUFFLED):
        emulated_cuda.emulate_order(order)
        results.append(loss_and_gradient(prediction, target, mask, "cuda"))
    assert all(r[:2] == results[0][:2] and torch.equal(r[2], results[0][2]) for r in results)


FAULTY = """
#include "emulate.h"

__global__ void reverse(int* values, bool with_barrier) {
  __shared__ int kept[64];
  kept[threadIdx.x] = values[threadIdx.x];
  if (with_barrier) __syncthreads();
  values[threadIdx.x] = kept[63 - threadIdx.x];
}

__global__ void half_a_barrier() {
  if (threadIdx.x < 32) __syncthreads();
}

extern "C" __attribute__((visibility("default"))) void run_reverse(int* values, bool with_barrier) {
  emulate::run(1, 64, [&] { reverse(values, with_barrier); });
}

extern "C" __attribute__((visibility("default"))) int run_half_a_barrier() {
  emulate::run(1, 64, [] { half_a_barrier(); });
  return cudaGetLastError();
}
"""


def test_emulator_finds_missing_barriers(tmp_path: Path) -> None:
    source, target = tmp_path / "faulty.cu", tmp_path / "faulty.so"
    source.write_text(FAULTY)
    build([source], target)
    library = ctypes.CDLL(str(target))
    found = {}
    for with_barrier in (True, False):
        for order in (FORWARD, REVERSED):
            values = (ctypes.c_int * 64)(*range(64))
            library.emulate_order(order)
            library.run_reverse(values, with_barrier)
            found[with_barrier, order] = list(values)
    assert found[True, FORWARD] == found[True, REVERSED] == list(range(63, -1, -1))
    assert found[False, FORWARD] != found[False, REVERSED]
    assert library.run_half_a_barrier() == 719
