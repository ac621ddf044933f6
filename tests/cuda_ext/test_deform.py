"""Place features and deformation: compiled operators against plain PyTorch in float64, samples by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from cuda_ext import Carrier, deform, place_features

Inputs = dict[str, object]


def bilinear(grid: np.ndarray, x: float, y: float) -> np.ndarray:
    """Interpolate [features, rows, columns] at x (columns) and y (rows) in [-1, 1], the corners being cell centres."""
    last = grid.shape[1] - 1
    column, row = (np.clip(v, -1, 1) * 0.5 * last + 0.5 * last for v in (x, y))
    left, top = min(int(column), last - 1), min(int(row), last - 1)
    u, v = column - left, row - top
    upper = (1 - u) * grid[:, top, left] + u * grid[:, top, left + 1]
    lower = (1 - u) * grid[:, top + 1, left] + u * grid[:, top + 1, left + 1]
    return (1 - v) * upper + v * lower


def make_places(n: int, resolutions: tuple[int, ...], hidden: int, outputs: int) -> Inputs:
    features = 12 * len(resolutions) + 3
    return {
        "points": torch.rand(n, 3) * 2.6 - 1.3,  # some beyond the border
        "grids": [torch.randn(3, 4, r, r) for r in resolutions],
        "first": (torch.randn(hidden, features) * 0.3, torch.randn(hidden)),
        "second": (torch.randn(outputs, hidden) * 0.3, torch.randn(outputs)),
    }


def make_gaussians(n: int, hidden: int, neighbours: tuple[int, ...], shares: tuple[bool, ...], rest: int = 3) -> Inputs:
    return {
        "means": torch.randn(n, 3), "quats": torch.randn(n, 4), "log_scales": torch.randn(n, 3) - 3,
        "sh0": torch.randn(n, 1, 3), "shN": torch.randn(n, rest, 3), "regions": torch.randn(n, hidden),
        "gates": torch.rand(n, len(neighbours)),
        "carriers": [Carrier(torch.randint(0, 30, (n, m)), torch.rand(n, m), torch.randn(30, 3)) for m in neighbours],
        "responses": [(torch.randn(hidden, 13) * 0.2, torch.rand(n) if share else None) for share in shares],
        "position_scale": 0.01,
    }  # fmt: skip


def mapped(value: object, change) -> object:  # noqa: ANN001 -- any function of a tensor
    """Apply a function to every floating tensor in lists and tuples."""
    if isinstance(value, Tensor):
        return change(value) if value.is_floating_point() else value
    if isinstance(value, Carrier):
        return Carrier(*(mapped(v, change) for v in value))
    return type(value)(mapped(v, change) for v in value) if isinstance(value, (list, tuple)) else value


def leaves(inputs: Inputs, learned: tuple[str, ...]) -> list[Tensor]:
    found = []
    for name in learned:
        mapped(inputs[name], lambda x: found.append(x.requires_grad_()) or x)
    return found


PLACE_LEARNED = ("grids", "first", "second")
DEFORM_LEARNED = ("means", "quats", "log_scales", "sh0", "shN", "regions", "gates")


def differentiate(operator, inputs: Inputs, learned: tuple[str, ...], implementation: str, **options: int):  # noqa: ANN001, ANN201
    """Run an operator and a random linear loss of all it returns; returns outputs and gradients."""
    dtype = torch.float64 if implementation == "reference" else torch.float32
    own = {name: mapped(value, lambda x: x.detach().to(dtype).clone()) for name, value in inputs.items()}
    watched = leaves(own, learned)
    if "responses" in own:
        watched += [matrix.requires_grad_() for matrix, _ in own["responses"]]
    outputs = operator(**own, **options, implementation=implementation)
    generator = torch.Generator().manual_seed(3)
    loss = sum((out * torch.randn(out.shape, generator=generator).to(out)).sum() for out in outputs)
    return [out.detach() for out in outputs], torch.autograd.grad(loss, watched, materialize_grads=True)


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert (one - other).norm() <= 1e-5 * other.norm() + 1e-12


SIZES = [0, 1, 3, 511, 1500]


@pytest.mark.usefixtures("every_copy")
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("resolutions", "hidden", "outputs"), [((4,), 10, 3), ((16, 40), 32, 34), ((3, 8, 5), 64, 66)])
def test_places_agree_with_the_reference(n, resolutions, hidden, outputs):
    inputs = make_places(n, resolutions, hidden, outputs)
    found, expected = (
        differentiate(place_features, inputs, PLACE_LEARNED, name, gates=2) for name in ("cpu", "reference")
    )
    assert [out.shape[1] for out in found[0]] == [outputs - 2, 2]
    assert_close(found[0], expected[0])
    assert_close(found[1], expected[1])


@pytest.mark.usefixtures("every_copy")
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(
    ("hidden", "neighbours", "shares", "rest"),
    [(32, (8, 6), (True, False), 3), (10, (1,), (False,), 0), (64, (8, 0), (True, True), 8), (5, (), (True,), 15)],
)
def test_deformation_agrees_with_the_reference(n, hidden, neighbours, shares, rest):
    inputs = make_gaussians(n, hidden, neighbours, shares, rest)
    found, expected = (differentiate(deform, inputs, DEFORM_LEARNED, name) for name in ("cpu", "reference"))
    assert_close(found[0], expected[0])
    assert_close(found[1], expected[1])


@pytest.mark.usefixtures("every_copy")
def test_threads_change_no_bit():
    places = make_places(3000, (16, 40), 32, 34)
    gaussians = make_gaussians(3000, 32, (8, 6), (True, False))
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            outputs, gradients = differentiate(place_features, places, PLACE_LEARNED, "cpu", gates=2)
            more, others = differentiate(deform, gaussians, DEFORM_LEARNED, "cpu")
            results.append([*outputs, *gradients, *more, *others])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("implementation", ["reference", "cpu"])
def test_features_are_bilinear(implementation, request):
    if implementation == "cpu":
        request.getfixturevalue("compiled")
    inputs = make_places(40, (3, 9), 1, 1)
    for k in range(27):  # a first layer that lets one feature through
        weight = torch.zeros(1, 27)
        weight[0, k] = 1
        inputs |= {"first": (weight, torch.full((1,), 100.0)), "second": (torch.ones(1, 1), torch.zeros(1))}
        regions, _ = place_features(**inputs, gates=0, implementation=implementation)
        for point, value in zip(inputs["points"].numpy(), regions[:, 0].numpy() - 100, strict=True):
            x, y, z = point
            planes = [bilinear(grid[i].numpy(), *at) for grid in inputs["grids"]
                      for i, at in enumerate(((x, y), (y, z), (x, z)))]  # fmt: skip
            assert abs(np.concatenate([*planes, point])[k] - value) < 1e-4


@pytest.mark.usefixtures("every_copy")
def test_what_is_not_a_number_stays_visible():
    inputs = make_gaussians(20, 8, (2,), (False,))
    inputs["log_scales"][3, 1] = float("nan")
    inputs["regions"][7] = float("nan")
    moved = deform(**inputs, implementation="cpu")
    assert moved.scales.isnan().nonzero().tolist() == [[3, 1], [7, 0], [7, 1], [7, 2]]
    places = make_places(20, (4,), 8, 8)
    places["first"][0][2, 5] = float("nan")
    assert place_features(**places, gates=2, implementation="cpu")[0].isnan().any(1).all()


@pytest.mark.usefixtures("every_copy")
@pytest.mark.parametrize("index", [-1, 30, 2**40])
def test_a_missing_point_is_an_error(index):
    inputs = make_gaussians(20, 8, (2, 3), (False,))
    inputs["carriers"][1].indices[13, 2] = index
    with pytest.raises(IndexError, match="bind them again"):
        deform(**inputs, implementation="cpu")


def test_arguments_that_do_not_fit_are_refused():
    inputs = make_gaussians(5, 8, (2,), (False,))
    with pytest.raises(ValueError, match="1 gates, 2 carriers"):
        deform(**inputs | {"carriers": inputs["carriers"] * 2})
    places = make_places(5, (4,), 8, 8)
    with pytest.raises(ValueError, match="2 grids give 27 features"):
        place_features(**places | {"grids": places["grids"] * 2}, gates=2)
    with pytest.raises(ValueError, match="place_features has no CUDA kernels; give 'auto'"):
        place_features(**places, gates=2, implementation="cuda")
