"""Calls the compiled CUDA operators (csrc/*/*_cuda.cu) through ctypes and gives them gradients.

Nothing here waits for the device but the first picture of a size (see `PairRoom`), so that a training step can be
captured in a CUDA graph: run it once before capturing, with the camera in tensors on the device.
"""

from __future__ import annotations

import ctypes
import logging
import math
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from cuda_ext._cpu import _OUTPUTS, _address, _RasterizeTensors
from cuda_ext._library import cuda_library

logger = logging.getLogger(__name__)

TILE_PX = 16
"""Side of the square of pixels that a block of threads blends, 8 or 16: speed only."""
LANES = False
"""Whether a thread of backward takes a Gaussian of a tile instead of a pixel: speed only, more memory."""

MOST_PAIRS = 2**30
"""Pairs of Gaussian and tile that a picture may have room for; 32 bits count them."""

_SAVED, _FORWARD, _BACKWARD = range(3)
"""RasterizeMemory of csrc/rasterize/rasterize_cuda.h."""
_HINTS = {
    35: "the driver is too old for the CUDA version that the library was built with, or there is no GPU",
    209: "the library was built for other GPUs; build it again where this one is",
}
"""What to do about some of CUDA's error codes."""
_Pointer = ctypes.c_void_p


class _RasterizeCudaView(ctypes.Structure):
    """Mirrors RasterizeCudaView of csrc/rasterize/rasterize_cuda.h."""

    _fields_ = (
        *((name, _Pointer) for name in ("viewmat", "K", "status")),
        ("near_plane", ctypes.c_float),
        *((name, ctypes.c_int32) for name in ("width", "height", "sh_degree", "sh_coefficients", "gaussians")),
        *((name, ctypes.c_int32) for name in ("features", "tile", "lanes", "pair_capacity", "device")),
    )


class _SsimCudaImages(ctypes.Structure):
    """Mirrors SsimCudaImages of csrc/ssim/ssim_cuda.h."""

    _fields_ = (
        *((name, _Pointer) for name in ("prediction", "target", "mask", "maps", "inverse_weight", "l1", "ssim")),
        *((name, _Pointer) for name in ("partial", "grad_l1", "grad_ssim", "grad_prediction")),
        *((name, ctypes.c_int32) for name in ("channels", "width", "height", "device")),
    )


class PairOverflowError(RuntimeError):
    """A picture had more pairs of Gaussian and tile than there was room for."""


class Picture(NamedTuple):
    """What is fixed about a view; its camera stays on the device."""

    width: int
    height: int
    near: float
    sh_degree: int


def _stream(device: torch.device) -> int:
    return torch.cuda.current_stream(device).cuda_stream


def _guard(device: torch.device) -> AbstractContextManager:
    return torch.cuda.device(device)


def _is_capturing() -> bool:
    return torch.cuda.is_current_stream_capturing()


def _run(operator: str, code: int) -> None:
    if code != 0:
        text = cuda_library().gaussian_head_cuda_error(code).decode()
        hint = f" ({_HINTS[code]})" if code in _HINTS else ""
        raise RuntimeError(f"{operator}: CUDA error {code}, {text}{hint}.")


class _Status:
    """Two counters on the device, most pairs and pictures without room; the host learns of them without waiting."""

    def __init__(self, device: torch.device) -> None:
        self.tensor = torch.zeros(2, dtype=torch.int32, device=device)
        self._host = torch.zeros(2, dtype=torch.int32, pin_memory=True)
        self._arrives: torch.cuda.Event | None = None

    def ask(self) -> None:
        """Start copying the counters, unless a copy is under way."""
        if self._arrives is None:
            self._host.copy_(self.tensor, non_blocking=True)
            self._arrives = torch.cuda.Event()
            self._arrives.record()

    def answer(self) -> list[int] | None:
        """Return the counters asked for, or None as long as they are not there."""
        if self._arrives is None or not self._arrives.query():
            return None
        self._arrives = None
        return self._host.tolist()

    def wait(self) -> list[int]:
        """Wait for the device and return the counters as they are now."""
        return self.tensor.tolist()


