"""Triangles by z-buffer: plain PyTorch is the oracle, finite differences judge it; then edges, odd triangles, errors.

The CUDA kernels run in the emulator of `emulate/`, on the same tests.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cuda_ext import interpolate_mesh, rasterize_mesh
from cuda_ext._library import is_cuda_built
from cuda_ext.mesh import MeshFragments

WIDTH, HEIGHT = 37, 29


@pytest.fixture(params=["cpu", "cuda"])
def compiled_for(request: pytest.FixtureRequest) -> str:
    """Each compiled implementation: the CPU's, and the CUDA sources in the emulator."""
    request.getfixturevalue("compiled" if request.param == "cpu" else "emulated_cuda")
    return request.param


def soup(triangles: int = 60, pictures: int = 2, seed: int = 0, size: float = 9.0) -> tuple[Tensor, Tensor]:
    """Triangles of all sizes, before, behind and through each other, in and beside the picture."""
    generator = torch.Generator().manual_seed(seed)
    middle = torch.rand(pictures, triangles, 1, 3, generator=generator) * torch.tensor([WIDTH + 8.0, HEIGHT + 8.0, 3.0])
    spread = torch.randn(pictures, triangles, 3, 3, generator=generator) * torch.tensor([size, size, 0.4])
    vertices = (middle + spread - torch.tensor([4.0, 4.0, -2.0])).flatten(1, 2)
    vertices[..., 2].clamp_(min=0.5)
    return vertices, torch.arange(3 * triangles).reshape(-1, 3)


def draw(vertices: Tensor, faces: Tensor, implementation: str) -> MeshFragments:
    return rasterize_mesh(vertices, faces, WIDTH, HEIGHT, implementation=implementation)


def assert_agrees(vertices: Tensor, faces: Tensor, implementation: str) -> MeshFragments:
    """Pictures and gradients against the oracle in float64, where both show the same triangle: almost everywhere."""
    generator = torch.Generator().manual_seed(1)
    leaves = [vertices.clone().requires_grad_(), vertices.double().requires_grad_()]
    found, expected = draw(leaves[0], faces, implementation), draw(leaves[1], faces, "reference")
    same = found.face_index == expected.face_index
    assert (~same).float().mean() <= 1e-3  # equally near up to rounding
    torch.testing.assert_close(found.barycentrics[same], expected.barycentrics.float()[same], rtol=0, atol=2e-5)
    torch.testing.assert_close(found.depth[same], expected.depth.float()[same], rtol=1e-5, atol=0)
    weights = torch.randn(*found.depth.shape, 4, generator=generator) * same[..., None]
    for fragments in (found, expected):
        values = torch.cat([fragments.barycentrics, fragments.depth[..., None]], -1)
        (values * weights.to(values)).sum().backward()
    scale = leaves[1].grad.norm()
    assert (leaves[0].grad - leaves[1].grad.float()).norm() <= 1e-4 * scale
    return found


@pytest.mark.parametrize("triangles", [1, 60, 700])
def test_equals_the_oracle(compiled_for: str, triangles: int) -> None:
    found = assert_agrees(*soup(triangles), compiled_for)
    assert (found.face_index >= 0).any()
    assert len(found.face_index.unique()) > min(triangles, 20) / 2


@pytest.mark.usefixtures("every_copy")
def test_every_copy_equals_the_oracle() -> None:
    assert_agrees(*soup(), "cpu")


def test_barycentrics_say_where_the_pixel_is(compiled_for: str) -> None:
    """Interpolated in space and projected, the corners give the pixel back; in the picture they would not."""
    vertices, faces = soup(30, seed=3)
    fragments = draw(vertices, faces, compiled_for)
    shown = fragments.face_index >= 0
    in_space = torch.cat([vertices[..., :2] * vertices[..., 2:], vertices[..., 2:]], -1)
    place = interpolate_mesh(fragments, faces, in_space)[shown]
    rows, columns = shown.nonzero(as_tuple=True)[1:]
    torch.testing.assert_close(place[:, :2] / place[:, 2:], torch.stack([columns, rows], 1) + 0.5, rtol=0, atol=2e-3)
    torch.testing.assert_close(place[:, 2], fragments.depth[shown], rtol=1e-4, atol=0)
    torch.testing.assert_close(fragments.barycentrics[shown].sum(-1), torch.ones(int(shown.sum())))
    assert not fragments.barycentrics[~shown].any()
    assert not fragments.depth[~shown].any()


def test_nearer_hides_farther_and_equals_go_to_the_first(compiled_for: str) -> None:
    flat = torch.tensor([[0.0, 0], [40, 0], [0, 40]])
    depths = torch.tensor([2.0, 1.0, 1.0, 3.0])
    vertices = torch.cat([flat.expand(4, 3, 2), depths[:, None, None].expand(4, 3, 1)], -1).flatten(0, 1)[None]
    fragments = draw(vertices, torch.arange(12).reshape(4, 3), compiled_for)
    shown = fragments.face_index[fragments.face_index >= 0]
    assert shown.unique().tolist() == [1]


