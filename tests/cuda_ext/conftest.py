"""Random Gaussians in front of a camera, and what the operators' tests share."""

from __future__ import annotations

import math
import shutil
from collections import deque
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from cuda_ext import _cpu, _library
from cuda_ext._library import instruction_set, instruction_sets, is_built

Scene = dict[str, Tensor]


@pytest.fixture
def compiled() -> None:
    """Skip where the operators were not compiled."""
    if not is_built():
        pytest.skip("operators not compiled")


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def every_copy(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Run the test with each compiled copy of the kernels that this machine can run."""
    if not is_built():
        pytest.skip("operators not compiled")
    if request.param not in instruction_sets():
        pytest.skip(f"this machine does not run {request.param}")
    # A library that is loaded stays as it is, so each copy is another file.
    library = tmp_path_factory.getbasetemp() / request.param / _library.CPU_LIBRARY.name
    if not library.exists():
        library.parent.mkdir()
        shutil.copyfile(_library.CPU_LIBRARY, library)
    monkeypatch.setattr(_library, "CPU_LIBRARY", library)
    monkeypatch.setattr(_cpu._Workspace, "_idle", deque())
    monkeypatch.setenv(_library.ISA_ENVIRONMENT, request.param)
    _library._load.cache_clear()
    assert instruction_set() == request.param
    yield
    _library._load.cache_clear()


@pytest.fixture
def make_scene() -> Callable[..., Scene]:
    """Return a maker of scenes: arguments of `rasterize` as a dictionary, the camera 2 units before the Gaussians."""

    def make(
        n: int, width: int = 61, height: int = 45, dtype: torch.dtype = torch.float32, seed: int = 0, features: int = 0,
    ) -> Scene:  # fmt: skip
        generator = torch.Generator().manual_seed(seed)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, dtype=torch.float64)

        viewmat = torch.eye(4, dtype=torch.float64)
        viewmat[:3, :3] = _turn(0.2)
        viewmat[:3, 3] = torch.tensor([0.05, -0.03, 2.0])
        focal = 1.2 * width
        K = torch.tensor([[focal, 0, 0.46 * width], [0, 1.1 * focal, 0.55 * height], [0, 0, 1]], dtype=torch.float64)
        scene = {
            "means": (uniform(n, 3) - 0.5) * torch.tensor([1.6, 1.2, 1.0]),
            "quats": uniform(n, 4) * 4 - 2,
            "scales": torch.exp(math.log(0.01) + uniform(n, 3) * math.log(12)),
            "opacities": 0.05 + 0.9 * uniform(n),
            "sh": (uniform(n, 16, 3) - 0.4) * 1.2,
            "background": uniform(3),
            "viewmat": viewmat,
            "K": K,
        }
        if features:
            scene["features"] = uniform(n, features) - 0.5
        return {name: value.to(dtype) for name, value in scene.items()} | {"width": width, "height": height}

    return make


def _turn(angle: float) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]], dtype=torch.float64)
