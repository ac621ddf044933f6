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
HOW_TO_BUILD = (
    "build it with `pip install .` or, in a checkout, `python setup.py build_ext --inplace` (needs a C++ compiler)"
)
ABI = 2
"""Version of the C interface; raised together with the one in csrc/dispatch.cpp."""
IMPLEMENTATIONS = ("auto", "cpu", "reference")
ENVIRONMENT = "GAUSSIAN_HEAD_OPERATORS"
"""Environment variable that replaces `auto` by one of `IMPLEMENTATIONS`."""
ISA_ENVIRONMENT = "GAUSSIAN_HEAD_ISA"
"""Environment variable that names the compiled copy to use, one of `instruction_sets()`; read as the library loads."""


class LibraryMissingError(RuntimeError):
    """The compiled library was asked for by name but cannot be loaded."""


@functools.cache
def _load() -> ctypes.CDLL | str:
    """Load the CPU library once; on failure return the reason, which is remembered.

    Raises:
        ValueError: $GAUSSIAN_HEAD_ISA names a copy that this machine cannot run.
    """
    if not CPU_LIBRARY.is_file():
        return f"{CPU_LIBRARY.name} is not in {CPU_LIBRARY.parent}"
    try:
        library = ctypes.CDLL(str(CPU_LIBRARY))
        abi = library.gaussian_head_abi()
    except (OSError, AttributeError) as error:
        return f"{CPU_LIBRARY.name} does not load: {error}"
    if abi != ABI:
        return f"{CPU_LIBRARY.name} was built from other sources (interface {abi}, expected {ABI})"
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
        implementation: `auto` (the fastest that fits), `cpu` or `reference`. `auto` obeys $GAUSSIAN_HEAD_OPERATORS.
        tensor: One of the operator's arguments.
        operator: Name for messages.

    Returns:
        `cpu` or `reference`.

    Raises:
        ValueError: Unknown name, or `cpu` with tensors it cannot take.
        NotImplementedError: A CUDA implementation was asked for.
        LibraryMissingError: `cpu` was asked for and is not built.
    """
    wanted = implementation if implementation != "auto" else os.environ.get(ENVIRONMENT, "auto")
    if wanted == "cuda":
        raise NotImplementedError(
            f"{operator}: there are no CUDA kernels yet; use 'auto' (plain PyTorch on CUDA tensors)."
        )
    if wanted not in IMPLEMENTATIONS:
        raise ValueError(f"{operator}: implementation must be one of {IMPLEMENTATIONS}, got {wanted!r}.")
    if wanted == "reference":
        return "reference"
    fits = tensor.device.type == "cpu" and tensor.dtype == torch.float32
    if implementation == "cpu":
        if not fits:
            raise ValueError(f"{operator}: 'cpu' takes float32 on cpu, got {tensor.dtype} on {tensor.device}.")
        cpu_library()
        return "cpu"
    if tensor.device.type == "cuda":
        _warn_once(f"{operator} has no CUDA kernels yet.")
    if not fits:
        return "reference"
    library = _load()
    if isinstance(library, str):
        _warn_once(f"The compiled operators are missing ({library}); {HOW_TO_BUILD}.")
        return "reference"
    return "cpu"
