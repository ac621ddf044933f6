"""Calls the compiled CPU operators (csrc/) through ctypes and gives them gradients."""

from __future__ import annotations

import ctypes
import math
import weakref
from collections import deque
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from cuda_ext._library import cpu_library

_Pointer = ctypes.c_void_p


class _RasterizeView(ctypes.Structure):
    """Mirrors RasterizeView of csrc/rasterize/rasterize.h."""

    _fields_ = (
        ("viewmat", ctypes.c_float * 12),
        *((name, ctypes.c_float) for name in ("fx", "fy", "cx", "cy", "near_plane")),
        *(
            (name, ctypes.c_int32)
            for name in ("width", "height", "sh_degree", "sh_coefficients", "gaussians", "features", "threads")
        ),
    )


_INPUTS = ("means", "quats", "scales", "opacities", "sh", "colors", "features", "background")
_OUTPUTS = ("color", "alpha", "depth", "feature_map", "radii", "n_contrib")
_GRAD_OUTPUTS = ("grad_color", "grad_alpha", "grad_depth", "grad_feature_map")
_GRAD_INPUTS = (*(f"grad_{name}" for name in _INPUTS), "grad_means2d", "grad_means2d_abs")


class _RasterizeTensors(ctypes.Structure):
    """Mirrors RasterizeTensors of csrc/rasterize/rasterize.h."""

    _fields_ = tuple((name, _Pointer) for name in (*_INPUTS, *_OUTPUTS, *_GRAD_OUTPUTS, *_GRAD_INPUTS))


class _SsimImages(ctypes.Structure):
    """Mirrors SsimImages of csrc/ssim/ssim.h."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("channels", "width", "height", "threads")),
        *((name, _Pointer) for name in ("prediction", "target", "mask", "means", "maps")),
        ("grad_l1", ctypes.c_float),
        ("grad_ssim", ctypes.c_float),
        ("grad_prediction", _Pointer),
    )


class View(NamedTuple):
    """A camera as plain numbers."""

    viewmat: tuple[float, ...]
    """The first three rows of world-to-camera."""
    intrinsics: tuple[float, float, float, float]
    """fx, fy, cx, cy in px."""
    width: int
    height: int
    near: float
    sh_degree: int

    @classmethod
    def make(cls, viewmat: Tensor, K: Tensor, width: int, height: int, near: float, sh_degree: int) -> View:
        """Read a camera out of tensors.

        Raises:
            ValueError: Values that are no camera.
        """
        rows, ((fx, _, cx), (_, fy, cy), _) = viewmat.tolist(), K.tolist()
        viewmat_rows, intrinsics = (*rows[0], *rows[1], *rows[2]), (fx, fy, cx, cy)
        if not all(map(math.isfinite, (*viewmat_rows, *intrinsics))) or not (fx > 0 and fy > 0):
            raise ValueError(
                f"rasterize: viewmat and K must be finite and focal lengths above 0, got {rows}, {K.tolist()}."
            )
        if not 0 < near < math.inf:
            raise ValueError(f"rasterize: near must be a positive distance, got {near}.")
        return cls(viewmat_rows, intrinsics, width, height, near, sh_degree)


class _Workspace:
    """Memory of one forward pass that its backward needs; the library's allocations are kept for the next picture."""

    _idle: deque[int] = deque()

    def __init__(self, library: ctypes.CDLL) -> None:
        try:
            self.address = self._idle.pop()
        except IndexError:
            self.address = library.gaussian_head_workspace_new()
        if not self.address:
            raise MemoryError("rasterize: no memory for a workspace.")
        weakref.finalize(self, self._idle.append, self.address)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _run(operator: str, status: int) -> None:
    if status == 2:
        raise ValueError(
            f"{operator}: the Gaussians meet more than 2^29 tiles of 16 x 16 px; make them, or the picture, smaller."
        )
    if status != 0:
        raise MemoryError(f"{operator}: out of memory; render fewer Gaussians or a smaller picture.")


