"""Killed without warning in each stage, the same command ends with the very same checkpoints."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_fit import STEPS

from gaussian_head.model.checkpoint import find_checkpoint

HERE = Path(__file__).resolve().parent
STAGES = ("landmarks", "mouth", "face", "fuse", "torso")


def train(data: Path, out: Path, dies: str) -> subprocess.CompletedProcess:
    """Run the command in its own process, as a user would."""
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "killed_run.py"), str(data), str(out), dies]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def checkpoints(run: Path) -> dict[str, bytes]:
    found = [find_checkpoint(run / stage).folder for stage in STAGES] + [run / "driving"]
    return {str(path.relative_to(run)): path.read_bytes() for folder in found for path in sorted(folder.iterdir())}


@pytest.mark.slow
def test_killed_in_each_stage_and_continued(tiny_subject, tmp_path):
    run = tmp_path / "killed run"
    for dies, reached in (
        (f"landmarks:{STEPS // 2 + 1}", (6,)),
        (f"mouth:{STEPS // 2 + 1}", (12, 6)),
        ("face:saving", (12, 12, 3)),
        ("fuse:cleaning", (12, 12, 12, 6)),
        (f"torso:{STEPS // 2 + 1}", (12, 12, 12, 12, 6)),
    ):
        died = train(tiny_subject, run, dies)
        assert died.returncode == -signal.SIGKILL, died.stderr
        steps = tuple(find_checkpoint(run / stage).step for stage in STAGES[: len(reached)])
        assert steps == reached
    ended = train(tiny_subject, run, "never")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip().endswith(str(run))
    never = tmp_path / "never killed"
    assert train(tiny_subject, never, "never").returncode == 0
    assert len(checkpoints(never)) == 5 * 3 + 8
    assert checkpoints(run) == checkpoints(never)
