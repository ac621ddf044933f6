"""The CUDA operators on a GPU: CUDA = CPU = reference, values and gradients, CUDA graphs, determinism."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from agreement import Scene, assert_same_bits, assert_views_agree, draw, every_scheme, loss_and_gradient

from cuda_ext import _cuda, check_pair_room, rasterize
from cuda_ext._library import is_built, is_cuda_built

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not is_cuda_built(), reason="CUDA operators not compiled"),
]
MakeScene = Callable[..., Scene]


def on_gpu(scene: Scene) -> Scene:
    return {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in scene.items()}


@pytest.mark.parametrize("features", [0, 2, 5, 23])
@pytest.mark.parametrize("size", [(61, 45), (1, 1), (7, 130), (160, 128)])
def test_equals_the_reference(
    make_scene: MakeScene, size: tuple[int, int], features: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make_scene(200, *size, features=features)
    expected = draw(scene, "reference", torch.float64)
    for _scheme in every_scheme(monkeypatch):
        assert_views_agree(draw(scene, "cuda", device="cuda"), expected)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_every_sh_degree(make_scene: MakeScene, degree: int) -> None:
    scene = make_scene(100) | {"sh_degree": degree}
    assert_views_agree(draw(scene, "cuda", device="cuda"), draw(scene, "reference", torch.float64))


def test_given_colors(make_scene: MakeScene) -> None:
    scene = make_scene(90)
    scene["colors"] = scene.pop("sh")[:, 0]
    assert_views_agree(draw(scene, "cuda", device="cuda"), draw(scene, "reference", torch.float64))


@pytest.mark.skipif(not is_built(), reason="CPU operators not compiled")
def test_a_whole_picture_equals_the_cpu(make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 20 000 Gaussians on 512 x 512 px. A few pixels may decide otherwise at a threshold."""
    scene = make_scene(20_000, 512, 512, features=2)
    scene["scales"] *= 0.2
    expected, expected_grads = draw(scene, "cpu")
    for _scheme in every_scheme(monkeypatch):
        view, grads = draw(scene, "cuda", device="cuda")
        differs = int((view.n_contrib != expected.n_contrib).sum())
        assert differs <= 50
        for name in ("color", "alpha", "features"):
            error = (getattr(view, name) - getattr(expected, name)).abs().amax(0)
            assert int((error > 1e-4).sum()) <= 2 * differs, name
            assert error.max() < 0.05, name
        for name, grad in expected_grads.items():
            assert (grads[name] - grad).norm() <= 2e-3 * grad.norm(), name


@pytest.mark.parametrize("features", [0, 3])
def test_nothing_to_draw_shows_the_background(make_scene: MakeScene, features: int) -> None:
    scene = make_scene(0, features=features)
    view, grads = draw(scene, "cuda", device="cuda")
    assert torch.equal(view.color, scene["background"][:, None, None].expand_as(view.color))
    assert grads["means"].shape == (0, 3)


def test_degenerate_values_stay_finite(make_scene: MakeScene) -> None:
    scene = make_scene(40)
    scene["quats"][:4] = 0
    scene["scales"][4:8] = 0
    scene["opacities"][8:12] = 0
    scene["means"][12:16] = -scene["viewmat"][:3, :3].T @ scene["viewmat"][:3, 3]
    view, grads = draw(scene, "cuda", device="cuda")
    assert all(torch.isfinite(picture).all() for picture in view[:4])
    assert all(torch.isfinite(grad).all() for grad in grads.values())


