"""Recorded cases: `pytest tests/parity --cases DIR`, by default the copies kept in `tests/parity/cases`.

A case is a folder with a manifest.json and either many .npz files (the form of `rasterizer`) or one case.npz.
"""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
JUDGES = {"rasterizer": "test_rasterizer_cases.py"}
"""Which test file judges which case. Add a line when a case gets its test; the others are listed as not implemented."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cases", default=str(HERE / "cases"), help="folder of recorded cases (see tests/parity/conftest.py)"
    )


def find_cases(config: pytest.Config) -> dict[str, Path]:
    """Return the folders with a manifest.json in the folder of cases, or that folder itself, by name."""
    root = Path(config.getoption("cases", default=str(HERE / "cases")))
    if not root.is_dir():
        raise pytest.UsageError(f"--cases: {root} is not a folder")
    manifests = [root / "manifest.json"] if (root / "manifest.json").is_file() else sorted(root.glob("*/manifest.json"))
    return {path.parent.resolve().name: path.parent for path in manifests}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test its cases: `rasterizer_case` the .npz files, `unjudged_case` the folders nobody implements."""
    cases = find_cases(metafunc.config)
    if "rasterizer_case" in metafunc.fixturenames:
        files = sorted(cases["rasterizer"].glob("*.npz")) if "rasterizer" in cases else []
        metafunc.parametrize("rasterizer_case", files, ids=[path.stem for path in files])
    if "unjudged_case" in metafunc.fixturenames:
        metafunc.parametrize("unjudged_case", sorted(set(cases) - set(JUDGES)))