class RasterizeCpu(torch.autograd.Function):
    """Forward and backward of csrc/rasterize/rasterize_cpu.cpp; float32 tensors on the CPU."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, view: View, means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor,
        sh: Tensor | None, colors: Tensor | None, features: Tensor, background: Tensor, means2d: Tensor | None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Return color, alpha, depth, features, radii, n_contrib."""
        library = cpu_library()
        if not all(map(math.isfinite, background.tolist())):
            raise ValueError(f"rasterize: background must be finite, got {background.tolist()}.")
        given = (means, quats, scales, opacities, sh, colors, features, background)
        inputs = [None if x is None else x.contiguous() for x in given]
        shape = (view.height, view.width)
        new = means.new_empty
        outputs = [new(3, *shape), new(1, *shape), new(1, *shape), new(features.shape[1], *shape)]
        outputs += [new(len(means), dtype=torch.int32), new(shape, dtype=torch.int32)]
        ctx.workspace = _Workspace(library)
        ctx.view = _RasterizeView(
            (ctypes.c_float * 12)(*view.viewmat), *view.intrinsics, view.near, view.width, view.height, view.sh_degree,
            0 if sh is None else sh.shape[1], len(means), features.shape[1], torch.get_num_threads(),
        )  # fmt: skip
        tensors = _RasterizeTensors(*(_address(x) for x in (*inputs, *outputs)))
        arguments = (_Pointer(ctx.workspace.address), ctypes.byref(ctx.view), ctypes.byref(tensors))
        _run("rasterize", library.gaussian_head_rasterize_forward(*arguments))
        ctx.means2d_columns = 0 if means2d is None else means2d.shape[1]
        ctx.save_for_backward(*inputs)
        ctx.mark_non_differentiable(*outputs[4:])
        ctx.set_materialize_grads(False)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients in the order of forward's arguments."""
        inputs = ctx.saved_tensors
        grad_outputs = [None if g is None else g.contiguous() for g in grads[:4]]
        grad_inputs = [None if x is None else torch.empty_like(x) for x in inputs]
        grad_centres = [inputs[0].new_empty(len(inputs[0]), 2) for _ in range(ctx.means2d_columns // 2)]
        ctx.view.threads = torch.get_num_threads()
        fields = (
            *inputs,
            *(None for _ in _OUTPUTS),
            *grad_outputs,
            *grad_inputs,
            *grad_centres,
            *[None] * (2 - len(grad_centres)),
        )
        tensors = _RasterizeTensors(*(_address(x) for x in fields))
        arguments = (_Pointer(ctx.workspace.address), ctypes.byref(ctx.view), ctypes.byref(tensors))
        _run("rasterize", cpu_library().gaussian_head_rasterize_backward(*arguments))
        grad_means2d = torch.cat(grad_centres, 1) if len(grad_centres) == 2 else (*grad_centres, None)[0]
        return (None, *grad_inputs, grad_means2d)


class FusedL1Ssim(torch.autograd.Function):
    """Forward and backward of csrc/ssim/ssim_cpu.cpp; float32 tensors on the CPU."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        prediction: Float[Tensor, "C H W"],
        target: Float[Tensor, "C H W"],
        mask: Float[Tensor, "1 H W"] | None,
    ) -> tuple[Tensor, Tensor]:
        """Return mean |prediction - target| and mean SSIM."""
        inputs = [None if x is None else x.contiguous() for x in (prediction, target, mask)]
        means = prediction.new_empty(2)
        maps = prediction.new_empty(3, *prediction.shape) if ctx.needs_input_grad[0] else None
        images = _images(*inputs, means, maps)
        _run("l1_ssim", cpu_library().gaussian_head_l1_ssim_forward(ctypes.byref(images)))
        ctx.save_for_backward(*inputs, maps)
        l1, ssim = means.tolist()
        return prediction.new_tensor(l1), prediction.new_tensor(ssim)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_l1: Tensor, grad_ssim: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient on the prediction."""
        prediction, target, mask, maps = ctx.saved_tensors
        grad = torch.empty_like(prediction)
        images = _images(prediction, target, mask, None, maps)
        images.grad_l1, images.grad_ssim, images.grad_prediction = float(grad_l1), float(grad_ssim), grad.data_ptr()
        _run("l1_ssim", cpu_library().gaussian_head_l1_ssim_backward(ctypes.byref(images)))
        return grad, None, None


def _images(
    prediction: Tensor, target: Tensor, mask: Tensor | None, means: Tensor | None, maps: Tensor | None
) -> _SsimImages:
    channels, height, width = prediction.shape
    pointers = (_address(x) for x in (prediction, target, mask, means, maps))
    return _SsimImages(channels, width, height, torch.get_num_threads(), *pointers)
