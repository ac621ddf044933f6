"""Calls the compiled operators of csrc/mesh, on either device, through ctypes and gives them gradients."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from cuda_ext import _cuda
from cuda_ext._library import cpu_library, cuda_library

_Pointer = ctypes.c_void_p


class _MeshArguments(ctypes.Structure):
    """Mirrors MeshArguments of csrc/mesh/mesh.h."""

    _fields_ = (
        ("vertices", _Pointer),
        ("faces", _Pointer),
        ("near_plane", ctypes.c_float),
        *((name, ctypes.c_int32) for name in ("pictures", "count", "triangles", "width", "height", "threads")),
        ("device", ctypes.c_int32),
        *((name, _Pointer) for name in ("face_index", "barycentrics", "depth", "keys")),
        *((name, _Pointer) for name in ("grad_barycentrics", "grad_depth", "grad_corners")),
    )


class RasterizeMesh(torch.autograd.Function):
    """Forward and backward of csrc/mesh; float32 vertices."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, vertices: Tensor, faces: Tensor, width: int, height: int, near: float, where: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return face_index, barycentrics and depth; `where` is cpu or cuda."""
        vertices, faces = vertices.detach().contiguous(), faces.to(torch.int32).contiguous()
        shape, new = (len(vertices), height, width), vertices.new_empty
        index, barycentrics, depth = new(shape, dtype=torch.int32), new(*shape, 3), new(shape)
        keys = new(shape if where == "cuda" else 0, dtype=torch.int64)
        arguments = _arguments(vertices, faces, near, index)
        _point(arguments, barycentrics=barycentrics, depth=depth, keys=keys)
        _run(where, "mesh_forward", arguments, vertices.device)
        ctx.near, ctx.where = near, where
        ctx.save_for_backward(vertices, faces, index)
        ctx.mark_non_differentiable(index)
        ctx.set_materialize_grads(False)
        return index, barycentrics, depth

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, _grad_index: Tensor | None, grad_barycentrics: Tensor | None, grad_depth: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Return the gradient on the vertices."""
        vertices, faces, index = ctx.saved_tensors
        pictures, count, _ = vertices.shape
        grads = [None if g is None else g.contiguous() for g in (grad_barycentrics, grad_depth)]
        corners = vertices.new_empty(pictures, len(faces), 3, 3)
        arguments = _arguments(vertices, faces, ctx.near, index)
        _point(arguments, grad_barycentrics=grads[0], grad_depth=grads[1], grad_corners=corners)
        _run(ctx.where, "mesh_backward", arguments, vertices.device)
        found = vertices.new_zeros(pictures, count, 3)
        found.index_add_(1, faces.flatten().long().clamp(0, max(count - 1, 0)), corners.flatten(1, 2))
        return found, None, None, None, None, None


def _arguments(vertices: Tensor, faces: Tensor, near: float, index: Tensor) -> _MeshArguments:
    arguments = _MeshArguments(
        near_plane=near, pictures=len(vertices), count=vertices.shape[1], triangles=len(faces),
        width=index.shape[2], height=index.shape[1], threads=torch.get_num_threads(),
        device=vertices.device.index or 0,
    )  # fmt: skip
    _point(arguments, vertices=vertices, faces=faces, face_index=index)
    return arguments


def _point(arguments: _MeshArguments, **tensors: Tensor | None) -> None:
    for name, tensor in tensors.items():
        setattr(arguments, name, None if tensor is None else tensor.data_ptr())


def _run(where: str, name: str, arguments: _MeshArguments, device: torch.device) -> None:
    if where == "cpu":
        if getattr(cpu_library(), f"gaussian_head_{name}")(ctypes.byref(arguments)) != 0:
            raise MemoryError("rasterize_mesh: out of memory; draw fewer triangles.")
        return
    function = getattr(cuda_library(), f"gaussian_head_cuda_{name}")
    with _cuda._guard(device):
        _cuda._run("rasterize_mesh", function(ctypes.byref(arguments), _Pointer(_cuda._stream(device))))
