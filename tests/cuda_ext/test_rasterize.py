"""`rasterize`: compiled = plain PyTorch on random scenes, finite differences, and the properties of the picture."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cuda_ext import Rasterization, rasterize

Scene = dict[str, Tensor]
LEAVES = ("means", "quats", "scales", "opacities", "sh", "colors", "features", "background", "means2d")
pytestmark = pytest.mark.usefixtures("compiled")


def run(
    scene: Scene, implementation: str, dtype: torch.dtype = torch.float32
) -> tuple[Rasterization, dict[str, Tensor]]:
    """Render and pull a fixed random loss back; returns the view and the gradients."""
    scene = {k: v.to(dtype) if isinstance(v, Tensor) else v for k, v in scene.items()}
    leaves = {k: v.clone().requires_grad_() for k, v in scene.items() if k in LEAVES}
    leaves["means2d"] = torch.zeros(len(scene["means"]), 4, dtype=dtype, requires_grad=True)
    view = rasterize(**{**scene, **leaves}, implementation=implementation)
    generator = torch.Generator().manual_seed(7)
    loss = sum(
        (picture * (torch.rand(picture.shape, generator=generator, dtype=torch.float64) - 0.5).to(dtype)).sum()
        for picture in view[:4]
    )
    loss.backward()
    return view, {k: torch.zeros_like(v) if v.grad is None else v.grad for k, v in leaves.items()}


def assert_agree(scene: Scene) -> None:
    """Compiled float32 against the float64 oracle. A decision may flip in a pixel or two, so a few outliers pass."""
    expected, expected_grads = run(scene, "reference", torch.float64)
    found, grads = run(scene, "cpu")
    flipped = int((found.n_contrib != expected.n_contrib).sum())
    assert flipped <= 2
    for name in ("color", "alpha", "depth", "features"):
        error = (getattr(found, name) - getattr(expected, name)).abs().amax(0) if getattr(found, name).numel() else None
        assert error is None or int((error > 2e-5).sum()) <= flipped, name
    assert int((found.radii != expected.radii).sum()) <= 1
    for name, grad in expected_grads.items():
        limit = 2e-5 if flipped == 0 else 2e-3
        assert (grads[name] - grad).norm() <= limit * grad.norm() + 1e-9, name


@pytest.mark.usefixtures("every_copy")
@pytest.mark.parametrize("features", [0, 1, 2, 5, 40])
@pytest.mark.parametrize("size", [(61, 45), (16, 16), (7, 130)])
def test_compiled_equals_reference(make_scene: Callable[..., Scene], size: tuple[int, int], features: int) -> None:
    assert_agree(make_scene(150, *size, features=features))


@pytest.mark.usefixtures("every_copy")
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_every_sh_degree(make_scene: Callable[..., Scene], degree: int) -> None:
    assert_agree(make_scene(60) | {"sh_degree": degree})


@pytest.mark.usefixtures("every_copy")
def test_given_colors(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(90)
    scene["colors"] = scene.pop("sh")[:, 0]  # negative ones too: given colours are not clamped
    assert_agree(scene)


@pytest.mark.usefixtures("every_copy")
def test_very_large_and_very_small_gaussians(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(60)
    scene["scales"][:5] = 3.0
    scene["scales"][5:20] = 1e-9
    scene["scales"][20:30, 1] = 1.5
    assert_agree(scene)


@pytest.mark.usefixtures("every_copy")
def test_float32_scene_is_made_of_stacked_opaque_layers(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(200)
    scene["scales"] += 0.3
    scene["opacities"][:] = 1.0
    assert_agree(scene)


def test_finite_differences(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(6, 20, 18, dtype=torch.float64, seed=3, features=2)
    scene["means2d"] = torch.zeros(6, 2, dtype=torch.float64)
    names = [name for name in LEAVES if name in scene]
    leaves = [scene[name].clone().requires_grad_() for name in names]

    def render(*values: Tensor) -> tuple[Tensor, ...]:
        return tuple(rasterize(**{**scene, **dict(zip(names, values, strict=True))})[:4])

    assert torch.autograd.gradcheck(render, leaves, eps=1e-7, atol=2e-5, rtol=1e-3, fast_mode=True)


def test_screen_space_gradient_is_scaled_to_half_pictures(make_scene: Callable[..., Scene]) -> None:
    """Moving the principal point by one pixel moves every centre by one pixel."""
    scene = make_scene(40)
    _, grads = run(scene, "cpu")
    step = 1e-5
    losses = []
    for sign in (-1, 1):
        moved = {k: v.double() if isinstance(v, Tensor) else v for k, v in scene.items()}
        moved["K"] = moved["K"].clone()
        moved["K"][0, 2] += sign * step
        generator = torch.Generator().manual_seed(7)
        view = rasterize(**moved)
        losses.append(
            sum((p * (torch.rand(p.shape, generator=generator, dtype=torch.float64) - 0.5)).sum() for p in view[:4])
        )
    expected = (losses[1] - losses[0]) / (2 * step) * scene["width"] / 2
    assert grads["means2d"][:, 0].sum().item() == pytest.approx(float(expected), rel=1e-3)


@pytest.mark.parametrize("implementation", ["cpu", "reference"])
def test_nothing_to_draw_shows_the_background(make_scene: Callable[..., Scene], implementation: str) -> None:
    for scene in (make_scene(0), make_scene(0, features=3)):
        view, grads = run(scene, implementation)
        assert torch.equal(view.color, scene["background"][:, None, None].expand_as(view.color))
        assert not view.alpha.any()
        assert grads["means"].shape == (0, 3)


@pytest.mark.parametrize("implementation", ["cpu", "reference"])
def test_gaussians_behind_or_beside_the_camera(make_scene: Callable[..., Scene], implementation: str) -> None:
    scene = make_scene(40)
    eye = -scene["viewmat"][:3, :3].T @ scene["viewmat"][:3, 3]
    away = scene["viewmat"][2, :3]
    scene["means"] = eye - away * torch.linspace(0.0, 2.0, 40)[:, None]
    scene["means"][30:] = eye + away + scene["viewmat"][0, :3] * 50
    view, grads = run(scene, implementation)
    assert not view.alpha.any()
    assert not view.radii.any()
    assert all(torch.isfinite(grad).all() for grad in grads.values())
    assert not any(grad.any() for name, grad in grads.items() if name != "background")


@pytest.mark.usefixtures("every_copy")
@pytest.mark.parametrize("implementation", ["cpu", "reference"])
def test_degenerate_values_stay_finite(make_scene: Callable[..., Scene], implementation: str) -> None:
    scene = make_scene(40)
    scene["quats"][:4] = 0
    scene["scales"][4:8] = 0
    scene["opacities"][8:12] = 0
    scene["means"][12:16] = -scene["viewmat"][:3, :3].T @ scene["viewmat"][:3, 3]
    view, grads = run(scene, implementation)
    assert all(torch.isfinite(picture).all() for picture in view[:4])
    assert all(torch.isfinite(grad).all() for grad in grads.values())
    assert not grads["opacities"][8:16].any()


@pytest.mark.usefixtures("every_copy")
def test_a_nan_gaussian_is_dropped(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(20)
    without = {k: v[1:] if isinstance(v, Tensor) and len(v) == 20 else v for k, v in scene.items()}
    scene["means"][0, 0] = math.nan
    found, grads = run(scene, "cpu")
    assert torch.equal(found.color, run(without, "cpu")[0].color)
    assert not any(grads[name][0].any() for name in ("means", "quats", "scales", "opacities", "sh"))


@pytest.mark.usefixtures("every_copy")
@pytest.mark.parametrize("implementation", ["cpu", "reference"])
def test_hidden_gaussian_gets_exactly_no_gradient(make_scene: Callable[..., Scene], implementation: str) -> None:
    scene = make_scene(12)
    forward = scene["viewmat"][2, :3]
    eye = -scene["viewmat"][:3, :3].T @ scene["viewmat"][:3, 3]
    scene["means"] = eye + forward * torch.linspace(1.0, 2.0, 12)[:, None]
    scene["scales"][:] = 4.0
    scene["opacities"][:] = 0.95  # the fourth would leave 6e-6 of the light
    view, grads = run(scene, implementation)
    assert int(view.n_contrib.max()) == 3
    assert not any(grads[name][3:].any() for name in ("means", "quats", "scales", "opacities", "sh", "means2d"))
    assert all(grads[name][:3].any() for name in ("means", "opacities", "sh"))


def test_order_of_the_arguments_does_not_matter(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(120)
    shuffle = torch.randperm(120)
    shuffled = {k: v[shuffle] if isinstance(v, Tensor) and len(v) == 120 else v for k, v in scene.items()}
    found, grads = run(scene, "cpu")
    again, again_grads = run(shuffled, "cpu")
    assert torch.equal(found.color, again.color)
    torch.testing.assert_close(grads["means"][shuffle], again_grads["means"], rtol=1e-5, atol=1e-5)


def test_background_enters_linearly(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(50)
    black = rasterize(**{**scene, "background": torch.zeros(3)})
    view = rasterize(**scene)
    expected = black.color + (1 - black.alpha) * scene["background"][:, None, None]
    torch.testing.assert_close(view.color, expected, rtol=0, atol=1e-6)


def test_features_of_ones_blend_to_alpha(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(50)
    scene["features"] = torch.ones(50, 1)
    view = rasterize(**scene)
    torch.testing.assert_close(view.features, view.alpha, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("every_copy")
def test_every_thread_count_gives_the_same_bits(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(9000, 250, 190, features=2)  # enough for lists that are built in parallel
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            view, grads = run(scene, "cpu")
            results.append([*view, *grads.values()])
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))


def test_two_views_may_be_open_at_once(make_scene: Callable[..., Scene]) -> None:
    """The backward of the first view must not read the second view's memory, nor that of a freed one."""
    leaves = [make_scene(80, seed=seed)["means"].requires_grad_() for seed in (0, 1)]
    scenes = [make_scene(80, seed=seed) for seed in (0, 1)]
    views = [rasterize(**{**s, "means": m}) for s, m in zip(scenes, leaves, strict=True)]
    rasterize(**make_scene(300, seed=2))
    for view in views:
        view.color.sum().backward(retain_graph=True)
    for scene, leaf in zip(scenes, leaves, strict=True):
        alone = scene["means"].clone().requires_grad_()
        rasterize(**{**scene, "means": alone}).color.sum().backward()
        assert torch.equal(leaf.grad, alone.grad)


