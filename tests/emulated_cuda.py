"""The CUDA operators without a GPU: g++ compiles their very sources for the emulator of `cuda_ext/emulate`."""

from __future__ import annotations

import ctypes
import importlib
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cuda_ext import _cuda, _library

ROOT = Path(__file__).resolve().parent.parent
EMULATOR = ROOT / "tests/cuda_ext/emulate"
FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-U_FORTIFY_SOURCE", "-Wno-unknown-pragmas", "-x", "c++")


def build(sources: list[Path], target: Path) -> None:
    """Compile CUDA sources for the emulator, or skip the test where there is no compiler."""
    compiler = next((found for name in ("g++", "c++", "clang++") if (found := shutil.which(name))), None)
    if compiler is None:
        pytest.skip("no C++ compiler to build the emulated CUDA operators with")
    subprocess.run([compiler, *FLAGS, f"-I{EMULATOR}", *map(str, sources), "-o", str(target)], check=True)


class _StatusAtOnce:
    """Stands in for `_cuda._Status`, whose pinned memory and events need a GPU: answers come with the next picture."""

    def __init__(self, device: torch.device) -> None:
        self.tensor = torch.zeros(2, dtype=torch.int32, device=device)
        self._asked: list[int] | None = None

    def ask(self) -> None:
        self._asked = self.tensor.tolist()

    def answer(self) -> list[int] | None:
        asked, self._asked = self._asked, None
        return asked

    def wait(self) -> list[int]:
        return self.tensor.tolist()


@pytest.fixture(scope="session")
def emulated_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CUDA operators compiled for the emulator."""
    target = tmp_path_factory.mktemp("emulated") / "_operators_cuda.so"
    build(sorted((ROOT / "cuda_ext/csrc").glob("*/*.cu")), target)
    return target


@pytest.fixture
def emulated_cuda(emulated_library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ctypes.CDLL]:
    """Make `implementation="cuda"` run the emulated kernels on CPU tensors, in memory that is full of NaNs before."""
    monkeypatch.setattr(_library, "CUDA_LIBRARY", emulated_library)
    monkeypatch.setattr(_cuda, "_stream", lambda _device: 0)
    monkeypatch.setattr(_cuda, "_guard", lambda _device: nullcontext())
    monkeypatch.setattr(_cuda, "_is_capturing", lambda: False)
    monkeypatch.setattr(_cuda, "_Status", _StatusAtOnce)
    monkeypatch.setattr(_cuda, "_rooms", {})

    def choose(implementation: str, tensor: Tensor, operator: str) -> str:
        return "cuda" if implementation == "cuda" else _library.choose(implementation, tensor, operator)

    for module in ("cuda_ext.rasterize", "cuda_ext.ssim", "cuda_ext.mesh"):
        monkeypatch.setattr(importlib.import_module(module), "choose", choose)
    _library._load_cuda.cache_clear()
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills whatever torch.empty gives
    yield _library.cuda_library()
    torch.use_deterministic_algorithms(False)
    _library.cuda_library().emulate_order(0)
    _library._load_cuda.cache_clear()
