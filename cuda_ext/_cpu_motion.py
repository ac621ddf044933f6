"""Calls the compiled operators of csrc/motion through ctypes and gives them gradients."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from cuda_ext._library import cpu_library

if TYPE_CHECKING:
    from cuda_ext.motion import Carrier

MOST_LEVELS, MOST_CARRIERS, MOST_RESPONSES = 4, 2, 2
WIDEST = 16
"""Floats in the widest vector of csrc/simd.h."""
_Pointer, _Int = ctypes.c_void_p, ctypes.c_int32


class _PlaceArguments(ctypes.Structure):
    """Mirrors PlaceArguments of csrc/motion/motion.h."""

    _fields_ = (
        ("points", _Int), ("levels", _Int), ("resolution", _Int * MOST_LEVELS),
        ("hidden", _Int), ("regions", _Int), ("gates", _Int), ("threads", _Int),
        ("where", _Pointer), ("grids", _Pointer * MOST_LEVELS),
        *((name, _Pointer) for name in ("weight1", "bias1", "weight2", "bias2", "along", "features", "activations")),
        *((name, _Pointer) for name in ("out_regions", "out_gates", "grad_out_regions", "grad_out_gates")),
        ("grad_grids", _Pointer * MOST_LEVELS),
        *((f"grad_{name}", _Pointer) for name in ("weight1", "bias1", "weight2", "bias2")),
    )  # fmt: skip


_GAUSSIANS = ("means", "quats", "log_scales", "sh0", "shN")
_MOVED = ("moved_means", "moved_quats", "moved_scales", "moved_sh")


class _DeformArguments(ctypes.Structure):
    """Mirrors DeformArguments of csrc/motion/motion.h."""

    _fields_ = (
        ("gaussians", _Int), ("hidden", _Int), ("sh_rest", _Int), ("carriers", _Int),
        ("neighbours", _Int * MOST_CARRIERS), ("carrier_points", _Int * MOST_CARRIERS),
        ("responses", _Int), ("threads", _Int), ("position_scale", ctypes.c_float),
        *((name, _Pointer) for name in (*_GAUSSIANS, "regions", "gates")),
        *((name, _Pointer * MOST_CARRIERS) for name in ("indices", "weights", "displacement")),
        *((name, _Pointer * MOST_RESPONSES) for name in ("share", "response")),
        *((name, _Pointer) for name in (*_MOVED, "change", *(f"grad_{name}" for name in _MOVED), "grad_change")),
        *((f"grad_{name}", _Pointer) for name in (*_GAUSSIANS[1:], "regions", "gates")),
        ("grad_response", _Pointer * MOST_RESPONSES),
    )  # fmt: skip


def _run(name: str, arguments: ctypes.Structure) -> None:
    status = getattr(cpu_library(), f"gaussian_head_{name}")(ctypes.byref(arguments))
    if status == 1:
        raise MemoryError(f"{name}: out of memory; use fewer Gaussians.")
    if status == 2:
        raise IndexError(f"{name}: a Gaussian is bound to a point that does not exist; bind them again.")


def _padded(rows: int, columns: int) -> int:
    """Return how many floats hold rows that the kernels pad to whole vectors, and a group of rows past the end."""
    return (rows + 3) * (-(-columns // WIDEST) * WIDEST)


def _fill(array: ctypes.Array, tensors: Sequence[Tensor | None]) -> None:
    for i, tensor in enumerate(tensors):
        array[i] = None if tensor is None else tensor.data_ptr()


def _point(arguments: ctypes.Structure, **tensors: Tensor | None) -> None:
    for name, tensor in tensors.items():
        setattr(arguments, name, None if tensor is None else tensor.data_ptr())


class PlaceFeatures(torch.autograd.Function):
    """Forward and backward of csrc/motion/place_cpu.cpp; float32 tensors on the CPU."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, gates: int, points: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor,
        *grids: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return regions [N, O - gates] and gates [N, gates]."""
        inputs = [x.detach().contiguous() for x in (points, weight1, bias1, weight2, bias2, *grids)]
        new = points.new_empty
        n, levels = len(points), len(grids)
        kept = new(n, levels, 3, 2), new(_padded(n, weight1.shape[1])), new(_padded(n, len(weight1)))
        outputs = new(n, len(weight2) - gates), new(n, gates)
        arguments = _place_arguments(inputs, kept, gates)
        _point(arguments, out_regions=outputs[0], out_gates=outputs[1])
        _run("place_forward", arguments)
        ctx.gates = gates
        ctx.save_for_backward(*inputs, *kept)
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients in the order of forward's arguments."""
        inputs, kept = ctx.saved_tensors[:-3], ctx.saved_tensors[-3:]
        of_regions, of_gates = (None if g is None else g.contiguous() for g in grads)
        found = [torch.zeros_like(x) for x in inputs[1:]]
        arguments = _place_arguments(inputs, kept, ctx.gates)
        _point(arguments, grad_out_regions=of_regions, grad_out_gates=of_gates)
        _point(arguments, grad_weight1=found[0], grad_bias1=found[1], grad_weight2=found[2], grad_bias2=found[3])
        _fill(arguments.grad_grids, found[4:])
        _run("place_backward", arguments)
        return (None, None, *found)


