"""The drop-in for diff-gaussian-rasterization: its camera, its conventions, its forks, its quirks."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from inria_rules import brute_force, rotation, their_settings
from torch import Tensor

from cuda_ext import diff_gaussian_rasterization as drop_in
from cuda_ext import rasterize
from cuda_ext.diff_gaussian_rasterization import NAME, GaussianRasterizer

Scene = dict[str, Tensor]
GEOMETRY = ("means", "quats", "scales", "opacities")


@pytest.fixture
def scene(make_scene: Callable[..., Scene]) -> Scene:
    return make_scene(60, dtype=torch.float64)


@pytest.fixture
def returning(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Choose what rasterizers return, for one test."""
    return lambda returns: monkeypatch.setattr(GaussianRasterizer, "returns", returns)


@pytest.fixture
def _not_installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start without the foreign module, and leave no trace of ours."""
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    yield
    sys.modules.pop(NAME, None)


def call(scene: Scene, **changes: object) -> tuple[Tensor, ...]:
    """Render a scene as callers of the original do, its arguments of the operator replaced by `changes`."""
    settings = changes.pop("settings", None) or their_settings(scene)
    given = {
        "means3D": scene["means"],
        "means2D": torch.zeros_like(scene["means"]),
        "opacities": scene["opacities"][:, None],
        "shs": scene["sh"],
        "scales": scene["scales"],
        "rotations": torch.nn.functional.normalize(scene["quats"], dim=1),
    }
    return GaussianRasterizer(raster_settings=settings)(**(given | changes))


def leaves_of(scene: Scene, *names: str) -> dict[str, Tensor]:
    return {name: scene[name].clone().requires_grad_() for name in names}


def loss(*pictures: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return sum((p * (torch.rand(p.shape, generator=generator).to(p) - 0.5)).sum() for p in pictures)


def covariances(quats: Tensor, scales: Tensor) -> Tensor:
    """xx, xy, xz, yy, yz, zz, differentiably."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=1).unbind(1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    axes = torch.stack(rows, 1).reshape(-1, 3, 3) * scales[:, None]
    full = axes @ axes.mT
    return torch.stack([full[:, i, j] for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))], 1)


@pytest.mark.parametrize("background", ["color", "picture"])
def test_pictures_by_brute_force_of_their_rules(
    make_scene: Callable[..., Scene], returning: Callable[[str], None], background: str
) -> None:
    """NDC and pixel centres at integers, an off-centre principal point, a scale modifier, a picture as background."""
    returning("ashawkey")
    scene = make_scene(40, 48, 33, dtype=torch.float64)
    scene["means"] *= 0.6
    behind = scene["background"] if background == "color" else torch.rand(3, 33, 48, dtype=torch.float64)
    settings = their_settings(scene, scale_modifier=0.8, bg=behind)
    colors = torch.rand(40, 3, dtype=torch.float64)
    found = call(scene, settings=settings, shs=None, colors_precomp=colors)
    expected = brute_force(settings, *(scene[name] for name in GEOMETRY), colors)
    for ours, theirs in zip((found[0], found[2][0], found[3][0]), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)  # theirs divide by w + 1e-7
    assert found[3].max() > 0.5


def test_half_a_pixel_would_be_seen(make_scene: Callable[..., Scene]) -> None:
    """The brute force above can tell conventions apart."""
    scene = make_scene(40, 48, 33, dtype=torch.float64)
    scene["means"] *= 0.6
    colors = torch.rand(40, 3, dtype=torch.float64)
    right = brute_force(their_settings(scene), *(scene[name] for name in GEOMETRY), colors)[0]
    scene["K"][:2, 2] += 0.5
    wrong = brute_force(their_settings(scene), *(scene[name] for name in GEOMETRY), colors)[0]
    assert (right - wrong).abs().max() > 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_harmonics_and_gradients_are_the_operators(scene: Scene, dtype: torch.dtype) -> None:
    scene = {k: v.to(dtype) if isinstance(v, Tensor) else v for k, v in scene.items()}
    ours, theirs = (leaves_of(scene, *GEOMETRY, "sh", "background") for _ in range(2))
    centers = torch.zeros(60, 2, dtype=dtype, requires_grad=True)
    view = rasterize(**{**scene, **ours}, means2d=centers)
    loss(view.color).backward()
    screen = torch.randn(60, 3, dtype=dtype, requires_grad=True)  # its values must not matter
    color, radii = call(
        {**scene, **theirs}, means2D=screen, opacities=theirs["opacities"][:, None],
        rotations=torch.nn.functional.normalize(theirs["quats"], dim=1),
    )  # fmt: skip
    loss(color).backward()
    near = {"rtol": 0, "atol": 1e-12 if dtype == torch.float64 else 2e-5}
    torch.testing.assert_close(color, view.color, **near)
    assert radii.dtype == torch.int32
    assert torch.equal(radii, view.radii)
    for name, leaf in theirs.items():
        error = (leaf.grad - ours[name].grad).norm() / ours[name].grad.norm()
        assert error < (1e-9 if dtype == torch.float64 else 1e-4), name
    torch.testing.assert_close(screen.grad[:, :2], centers.grad, rtol=1e-4, atol=1e-3)
    assert not screen.grad[:, 2].any()