def test_repeats_give_the_same_bits(make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    for features in (2, 6):
        scene = make_scene(5000, 300, 200, features=features)
        for _scheme in every_scheme(monkeypatch):
            first = draw(scene, "cuda", device="cuda")
            for _ in range(5):
                assert_same_bits(draw(scene, "cuda", device="cuda"), first)


def test_a_million_gaussians(make_scene: MakeScene) -> None:
    scene = make_scene(1_000_000, 512, 512)
    scene["scales"] *= 0.1
    view, grads = draw(scene, "cuda", device="cuda")
    assert view.alpha.mean() > 0.5
    assert all(torch.isfinite(grad).all() for grad in grads.values())
    if is_built():
        expected, _ = draw(scene, "cpu")
        assert (view.color - expected.color).abs().mean() < 1e-5
    check_pair_room()


def test_two_views_may_be_open_at_once(make_scene: MakeScene) -> None:
    scenes = [on_gpu(make_scene(80, seed=seed)) for seed in (0, 1)]
    leaves = [scene["means"].clone().requires_grad_() for scene in scenes]
    views = [rasterize(**{**s, "means": m}) for s, m in zip(scenes, leaves, strict=True)]
    rasterize(**on_gpu(make_scene(300, seed=2)))
    for view in views:
        view.color.sum().backward()
    for scene, leaf in zip(scenes, leaves, strict=True):
        alone = scene["means"].clone().requires_grad_()
        rasterize(**{**scene, "means": alone}).color.sum().backward()
        assert torch.equal(leaf.grad, alone.grad)


def test_other_streams(make_scene: MakeScene) -> None:
    scene = on_gpu(make_scene(300))
    expected = rasterize(**scene)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = rasterize(**scene)
    stream.synchronize()
    assert torch.equal(found.color, expected.color)


def test_graph_replays_with_another_camera(make_scene: MakeScene) -> None:
    scene = on_gpu(make_scene(500, 100, 80))
    leaf = scene["means"].clone().requires_grad_()
    weights = torch.rand(3, 80, 100, device="cuda")

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        view = rasterize(**{**scene, "means": leaf})
        (grad,) = torch.autograd.grad((view.color * weights).sum(), leaf)
        return view.color.detach(), grad

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        color, grad = step()
    for shift in (0.0, 0.03, -0.05):
        scene["viewmat"][0, 3] += shift
        graph.replay()
        replayed = color.clone(), grad.clone()
        expected = step()
        assert torch.equal(replayed[0], expected[0])
        assert torch.equal(replayed[1], expected[1])
    check_pair_room()


def test_a_graph_needs_a_first_picture(make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = on_gpu(make_scene(10, 30, 20))
    monkeypatch.setattr(_cuda, "_rooms", {})
    monkeypatch.setattr(_cuda, "_is_capturing", lambda: True)
    with pytest.raises(RuntimeError, match="step once before capturing a CUDA graph"):
        rasterize(**scene)


def test_picture_without_room_is_reported(make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cuda, "_rooms", {})
    monkeypatch.setattr(_cuda.PairRoom, "STEP", 1)
    small, large = make_scene(100), make_scene(100)
    small["scales"] *= 0.1
    draw(small, "cuda", device="cuda")
    view, _ = draw(large, "cuda", device="cuda")
    assert not view.alpha.any()
    with pytest.raises(_cuda.PairOverflowError, match="61 x 45 px needed"):
        check_pair_room()
    assert draw(large, "cuda", device="cuda")[0].alpha.any()


def test_no_step_waits_for_the_device(make_scene: MakeScene) -> None:
    scene = on_gpu(make_scene(500))
    leaf = scene["means"].clone().requires_grad_()
    rasterize(**{**scene, "means": leaf}).color.sum().backward()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            rasterize(**{**scene, "means": leaf}).color.sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(3, 64, 64), (3, 37, 53), (1, 3, 4), (3, 512, 512)])
def test_loss_equals_the_reference(shape: tuple[int, ...], weighted: bool) -> None:
    target = torch.rand(shape)
    prediction = (target + 0.1 * torch.randn(shape)).clamp(0, 1)
    mask = torch.rand(1, *shape[1:]) if weighted else None
    found = loss_and_gradient(prediction, target, mask, "cuda", device="cuda")
    double = None if mask is None else mask.double()
    expected = loss_and_gradient(prediction.double(), target.double(), double, "reference")
    assert found[0] == pytest.approx(expected[0], abs=1e-6)
    assert found[1] == pytest.approx(expected[1], abs=1e-5)
    assert (found[2] - expected[2]).norm() <= 1e-5 * expected[2].norm()
    again = loss_and_gradient(prediction, target, mask, "cuda", device="cuda")
    assert again[:2] == found[:2]
    assert torch.equal(again[2], found[2])


def test_cuda_is_chosen_for_cuda_tensors(make_scene: MakeScene) -> None:
    scene = on_gpu(make_scene(50))
    assert torch.equal(rasterize(**scene).color, rasterize(**scene, implementation="cuda").color)
    assert rasterize(**{k: v.double() if isinstance(v, torch.Tensor) else v for k, v in scene.items()}).color.is_cuda
