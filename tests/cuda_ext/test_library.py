"""Finding the compiled library: laziness, the message where it is missing, and the fallback."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cuda_ext import _library, l1_ssim


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Pretend that nothing was compiled."""
    monkeypatch.setattr(_library, "CPU_LIBRARY", tmp_path / "_operators_cpu.so")
    monkeypatch.delenv(_library.ENVIRONMENT, raising=False)
    for cached in (_library._load, _library._warn_once):
        cached.cache_clear()
    yield
    for cached in (_library._load, _library._warn_once):
        cached.cache_clear()


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
    with pytest.raises(NotImplementedError, match="no CUDA kernels yet"):
        _library.choose("auto", torch.zeros(1), "test")


def test_float64_goes_to_the_reference() -> None:
    assert _library.choose("auto", torch.zeros(1, dtype=torch.float64), "test") == "reference"
    with pytest.raises(ValueError, match="takes float32 on cpu"):
        _library.choose("cpu", torch.zeros(1, dtype=torch.float64), "test")


def test_importing_loads_nothing() -> None:
    script = "import cuda_ext; from cuda_ext import _library; assert _library._load.cache_info().currsize == 0"
    subprocess.run([sys.executable, "-c", script], check=True)