def test_screen_gradients_arrive_at_a_tensor_that_is_no_leaf(scene: Scene) -> None:
    """Callers make it by `zeros_like(means, requires_grad=True) + 0` and `retain_grad`."""
    screen = torch.zeros_like(scene["means"], requires_grad=True) + 0
    screen.retain_grad()
    loss(call(scene, means2D=screen)[0]).backward()
    assert screen.grad[:, :2].any()


@pytest.mark.parametrize(
    ("returns", "shapes"),
    [("inria", []), ("inria-2024", [1]), ("ashawkey", [1, 1]), ("gaussian-talker", [1])],
)
def test_each_fork_returns_its_own(
    scene: Scene, returning: Callable[[str], None], returns: str, shapes: list[int]
) -> None:
    returning(returns)
    leaf = scene["means"].clone().requires_grad_()
    color, radii, *more = call({**scene, "means": leaf})
    size = (scene["height"], scene["width"])
    assert color.shape == (3, *size)
    assert radii.shape == (60,)
    assert [picture.shape for picture in more] == [(channels, *size) for channels in shapes]
    view = rasterize(**scene)
    expected = {"ashawkey": [view.depth, view.alpha], "gaussian-talker": [view.depth]}.get(returns, [])
    for ours, theirs in zip(expected, more, strict=False):
        torch.testing.assert_close(theirs, ours)
    assert [picture.requires_grad for picture in more] == [returns != "gaussian-talker"] * len(shapes)


def test_inverse_depth_is_the_sum_of_weight_over_depth(scene: Scene, returning: Callable[[str], None]) -> None:
    returning("inria-2024")
    scene["means"][:3] = torch.linalg.inv(scene["viewmat"])[:3, 3]  # at the eye: z = 0
    leaf = scene["means"].clone().requires_grad_()
    _, _, inverse = call({**scene, "means": leaf})
    loss(inverse).backward()
    z = scene["means"] @ scene["viewmat"][2, :3] + scene["viewmat"][2, 3]
    torch.testing.assert_close(inverse, rasterize(**scene, features=1 / z.clamp(min=0.2)[:, None]).features)
    assert torch.isfinite(leaf.grad).all()
    assert leaf.grad.any()


def test_marks_what_is_in_front_of_the_near_plane(scene: Scene) -> None:
    to_world = torch.linalg.inv(scene["viewmat"])
    camera = torch.tensor([[0, 0, 0.19], [0, 0, 0.21], [9, 0, 1], [0, 0, -1]], dtype=torch.float64)
    points = camera @ to_world[:3, :3].T + to_world[:3, 3]
    assert GaussianRasterizer(their_settings(scene)).markVisible(points).tolist() == [False, True, True, False]


def shapes(kind: str, scene: Scene) -> Scene:
    """Gaussians whose covariances are hard to decompose, or to differentiate so."""
    if kind == "round":
        scene["scales"][:] = scene["scales"][:, :1]
    elif kind == "needles":
        scene["scales"][:, 1:] *= 1e-4
    elif kind == "disks":
        scene["scales"][:, 1] = scene["scales"][:, 0]
        scene["scales"][:, 2] *= 1e-4
    elif kind == "facing":  # round across the viewing ray, to the last bit
        turn = scene["viewmat"][:3, :3]
        scene["scales"][:] = torch.tensor([0.05, 0.05, 0.2], dtype=torch.float64)
        angle = math.atan2(turn[0, 2].item(), turn[0, 0].item())
        scene["quats"][:] = torch.tensor([math.cos(angle / 2), 0, -math.sin(angle / 2), 0], dtype=torch.float64)
    return scene


