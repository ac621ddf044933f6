"""The adapter to pytorch3d, against a stand-in with its documented conventions (it was never run with the real one)."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor

from cuda_ext import rasterize_mesh
from cuda_ext.adapters import RasterizerMissingError
from cuda_ext.adapters.pytorch3d import rasterize_mesh_by_pytorch3d


def rasterize_meshes(
    meshes: SimpleNamespace, image_size: tuple[int, int], blur_radius: float, faces_per_pixel: int,
    perspective_correct: bool, cull_backfaces: bool, z_clip_value: float,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Pictures whose shorter side spans [-1, 1], x left, y up; packed triangle numbers; -1 for nothing, everywhere."""
    assert (blur_radius, faces_per_pixel, perspective_correct, cull_backfaces) == (0.0, 1, True, False)
    height, width = image_size
    unit = min(height, width) / 2
    x, y, z = meshes.verts.unbind(-1)
    pixels = torch.stack([width / 2 - x * unit, height / 2 - y * unit, z], -1)
    index, barycentrics, depth = rasterize_mesh(pixels, meshes.faces[0], width, height, near=z_clip_value)
    shown = index >= 0
    packed = torch.where(shown, index + len(meshes.faces[0]) * torch.arange(len(index))[:, None, None], -1)
    depth, barycentrics = torch.where(shown, depth, -1.0), torch.where(shown[..., None], barycentrics, -1.0)
    return packed[..., None], depth[..., None], barycentrics[..., None, :], None


@pytest.mark.parametrize("size", [(40, 24), (24, 40), (30, 30)])
def test_arguments_and_results_are_ours(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    structures, mesh = ModuleType("pytorch3d.structures"), ModuleType("pytorch3d.renderer.mesh")
    structures.Meshes, mesh.rasterize_meshes = SimpleNamespace, rasterize_meshes
    for name, module in (
        ("pytorch3d", ModuleType("pytorch3d")), ("pytorch3d.structures", structures),
        ("pytorch3d.renderer", ModuleType("pytorch3d.renderer")), ("pytorch3d.renderer.mesh", mesh),
    ):  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)
    vertices = torch.rand(2, 30, 3) * torch.tensor([40.0, 30.0, 2.0]) + torch.tensor([0.0, 0.0, 1.0])
    faces = torch.arange(30).reshape(10, 3)
    leaves = [vertices.clone().requires_grad_() for _ in range(2)]
    found = rasterize_mesh_by_pytorch3d(leaves[0], faces, *size)
    expected = rasterize_mesh(leaves[1], faces, *size)
    assert found.face_index.dtype == torch.int32
    assert (found.face_index != expected.face_index).float().mean() < 2e-3  # their axes round differently
    same = found.face_index == expected.face_index
    torch.testing.assert_close(found.depth[same], expected.depth[same])
    torch.testing.assert_close(found.barycentrics[same], expected.barycentrics[same], atol=1e-4, rtol=0)
    for leaf, fragments in zip(leaves, (found, expected), strict=True):
        ((fragments.barycentrics[..., 0] + fragments.depth) * same).sum().backward()
        assert leaf.grad.any()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad, atol=1e-2, rtol=1e-3)


def test_a_missing_pytorch3d_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch3d", None)
    with pytest.raises(RasterizerMissingError, match="pytorch3d cannot be imported"):
        rasterize_mesh_by_pytorch3d(torch.ones(1, 3, 3), torch.tensor([[0, 1, 2]]), 4, 4)