@pytest.mark.usefixtures("every_copy")
@pytest.mark.parametrize("coefficients", [1, 2, 5, 9, 20])
def test_any_number_of_harmonics_held(make_scene: Callable[..., Scene], coefficients: int) -> None:
    scene = make_scene(37)
    scene["sh"] = torch.cat([scene["sh"], scene["sh"]], 1)[:, :coefficients]
    assert_agree(scene)


@pytest.mark.usefixtures("every_copy")
@pytest.mark.parametrize("wanted", [("color",), ("alpha",), ("depth",), ("features",), ("color", "features")])
@pytest.mark.parametrize("features", [2, 5])
def test_loss_on_some_of_the_pictures(make_scene: Callable[..., Scene], wanted: tuple[str, ...], features: int) -> None:
    """Pictures without a gradient are left out of backward; what remains must be the same."""
    grads = []
    for implementation, dtype in (("reference", torch.float64), ("cpu", torch.float32)):
        scene = {k: v.to(dtype) if isinstance(v, Tensor) else v for k, v in make_scene(80, features=features).items()}
        leaves = {k: scene[k].requires_grad_() for k in LEAVES if k in scene}
        leaves["means2d"] = torch.zeros(80, 2, dtype=dtype, requires_grad=True)
        view = rasterize(**{**scene, **leaves}, implementation=implementation)
        loss = sum(getattr(view, name).square().sum() for name in wanted)
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
        grads.append(dict(zip(leaves, found, strict=True)))
    for name, expected in grads[0].items():
        assert (grads[1][name] - expected).norm() <= 2e-5 * expected.norm() + 1e-9, name