@pytest.mark.parametrize("kind", ["any", "round", "needles", "disks", "facing"])
def test_covariances_give_the_picture_and_gradients_of_rotations_and_scales(
    scene: Scene, returning: Callable[[str], None], kind: str
) -> None:
    returning("ashawkey")
    scene = shapes(kind, scene)
    direct, through = (leaves_of(scene, "means", "quats", "scales") for _ in range(2))
    settings = their_settings(scene)
    first = call({**scene, **direct}, settings=settings,
                 rotations=torch.nn.functional.normalize(direct["quats"], dim=1))  # fmt: skip
    second = call({**scene, **through}, settings=settings._replace(scale_modifier=3.0), scales=None, rotations=None,
                  cov3D_precomp=covariances(through["quats"], through["scales"]))  # fmt: skip
    assert torch.equal(first[1], second[1])
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(b, a, rtol=0, atol=1e-5 if kind in ("needles", "disks") else 1e-9)
    for pictures in (first, second):
        loss(pictures[0], *pictures[2:]).backward()
    for name, leaf in through.items():
        limit = 1e-4 if kind in ("needles", "disks") else 1e-8
        assert (leaf.grad - direct[name].grad).norm() < limit * direct[name].grad.norm() + 1e-9, name


@pytest.mark.parametrize("kind", ["any", "round", "facing"])
def test_covariance_gradients_by_finite_differences(make_scene: Callable[..., Scene], kind: str) -> None:
    scene = shapes(kind, make_scene(5, 20, 18, dtype=torch.float64, seed=3))
    settings = their_settings(scene)
    leaves = [scene["means"].clone().requires_grad_(),
              covariances(scene["quats"], scene["scales"]).requires_grad_()]  # fmt: skip

    def render(means: Tensor, covariance: Tensor) -> Tensor:
        given = {"scales": None, "rotations": None, "cov3D_precomp": covariance}
        return call({**scene, "means": means}, settings=settings, **given)[0]

    assert torch.autograd.gradcheck(render, leaves, eps=1e-7, atol=2e-5, rtol=1e-3, fast_mode=True)


def test_covariances_of_nothing_and_of_nobody_stay_finite(scene: Scene) -> None:
    """Zero covariances are dots of the low-pass; Gaussians behind the camera get zero gradients."""
    covariance = covariances(scene["quats"], scene["scales"])
    covariance[:4] = 0
    covariance.requires_grad_()
    behind = scene["means"].clone()
    behind[4:8] = torch.linalg.inv(scene["viewmat"])[:3, 3]
    given = {"scales": None, "rotations": None}
    color, _ = call({**scene, "means": behind}, cov3D_precomp=covariance, **given)
    loss(color).backward()
    assert torch.isfinite(color).all()
    assert torch.isfinite(covariance.grad).all()
    assert not covariance.grad[4:8].any()
    dots = call({**scene, "means": behind, "scales": scene["scales"].index_fill(0, torch.arange(4), 0)})[0]
    torch.testing.assert_close(color, dots, rtol=0, atol=1e-5)
    empty = {name: scene[name][:0] for name in ("means", "opacities", "sh")}
    nothing, radii = call({**scene, **empty}, cov3D_precomp=covariance[:0], **given)
    assert torch.equal(nothing, scene["background"][:, None, None].expand_as(nothing))
    assert radii.shape == (0,)


@pytest.mark.parametrize("shape", ["rotations", "covariances"])
def test_runs_where_its_tensors_are(
    make_scene: Callable[..., Scene], returning: Callable[[str], None], device: str, shape: str
) -> None:
    returning("inria-2024")
    scene = make_scene(60)
    there = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in scene.items()}
    settings = their_settings(scene, bg=torch.rand(3, 45, 61))  # callers may leave the camera on the CPU
    given = {}
    if shape == "covariances":
        covariance = covariances(there["quats"], there["scales"])
        given = {"scales": None, "rotations": None, "cov3D_precomp": covariance}
    leaf = there["means"].clone().requires_grad_()
    pictures = call({**there, "means": leaf}, settings=settings, **given)
    loss(pictures[0]).backward()
    assert {picture.device.type for picture in pictures} == {device}
    assert leaf.grad.any()
    for ours, theirs in zip(call(scene, settings=settings), pictures, strict=True):
        torch.testing.assert_close(theirs.cpu(), ours, rtol=1e-4, atol=1e-3)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38, -1.0, 1e-40])