def test_gradients_are_finite_differences() -> None:
    """Of the oracle, in float64, at pixels well inside their triangles; the compiled ones are compared with it."""
    vertices, faces = soup(25, pictures=1, seed=5)
    vertices = vertices.double()
    with torch.no_grad():
        start = draw(vertices, faces, "reference")
    inside = (start.face_index >= 0) & (start.barycentrics > 0.1).all(-1)
    assert inside.sum() > 50
    generator = torch.Generator().manual_seed(2)
    attributes = torch.randn(1, vertices.shape[1], 3, generator=generator, dtype=torch.float64)

    def picture(moved: Tensor) -> Tensor:
        fragments = draw(moved, faces, "reference")
        assert torch.equal(fragments.face_index[inside], start.face_index[inside])
        return torch.cat([interpolate_mesh(fragments, faces, attributes), fragments.depth[..., None]], -1)[inside]

    assert torch.autograd.gradcheck(picture, vertices.clone().requires_grad_(), eps=1e-6, atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("grid", ["on pixel centres", "on half pixels", "anywhere"])
def test_shared_edges_are_covered_once(compiled_for: str, grid: str) -> None:
    """Each pixel of a triangulated rectangle belongs to one triangle, wherever the vertices lie."""
    generator = torch.Generator().manual_seed(4)
    step, shift = 4.0, 0.5 if grid == "on pixel centres" else 0.0
    rows, columns = torch.meshgrid(torch.arange(7), torch.arange(9), indexing="ij")
    flat = torch.stack([columns, rows], -1) * step + shift
    if grid == "anywhere":
        flat[1:-1, 1:-1] += torch.randn(5, 7, 2, generator=generator)
    place = torch.arange(63).reshape(7, 9)
    a, b, c, d = (x.flatten() for x in (place[:-1, :-1], place[:-1, 1:], place[1:, 1:], place[1:, :-1]))
    faces = torch.cat([torch.stack([a, b, c], 1), torch.stack([a, d, c], 1)])  # of both orientations
    vertices = torch.cat([flat, torch.ones(7, 9, 1)], -1).reshape(1, -1, 3)
    count = sum((draw(vertices, face[None], compiled_for).face_index >= 0).int() for face in faces)[0]
    expected = torch.zeros(HEIGHT, WIDTH, dtype=torch.int32)
    expected[:24, :32] = 1  # the top and the left edge are in, the others are out
    assert torch.equal(count, expected)
    whole = draw(vertices, faces, compiled_for)
    assert torch.equal((whole.face_index[0] >= 0).int(), expected)


def odd_triangles() -> dict[str, Tensor]:
    good = torch.tensor([[2.0, 2.0, 1.0], [30.0, 3.0, 1.5], [5.0, 25.0, 2.0]])
    found = {
        "a point": good[[0, 0, 0]], "a line": torch.stack([good[0], good[1], (good[0] + good[1]) / 2]),
        "beside": good + torch.tensor([100.0, 0.0, 0.0]), "far beside": good + torch.tensor([9000.0, 0.0, 0.0]),
    }  # fmt: skip
    for name, axis, value in (
        ("behind", 2, -1.0), ("in the lens", 2, 0.0), ("no depth", 2, math.nan), ("endless", 2, math.inf),
        ("nowhere", 0, math.nan), ("at infinity", 1, -math.inf),
    ):  # fmt: skip
        found[name] = good.clone()
        found[name][1, axis] = value
    return found


@pytest.mark.parametrize("name", odd_triangles())
@pytest.mark.parametrize("implementation", ["cpu", "cuda", "reference"])
def test_odd_triangles_are_left_out(request: pytest.FixtureRequest, implementation: str, name: str) -> None:
    if implementation != "reference":
        request.getfixturevalue("compiled" if implementation == "cpu" else "emulated_cuda")
    good = torch.tensor([[1.0, 1.0, 3.0], [36.0, 1.0, 3.0], [1.0, 28.0, 3.0]])
    vertices = torch.cat([good, odd_triangles()[name]])[None].requires_grad_()
    fragments = draw(vertices, torch.arange(6).reshape(2, 3), implementation)
    alone = draw(good[None], torch.arange(3)[None], implementation)
    assert all(torch.equal(a, b) for a, b in zip(fragments, alone, strict=True))
    (fragments.barycentrics.square().sum() + fragments.depth.sum()).backward()
    assert vertices.grad[0, :3].any()
    assert vertices.grad.isfinite().all()
    assert not vertices.grad[0, 3:].any()


@pytest.mark.parametrize(("vertices", "faces"), [((1, 0), 0), ((2, 5), 0), ((0, 3), 1)])
@pytest.mark.parametrize("implementation", ["cpu", "cuda", "reference"])
def test_empty_meshes(
    request: pytest.FixtureRequest, implementation: str, vertices: tuple[int, int], faces: int
) -> None:
    if implementation != "reference":
        request.getfixturevalue("compiled" if implementation == "cpu" else "emulated_cuda")
    given = torch.ones(*vertices, 3, requires_grad=True)
    triangles = torch.arange(3)[None].expand(faces, 3)
    fragments = draw(given, triangles, implementation)
    assert fragments.depth.shape == (vertices[0], HEIGHT, WIDTH)
    assert (fragments.face_index == -1).all()
    assert not interpolate_mesh(fragments, triangles, given).any()
    (fragments.depth.sum() + fragments.barycentrics.sum()).backward()
    assert not given.grad.any()


@pytest.mark.usefixtures("compiled")
def test_threads_do_not_change_a_bit() -> None:
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            vertices, faces = soup(700)
            vertices.requires_grad_()
            fragments = draw(vertices, faces, "cpu")
            (fragments.barycentrics[..., 0] * fragments.depth).sum().backward()
            results.append((*fragments, vertices.grad))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_order_of_gpu_threads_does_not_change_a_bit(emulated_cuda: object) -> None:
    results = []
    for order in range(3):
        emulated_cuda.emulate_order(order)
        vertices, faces = soup(100)
        vertices.requires_grad_()
        fragments = draw(vertices, faces, "cuda")
        (fragments.barycentrics[..., 0] * fragments.depth).sum().backward()
        results.append((*fragments, vertices.grad))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_an_attributes_gradient_is_its_share(compiled_for: str) -> None:
    vertices, faces = soup(20, pictures=1)
    fragments = draw(vertices, faces, compiled_for)
    values = torch.ones(1, vertices.shape[1], 2, requires_grad=True)
    interpolate_mesh(fragments, faces, values)[..., 0].sum().backward()
    share = torch.zeros(vertices.shape[1])
    shown = fragments.face_index >= 0
    share.index_add_(0, faces[fragments.face_index[shown].long()].flatten(), fragments.barycentrics[shown].flatten())
    torch.testing.assert_close(values.grad[0, :, 0], share)
    assert not values.grad[..., 1].any()


@pytest.mark.parametrize(("change", "message"), [
    ({"width": 0}, "1 to 4096 px wide and high, got 0 x 29"),
    ({"height": 5000}, "got 37 x 5000"),
    ({"near": 0.0}, "near must be a positive depth, got 0.0"),
    ({"faces": torch.tensor([[0, 1, 3]])}, "faces name vertices 0 to 3, there are 3"),
    ({"faces": torch.tensor([[0, 1, -1]])}, "faces name vertices -1 to 1"),
])  # fmt: skip
def test_mistakes_are_named(change: dict, message: str) -> None:
    given = {"vertices": torch.ones(1, 3, 3), "faces": torch.tensor([[0, 1, 2]]), "width": WIDTH, "height": HEIGHT}
    with pytest.raises(ValueError, match=message):
        rasterize_mesh(**(given | change))


@pytest.mark.usefixtures("emulated_cuda")
def test_kernels_leave_out_vertices_that_do_not_exist() -> None:
    """On a GPU the indices are not looked at beforehand, so the kernels do."""
    from cuda_ext._compiled_mesh import RasterizeMesh

    vertices, faces = soup(1, pictures=1)
    faces = torch.tensor([[0, 1, 3], [-5, 0, 1], [2**31 - 1, 0, 1]])
    vertices.requires_grad_()
    index, _, depth = RasterizeMesh.apply(vertices, faces, WIDTH, HEIGHT, 1e-6, "cuda")
    assert (index == -1).all()
    depth.sum().backward()
    assert not vertices.grad.any()


@pytest.mark.cuda
@pytest.mark.skipif(not is_cuda_built(), reason="CUDA operators not compiled")
def test_a_gpu_equals_the_oracle() -> None:
    vertices, faces = soup(700)
    leaves = [vertices.clone().cuda().requires_grad_(), vertices.double().requires_grad_()]
    found, expected = draw(leaves[0], faces.cuda(), "cuda"), draw(leaves[1], faces, "reference")
    same = found.face_index.cpu() == expected.face_index
    assert (~same).float().mean() <= 1e-3
    torch.testing.assert_close(found.depth.cpu()[same], expected.depth.float()[same], rtol=1e-5, atol=0)
    for fragments in (found, expected):
        (fragments.barycentrics[..., 0] * same.to(fragments.depth)).sum().backward()
    gradients = leaves[0].grad.cpu(), leaves[1].grad.float()
    assert (gradients[0] - gradients[1]).norm() <= 1e-4 * gradients[1].norm()
