"""What every test may use: a fixed seed, both devices, the real footage."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from emulated_cuda import emulated_cuda, emulated_library  # noqa: F401 - fixtures

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def _seed() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - third parties draw from the global generator
    torch.manual_seed(0)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> str:
    """Run the test once on each device there is."""
    return request.param


@pytest.fixture(scope="session")
def clips() -> Path:
    """Folder of real footage: $GAUSSIAN_HEAD_CLIPS, or shared/clips beside the repository; else the test is skipped."""
    folder = Path(os.environ.get("GAUSSIAN_HEAD_CLIPS", ROOT.parent / "shared" / "clips"))
    if not folder.is_dir():
        pytest.skip(f"no real footage at {folder}; set GAUSSIAN_HEAD_CLIPS to a folder of clips")
    return folder