@pytest.mark.parametrize("place", [0, 1])
def test_covariances_that_are_none_harm_nobody_else(make_scene: Callable[..., Scene], value: float, place: int) -> None:
    scene = make_scene(60)
    covariance = covariances(scene["quats"], scene["scales"])
    covariance[:4, place] = value
    leaves = leaves_of({**scene, "cov": covariance}, "means", "cov")
    color, radii = call({**scene, **leaves}, scales=None, rotations=None, cov3D_precomp=leaves["cov"])
    loss(color).backward()
    assert torch.isfinite(color).all()
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves.values())
    assert leaves["cov"].grad[4:].any()
    if not abs(value) <= 1:
        assert not radii[:4].any()


@pytest.mark.usefixtures("_not_installed")
def test_code_that_imports_the_original_runs_unchanged(scene: Scene) -> None:
    drop_in.install("ashawkey")
    from diff_gaussian_rasterization import GaussianRasterizationSettings as Settings
    from diff_gaussian_rasterization import GaussianRasterizer as Rasterizer

    rasterizer = Rasterizer(raster_settings=Settings(*their_settings(scene)[:12]))  # without the newer field
    image, radii, depth, alpha = rasterizer(
        scene["means"], torch.zeros_like(scene["means"]), scene["opacities"], shs=scene["sh"], colors_precomp=None,
        scales=scene["scales"], rotations=scene["quats"], cov3D_precomp=None,
    )  # fmt: skip
    view = rasterize(**scene)
    for ours, theirs in zip((image, depth, alpha), (view.color, view.depth, view.alpha), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    assert len(call(scene)) == 2  # the class itself returns as before


@pytest.mark.usefixtures("_not_installed")
def test_install_respects_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    original = ModuleType(NAME)
    monkeypatch.setitem(sys.modules, NAME, original)
    with pytest.raises(RuntimeError, match="imported already"):
        drop_in.install()
    assert sys.modules[NAME] is original
    drop_in.install("inria-2024", replace=True)
    drop_in.install("gaussian-talker")  # ours may be replaced without asking
    assert sys.modules[NAME].GaussianRasterizer.returns == "gaussian-talker"
    assert importlib.util.find_spec(NAME) is not None
    with pytest.raises(ValueError, match="returns must be one of"):
        drop_in.install("someone")


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"antialiasing": True}, NotImplementedError, "antialiasing"),
        ({"bg": torch.zeros(3, 4, 5)}, ValueError, r"bg must be \[3\] or \[3, 45, 61\], got \[3, 4, 5\]"),
        ({"viewmatrix": "transposed"}, ValueError, "viewmatrix must be a rigid"),
        ({"projmatrix": "transposed"}, ValueError, "projmatrix must be"),
        ({"tanfovx": 0.7}, ValueError, "1 / tanfov"),
        ({"campos": torch.ones(3)}, ValueError, "campos must be the centre"),
        ({"sh_degree": 4}, ValueError, r"sh_degree must be 0\.\.3"),
    ],
)
def test_settings_that_cannot_be_followed(
    scene: Scene, changes: dict[str, object], error: type[Exception], told: str
) -> None:
    settings = their_settings(scene)
    settings = settings._replace(
        **{name: getattr(settings, name).T if value == "transposed" else value for name, value in changes.items()}
        if "transposed" in map(str, changes.values())
        else changes
    )
    with pytest.raises(error, match=told):
        call(scene, settings=settings)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"scales": None}, "either scales and rotations, or cov3D_precomp"),
        ({"cov3D_precomp": torch.zeros(60, 6)}, "either scales and rotations, or cov3D_precomp"),
        ({"scales": None, "rotations": None}, "either scales and rotations, or cov3D_precomp"),
        ({"colors_precomp": torch.zeros(60, 3)}, "exactly one of sh and colors"),
        ({"shs": None}, "exactly one of sh and colors"),
    ],
)
def test_arguments_that_contradict_each_other(scene: Scene, given: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        call(scene, **given)


def test_unknown_fork(scene: Scene, returning: Callable[[str], None]) -> None:
    returning("someone")
    with pytest.raises(ValueError, match="must be one of"):
        call(scene)


def test_rotation_helper_is_a_rotation() -> None:
    matrix = rotation(torch.tensor([0.3, -1.0, 2.0, 0.5], dtype=torch.float64))
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(3, dtype=torch.float64))