def _place_arguments(inputs: Sequence[Tensor], kept: Sequence[Tensor], gates: int) -> _PlaceArguments:
    points, weight1, bias1, weight2, bias2, *grids = inputs
    arguments = _PlaceArguments(
        points=len(points), levels=len(grids), hidden=len(weight1), regions=len(weight2) - gates, gates=gates,
        threads=torch.get_num_threads(),
    )  # fmt: skip
    arguments.resolution[: len(grids)] = [grid.shape[-1] for grid in grids]
    _fill(arguments.grids, grids)
    _point(arguments, where=points, weight1=weight1, bias1=bias1, weight2=weight2, bias2=bias2)
    _point(arguments, along=kept[0], features=kept[1], activations=kept[2])
    return arguments


class Deform(torch.autograd.Function):
    """Forward and backward of csrc/motion/deform_cpu.cpp; float32 tensors on the CPU."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, carriers: Sequence[Carrier], shares: Sequence[Tensor | None], position_scale: float,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Take means, quats, log_scales, sh0, shN, regions, gates, responses...; return the fields of `Moved`."""
        inputs = [x.detach().contiguous() for x in tensors]
        means, _, _, _, shN, *_ = inputs
        n = len(means)
        moved = [means.new_empty(n, 3), means.new_empty(n, 4), means.new_empty(n, 3)]
        moved += [means.new_empty(n, 1 + shN.shape[1], 3), means.new_empty(n, 13)]
        ctx.held = [tuple(part.detach().contiguous() for part in carrier) for carrier in carriers]
        ctx.shares = [None if share is None else share.detach().contiguous() for share in shares]
        ctx.position_scale = position_scale
        arguments = _deform_arguments(ctx, inputs)
        _point(arguments, **dict(zip((*_MOVED, "change"), moved, strict=True)))
        _run("deform_forward", arguments)
        ctx.save_for_backward(*inputs, moved[2])
        ctx.set_materialize_grads(False)
        return tuple(moved)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients in the order of forward's arguments."""
        *inputs, scales = ctx.saved_tensors
        incoming = [None if g is None else g.contiguous() for g in grads]
        found = [torch.empty_like(x) for x in inputs[1:]]
        arguments = _deform_arguments(ctx, inputs)
        _point(arguments, moved_scales=scales, **{
            f"grad_{name}": g for name, g in zip((*_MOVED, "change"), incoming, strict=True)
        })  # fmt: skip
        _point(arguments, **{
            f"grad_{name}": g for name, g in zip((*_GAUSSIANS[1:], "regions", "gates"), found, strict=False)
        })  # fmt: skip
        _fill(arguments.grad_response, found[6:])
        _run("deform_backward", arguments)
        return (None, None, None, incoming[0], *found)


def _deform_arguments(ctx: FunctionCtx, inputs: Sequence[Tensor]) -> _DeformArguments:
    means, quats, log_scales, sh0, shN, regions, gates, *matrices = inputs
    arguments = _DeformArguments(
        gaussians=len(means), hidden=regions.shape[1], sh_rest=shN.shape[1], carriers=len(ctx.held),
        responses=len(matrices), threads=torch.get_num_threads(), position_scale=ctx.position_scale,
    )  # fmt: skip
    _point(arguments, means=means, quats=quats, log_scales=log_scales, sh0=sh0, shN=shN, regions=regions, gates=gates)
    for i, (indices, weights, displacement) in enumerate(ctx.held):
        arguments.neighbours[i], arguments.carrier_points[i] = indices.shape[1], len(displacement)
        for name, tensor in (("indices", indices), ("weights", weights), ("displacement", displacement)):
            getattr(arguments, name)[i] = tensor.data_ptr()
    _fill(arguments.share, ctx.shares)
    _fill(arguments.response, matrices)
    return arguments
