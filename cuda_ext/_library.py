"""Finds the compiled operators on first use, or explains why there are none. Importing this loads nothing."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
from pathlib import Path

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

CPU_LIBRARY = Path(__file__).with_name("_operators_cpu.so")
CUDA_LIBRARY = Path(__file__).with_name("_operators_cuda.so")
HOW_TO_BUILD = (
    "build it with `pip install .` or, in a checkout, `python setup.py build_ext --inplace` (needs a C++ compiler)"
)
HOW_TO_BUILD_CUDA = "build it where nvcc is found: `pip install .`, in a checkout `python setup.py build_ext --inplace`"
ABI = 4
"""Version of the C interface; raised together with the one in csrc/dispatch.cpp."""
CUDA_ABI = 2
"""The same for csrc/rasterize/rasterize_cuda.cu."""
IMPLEMENTATIONS = ("auto", "cpu", "cuda", "reference")
ENVIRONMENT = "GAUSSIAN_HEAD_OPERATORS"
"""Environment variable that replaces `auto` by one of `IMPLEMENTATIONS`."""
ISA_ENVIRONMENT = "GAUSSIAN_HEAD_ISA"
"""Environment variable that names the compiled copy to use, one of `instruction_sets()`; read as the library loads."""


class LibraryMissingError(RuntimeError):
    """The compiled library was asked for by name but cannot be loaded."""


def _open(path: Path, version: str, expected: int) -> ctypes.CDLL | str:
    """Open a library whose function `version` tells its interface; on failure return the reason."""
    if not path.is_file():
        return f"{path.name} is not in {path.parent}"
    try:
        library = ctypes.CDLL(str(path))
        abi = getattr(library, version)()
    except (OSError, AttributeError) as error:
        return f"{path.name} does not load: {error}"
    if abi != expected:
        return f"{path.name} was built from other sources (interface {abi}, expected {expected})"
    return library


@functools.cache
def _load() -> ctypes.CDLL | str:
    """Load the CPU library once; on failure return the reason, which is remembered.

    Raises:
        ValueError: $GAUSSIAN_HEAD_ISA names a copy that this machine cannot run.
    """
    library = _open(CPU_LIBRARY, "gaussian_head_abi", ABI)
    if isinstance(library, str):
        return library
    library.gaussian_head_isa.restype = library.gaussian_head_isas.restype = ctypes.c_char_p
    library.gaussian_head_workspace_new.restype = ctypes.c_void_p
    wanted, here = os.environ.get(ISA_ENVIRONMENT), library.gaussian_head_isas().decode().split()
    if wanted and wanted not in here:
        raise ValueError(
            f"${ISA_ENVIRONMENT} is {wanted!r}, but this machine runs {here}; name one of them or unset it."
        )
    return library


def is_built() -> bool:
    """Return whether the compiled CPU operators can be used here."""
    return not isinstance(_load(), str)


def cpu_library() -> ctypes.CDLL:
    """Return the compiled CPU operators.

    Raises:
        LibraryMissingError: Not built or not loadable; says how to build it.
    """
    library = _load()
    if isinstance(library, str):
        raise LibraryMissingError(f"The compiled operators are missing ({library}); {HOW_TO_BUILD}.")
    return library


@functools.cache
def _load_cuda() -> ctypes.CDLL | str:
    """Load the CUDA library once; on failure return the reason, which is remembered. Needs no GPU."""
    library = _open(CUDA_LIBRARY, "gaussian_head_cuda_abi", CUDA_ABI)
    if isinstance(library, str):
        return library
    library.gaussian_head_cuda_error.restype = ctypes.c_char_p
    library.gaussian_head_cuda_rasterize_bytes.restype = ctypes.c_size_t
    library.gaussian_head_cuda_l1_ssim_bytes.restype = ctypes.c_size_t
    return library


def is_cuda_built() -> bool:
    """Return whether the compiled CUDA operators can be loaded; whether there is a GPU is another question."""
    return not isinstance(_load_cuda(), str)


def cuda_library() -> ctypes.CDLL:
    """Return the compiled CUDA operators.

    Raises:
        LibraryMissingError: Not built or not loadable; says how to build it.
    """
    library = _load_cuda()
    if isinstance(library, str):
        raise LibraryMissingError(f"The CUDA operators are missing ({library}); {HOW_TO_BUILD_CUDA}.")
    return library


def instruction_set() -> str:
    """Return which copy of the kernels runs: the last of `instruction_sets()`, or the one $GAUSSIAN_HEAD_ISA names."""
    return cpu_library().gaussian_head_isa().decode()


def instruction_sets() -> list[str]:
    """Return the copies that this machine runs, slowest first: of `baseline`, `avx2`, `avx512`."""
    return cpu_library().gaussian_head_isas().decode().split()


@functools.cache
def _warn_once(reason: str) -> None:
    logger.warning("%s Falling back to plain PyTorch, which is many times slower.", reason)


def choose(implementation: str, tensor: Tensor, operator: str) -> str:
    """Decide which implementation runs `operator` on tensors like `tensor`.

    Args:
        implementation: `auto` (the fastest that fits), `cpu`, `cuda` or `reference`. `auto` obeys
            $GAUSSIAN_HEAD_OPERATORS, where tensors that do not fit the compiled one it names take the reference.
        tensor: One of the operator's arguments.
        operator: Name for messages.

    Returns:
        `cpu`, `cuda` or `reference`.

    Raises:
        ValueError: Unknown name, or `cpu` or `cuda` with tensors it cannot take.
        LibraryMissingError: `cpu` or `cuda` was asked for and is not built.
    """
    wanted = implementation if implementation != "auto" else os.environ.get(ENVIRONMENT, "auto")
    if wanted not in IMPLEMENTATIONS:
        raise ValueError(f"{operator}: implementation must be one of {IMPLEMENTATIONS}, got {wanted!r}.")
    device = tensor.device.type
    fits = device in ("cpu", "cuda") and tensor.dtype == torch.float32 and wanted in ("auto", device)
    if implementation in ("cpu", "cuda"):
        if not fits:
            raise ValueError(
                f"{operator}: {wanted!r} takes float32 on {wanted}, got {tensor.dtype} on {tensor.device}."
            )
        _ = cpu_library() if device == "cpu" else cuda_library()
        return device
    if not fits:
        return "reference"
    library, how = (_load(), HOW_TO_BUILD) if device == "cpu" else (_load_cuda(), HOW_TO_BUILD_CUDA)
    if isinstance(library, str):
        _warn_once(f"The compiled operators are missing ({library}); {how}.")
        return "reference"
    return device
