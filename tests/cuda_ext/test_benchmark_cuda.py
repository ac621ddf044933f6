"""The GPU benchmark runs through, where there is no GPU too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_every_variant_is_timed(tmp_path: Path, device: str) -> None:
    file = tmp_path / "benchmark.json"
    command = [sys.executable, ROOT / "benchmarks/rasterize_cuda.py", "--device", device, "--json", file, "--quick"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([str(word) for word in command], check=True, env=environment, capture_output=True)
    (size,) = json.loads(file.read_text())["sizes"]
    names = [name for name in size["median_us"] if not name.endswith("graph")]
    assert [name.split(",")[0] for name in names[:3]] == ["forward", "forward + backward", "training step"]
    assert "loss" in names
    assert all(value > 0 for value in size["median_us"].values())
