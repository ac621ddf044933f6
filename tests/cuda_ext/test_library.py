"""Finding the compiled library: laziness, the message where it is missing, and the fallback."""

from __future__ import annotations

import ctypes
import inspect
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cuda_ext import _cuda, _library, l1_ssim


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Pretend that nothing was compiled."""
    monkeypatch.setattr(_library, "CPU_LIBRARY", tmp_path / "_operators_cpu.so")
    monkeypatch.setattr(_library, "CUDA_LIBRARY", tmp_path / "_operators_cuda.so")
    monkeypatch.delenv(_library.ENVIRONMENT, raising=False)
    for cached in (_library._load, _library._load_cuda, _library._warn_once):
        cached.cache_clear()
    yield
    for cached in (_library._load, _library._load_cuda, _library._warn_once):
        cached.cache_clear()


def setup_skips_cuda() -> bool:
    """Whether setup.py leaves the CUDA operators out on this machine."""
    return os.environ.get("GAUSSIAN_HEAD_CUDA") == "0" or shutil.which("nvcc") is None


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(3, 12, 12), torch.rand(3, 12, 12)


@pytest.mark.usefixtures("missing")
def test_missing_library_falls_back_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            l1_ssim(*pictures())
    assert len(caplog.records) == 1
    assert "setup.py build_ext --inplace" in caplog.text


@pytest.mark.usefixtures("missing")
def test_missing_library_is_explained_when_asked_for() -> None:
    with pytest.raises(_library.LibraryMissingError, match=r"build it with `pip install"):
        l1_ssim(*pictures(), implementation="cpu")


@pytest.mark.usefixtures("missing")
def test_unreadable_library_is_explained() -> None:
    _library.CPU_LIBRARY.write_bytes(b"no library")
    with pytest.raises(_library.LibraryMissingError, match="does not load"):
        l1_ssim(*pictures(), implementation="cpu")


@pytest.mark.usefixtures("compiled")
def test_library_of_other_sources_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_library, "ABI", -1)
    _library._load.cache_clear()
    with pytest.raises(_library.LibraryMissingError, match="built from other sources"):
        l1_ssim(*pictures(), implementation="cpu")
    _library._load.cache_clear()


@pytest.mark.usefixtures("compiled")
def test_unknown_instruction_set_is_refused() -> None:
    environment = {**os.environ, _library.ISA_ENVIRONMENT: "avx9000"}
    script = "import torch; from cuda_ext import l1_ssim; l1_ssim(torch.zeros(3, 8, 8), torch.zeros(3, 8, 8))"
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "$GAUSSIAN_HEAD_ISA is 'avx9000', but this machine runs ['baseline'" in result.stderr


def test_environment_replaces_auto_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_library.ENVIRONMENT, "reference")
    assert _library.choose("auto", torch.zeros(1), "test") == "reference"
    monkeypatch.setenv(_library.ENVIRONMENT, "cuda")
    assert _library.choose("auto", torch.zeros(1), "test") == "reference"
    monkeypatch.setenv(_library.ENVIRONMENT, "gpu")
    with pytest.raises(ValueError, match="implementation must be one of .* got 'gpu'"):
        _library.choose("auto", torch.zeros(1), "test")


class _OnGpu:
    """As much of a tensor on a GPU as `choose` looks at."""

    device = torch.device("cuda", 0)
    dtype = torch.float32


@pytest.mark.usefixtures("missing")
def test_missing_cuda_library_falls_back_and_is_explained_when_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    choose = inspect.unwrap(_library.choose)
    assert choose("auto", _OnGpu(), "test") == "reference"
    assert "_operators_cuda.so is not in" in caplog.text
    with pytest.raises(_library.LibraryMissingError, match="CUDA operators are missing .* nvcc"):
        choose("cuda", _OnGpu(), "test")


def test_cuda_takes_cuda_tensors_only() -> None:
    with pytest.raises(ValueError, match="'cuda' takes float32 on cuda, got torch.float32 on cpu"):
        _library.choose("cuda", torch.zeros(1), "test")


@pytest.mark.skipif(setup_skips_cuda(), reason="no nvcc here, or GAUSSIAN_HEAD_CUDA=0")
def test_cuda_library_loads_without_a_gpu_and_says_what_it_takes() -> None:
    assert _library.cuda_library().gaussian_head_cuda_abi() == _library.CUDA_ABI
    table = _library.CUDA_LIBRARY.with_suffix(".ptxas.txt").read_text().split("\n\n")[0].splitlines()
    assert table[0].startswith("| kernel | bytes shared | sm_")
    kernels = {line.split("_kernel")[0].strip("| ") for line in table[2:]}
    assert kernels >= {"project", "begin", "list", "sort", "blend", "blend_backward", "chain", "ssim", "ssim_backward"}


def test_float64_goes_to_the_reference() -> None:
    assert _library.choose("auto", torch.zeros(1, dtype=torch.float64), "test") == "reference"
    with pytest.raises(ValueError, match="takes float32 on cpu"):
        _library.choose("cpu", torch.zeros(1, dtype=torch.float64), "test")


@pytest.mark.skipif(setup_skips_cuda() or torch.cuda.is_available(), reason="no nvcc here, or a GPU")
def test_a_kernel_without_a_gpu_is_an_error_that_is_explained() -> None:
    images = _cuda._SsimCudaImages(channels=1, width=1, height=1)
    code = _library.cuda_library().gaussian_head_cuda_l1_ssim_forward(ctypes.byref(images), None)
    with pytest.raises(RuntimeError, match=r"l1_ssim: CUDA error \d+, .*(driver|device)"):
        _cuda._run("l1_ssim", code)


def test_importing_loads_nothing() -> None:
    script = (
        "import cuda_ext; from cuda_ext import _library\n"
        "assert _library._load.cache_info().currsize == _library._load_cuda.cache_info().currsize == 0"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
