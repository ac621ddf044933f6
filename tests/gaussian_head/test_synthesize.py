"""The command that lets a head speak."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from gaussian_head.synthesize import main


@pytest.fixture
def call(tiny_subject: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the command with more flags; return its exit status."""

    def run(*flags: object) -> int:
        command = ["synthesize", "-S", tiny_subject, "-M", tiny_run, *flags]
        monkeypatch.setattr(sys, "argv", [str(part) for part in command])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code

    return run


def test_val(call) -> None:
    assert call("--eval") == 0