def test_non_contiguous_inputs(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(30)
    strided = {**scene, "means": scene["means"].T.contiguous().T, "sh": scene["sh"].transpose(1, 2).contiguous().mT}
    assert torch.equal(rasterize(**scene).color, rasterize(**strided).color)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"means": torch.zeros(4, 2)}, r"means must be \[4, 3\] torch.float32 on cpu, got \[4, 2\]"),
        ({"quats": torch.zeros(4, 3)}, r"quats must be \[4, 4\]"),
        ({"scales": torch.zeros(4, 3, dtype=torch.float64)}, "got .* torch.float64"),
        ({"opacities": torch.zeros(4, 1)}, r"opacities must be \[4\]"),
        ({"sh": None}, "exactly one of sh and colors"),
        ({"colors": torch.zeros(4, 3)}, "exactly one of sh and colors"),
        ({"sh_degree": 4}, r"sh_degree must be 0..3, got 4"),
        ({"features": torch.zeros(3, 1)}, "features must be"),
        ({"background": torch.zeros(3, 4, 4)}, "background must be"),
        ({"means2d": torch.zeros(4, 3)}, "means2d must be"),
        ({"K": torch.eye(4)}, "viewmat must be"),
        ({"width": 0}, "1 to 32768 px"),
        ({"height": 40_000}, "1 to 32768 px"),
        ({"K": torch.zeros(3, 3)}, "focal lengths above 0"),
        ({"viewmat": torch.full((4, 4), math.nan)}, "must be finite"),
        ({"near": 0.0}, "near must be a positive distance"),
        ({"background": torch.full((3,), math.inf)}, "background must be finite"),
        ({"implementation": "gpu"}, "implementation must be one of"),
    ],
)
def test_unfit_arguments_are_refused(make_scene: Callable[..., Scene], change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(rasterize)(**{**make_scene(4), **change})