class PairRoom:
    """How much room the pairs of Gaussian and tile get in pictures of one size on one device.

    The first picture is counted while the host waits, and drawn again if it did not fit. Later ones get half as much
    room again, in proportion to the number of Gaussians, and are counted without waiting: one that does not fit shows
    the background only and has zero gradients; that is reported some pictures later, and the room grows.
    """

    SPARE = 1.5
    FIRST_GUESS = 8
    """Pairs for each Gaussian, before any picture was counted."""
    STEP = 1 << 14

    def __init__(self, device: torch.device) -> None:
        self.status = _Status(device)
        self._pairs, self._gaussians = 0, 0  # of the picture with the most pairs
        self._overflows = 0
        self._asked_for = 0

    @property
    def is_new(self) -> bool:
        """Whether no picture has been counted yet."""
        return self._gaussians == 0

    def reserve(self, gaussians: int) -> int:
        """Return for how many pairs to make room.

        Raises:
            ValueError: More than can be counted.
        """
        if not _is_capturing() and (answer := self.status.answer()) is not None and self.learn(answer, self._asked_for):
            logger.warning(
                "rasterize: a picture of %d pairs of Gaussian and tile did not fit; it showed the background only and "
                "had no gradient. There is more room from now on.",
                self._pairs,
            )
        wanted = self.FIRST_GUESS * gaussians
        if not self.is_new:
            wanted = int(self.SPARE * self._pairs * max(1.0, gaussians / self._gaussians))
        if wanted > MOST_PAIRS:
            raise ValueError(
                f"rasterize: the Gaussians need room for {wanted} pairs of Gaussian and tile, more than {MOST_PAIRS}; "
                "make them smaller or fewer, or the picture."
            )
        return (wanted // self.STEP + 1) * self.STEP

    def ask(self, gaussians: int) -> None:
        """Have the pictures so far counted, for a later `reserve` to hear of."""
        self.status.ask()
        self._asked_for = gaussians

    def learn(self, counters: list[int], gaussians: int | None = None) -> bool:
        """Remember what the device counted; returns whether pictures did not fit since the last time."""
        most, overflows = counters
        if self.is_new or most > self._pairs:
            self._pairs, self._gaussians = most, max(gaussians or self._gaussians, 1)
        news = overflows > self._overflows
        self._overflows = overflows
        return news


_rooms: dict[tuple[torch.device, int, int, int], PairRoom] = {}
"""By device, width, height and TILE_PX."""


def _room(device: torch.device, picture: Picture) -> PairRoom:
    key = (device, picture.width, picture.height, TILE_PX)
    if key not in _rooms:
        if _is_capturing():
            raise RuntimeError(
                f"rasterize: no picture of {picture.width} x {picture.height} px was drawn on {device} yet; run the "
                "step once before capturing a CUDA graph, so that the room it needs is known."
            )
        _rooms[key] = PairRoom(device)
    return _rooms[key]


def check_pair_room(device: torch.device | None = None) -> None:
    """Wait for the GPU and make sure that every picture so far had room for all its Gaussians.

    Needed only after replaying CUDA graphs, whose buffers cannot grow; elsewhere it is noticed by itself.

    Args:
        device: The GPU to look at; all of them if not given.

    Raises:
        PairOverflowError: Pictures did not fit since the last check. The room has grown: capture the graph again.
    """
    late = []
    for (where, width, height, _), room in _rooms.items():
        if device in (None, where):
            counters = room.status.wait()
            if room.learn(counters):
                late.append(f"{width} x {height} px needed {counters[0]}")
    if late:
        raise PairOverflowError(
            f"rasterize: pictures did not fit into their pairs of Gaussian and tile ({'; '.join(late)}) and showed the "
            "background only. There is more room from now on; capture CUDA graphs again."
        )


class RasterizeCuda(torch.autograd.Function):
    """Forward and backward of csrc/rasterize/rasterize_cuda.cu; float32 tensors on one GPU."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, picture: Picture, viewmat: Tensor, K: Tensor, means: Tensor, quats: Tensor, scales: Tensor,
        opacities: Tensor, sh: Tensor | None, colors: Tensor | None, features: Tensor, background: Tensor,
        means2d: Tensor | None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Return color, alpha, depth, features, radii, n_contrib."""
        if not 0 < picture.near < math.inf:
            raise ValueError(f"rasterize: near must be a positive distance, got {picture.near}.")
        camera = (viewmat.contiguous(), K.contiguous())
        given = (means, quats, scales, opacities, sh, colors, features, background)
        inputs = [None if x is None else x.detach().contiguous() for x in given]
        shape, new = (picture.height, picture.width), means.new_empty
        outputs = [new(3, *shape), new(1, *shape), new(1, *shape), new(features.shape[1], *shape)]
        outputs += [new(len(means), dtype=torch.int32), new(shape, dtype=torch.int32)]
        with _guard(means.device):
            room = _room(means.device, picture)
            capacity = room.reserve(len(means))
            saved = _draw(picture, camera, room, capacity, inputs, outputs)
            if not _is_capturing():
                if room.is_new and room.learn(room.status.wait(), len(means)):
                    capacity = room.reserve(len(means))
                    saved = _draw(picture, camera, room, capacity, inputs, outputs)
                room.ask(len(means))
        ctx.picture, ctx.room, ctx.capacity, ctx.scheme = picture, room, capacity, (TILE_PX, LANES)
        ctx.means2d_columns = 0 if means2d is None else means2d.shape[1]
        ctx.save_for_backward(*inputs, *camera, saved)
        ctx.mark_non_differentiable(*outputs[4:])
        ctx.set_materialize_grads(False)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients in the order of forward's arguments."""
        *inputs, viewmat, K, saved = ctx.saved_tensors
        means = inputs[0]
        grad_outputs = [None if g is None else g.contiguous() for g in grads[:4]]
        grad_inputs = [None if x is None else torch.empty_like(x) for x in inputs]
        grad_centres = [means.new_empty(len(means), 2) for _ in range(ctx.means2d_columns // 2)]
        view = _view(ctx.picture, (viewmat, K), ctx.room, ctx.capacity, ctx.scheme, inputs)
        fields = (*inputs, *(None for _ in _OUTPUTS), *grad_outputs, *grad_inputs, *grad_centres)
        tensors = _RasterizeTensors(*(_address(x) for x in fields))
        with _guard(means.device):
            scratch = _memory(view, _BACKWARD, means)
            _call("rasterize_backward", view, tensors, saved, scratch)
        return (None, None, None, *grad_inputs, torch.cat(grad_centres, 1) if grad_centres else None)


def _view(
    picture: Picture, camera: tuple[Tensor, Tensor], room: PairRoom, capacity: int, scheme: tuple[int, bool],
    inputs: list[Tensor | None],
) -> _RasterizeCudaView:  # fmt: skip
    means, sh, features = inputs[0], inputs[4], inputs[6]
    return _RasterizeCudaView(
        *(x.data_ptr() for x in (*camera, room.status.tensor)), picture.near, picture.width, picture.height,
        picture.sh_degree, 0 if sh is None else sh.shape[1], len(means), features.shape[1], *scheme, capacity,
        means.device.index or 0,
    )  # fmt: skip


def _memory(view: _RasterizeCudaView, kind: int, like: Tensor) -> Tensor:
    size = cuda_library().gaussian_head_cuda_rasterize_bytes(ctypes.byref(view), kind)
    return torch.empty(size, dtype=torch.uint8, device=like.device)


def _call(name: str, view: _RasterizeCudaView, tensors: _RasterizeTensors, saved: Tensor, scratch: Tensor) -> None:
    function = getattr(cuda_library(), f"gaussian_head_cuda_{name}")
    memory = (_Pointer(saved.data_ptr()), _Pointer(scratch.data_ptr()), _Pointer(_stream(saved.device)))
    _run("rasterize", function(ctypes.byref(view), ctypes.byref(tensors), *memory))


def _draw(
    picture: Picture, camera: tuple[Tensor, Tensor], room: PairRoom, capacity: int, inputs: list[Tensor | None],
    outputs: list[Tensor],
) -> Tensor:  # fmt: skip
    """Fill the outputs; returns the memory that backward needs."""
    view = _view(picture, camera, room, capacity, (TILE_PX, LANES), inputs)
    saved, scratch = _memory(view, _SAVED, inputs[0]), _memory(view, _FORWARD, inputs[0])
    tensors = _RasterizeTensors(*(_address(x) for x in (*inputs, *outputs)))
    _call("rasterize_forward", view, tensors, saved, scratch)
    return saved


class FusedL1SsimCuda(torch.autograd.Function):
    """Forward and backward of csrc/ssim/ssim_cuda.cu; float32 tensors on one GPU."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        prediction: Float[Tensor, "C H W"],
        target: Float[Tensor, "C H W"],
        mask: Float[Tensor, "1 H W"] | None,
    ) -> tuple[Tensor, Tensor]:
        """Return mean |prediction - target| and mean SSIM."""
        inputs = [None if x is None else x.detach().contiguous() for x in (prediction, target, mask)]
        maps = prediction.new_empty(3, *prediction.shape) if ctx.needs_input_grad[0] else None
        inverse_weight, l1, ssim = (prediction.new_empty(()) for _ in range(3))
        images = _images(inputs, maps, inverse_weight)
        partial = torch.empty(
            cuda_library().gaussian_head_cuda_l1_ssim_bytes(ctypes.byref(images)), dtype=torch.uint8, device=l1.device
        )
        images.l1, images.ssim, images.partial = l1.data_ptr(), ssim.data_ptr(), partial.data_ptr()
        with _guard(prediction.device):
            stream = _Pointer(_stream(prediction.device))
            _run("l1_ssim", cuda_library().gaussian_head_cuda_l1_ssim_forward(ctypes.byref(images), stream))
        ctx.save_for_backward(*inputs, maps, inverse_weight)
        return l1, ssim

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_l1: Tensor, grad_ssim: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient on the prediction."""
        *inputs, maps, inverse_weight = ctx.saved_tensors
        grad = torch.empty_like(inputs[0])
        images = _images(inputs, maps, inverse_weight)
        grad_l1, grad_ssim = grad_l1.contiguous(), grad_ssim.contiguous()
        images.grad_l1, images.grad_ssim, images.grad_prediction = (x.data_ptr() for x in (grad_l1, grad_ssim, grad))
        with _guard(grad.device):
            stream = _Pointer(_stream(grad.device))
            _run("l1_ssim", cuda_library().gaussian_head_cuda_l1_ssim_backward(ctypes.byref(images), stream))
        return grad, None, None


def _images(inputs: list[Tensor | None], maps: Tensor | None, inverse_weight: Tensor) -> _SsimCudaImages:
    prediction, target, mask = inputs
    channels, height, width = prediction.shape
    pointers = (_address(x) for x in (prediction, target, mask, maps, inverse_weight))
    return _SsimCudaImages(
        *pointers, channels=channels, width=width, height=height, device=prediction.device.index or 0
    )
