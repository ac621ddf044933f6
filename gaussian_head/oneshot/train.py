"""Command: train a network of the one-shot generators, continuing where an earlier run was stopped.

python -m gaussian_head.oneshot.train TASK --data DATA --out output/<name> [--steps N] [options of the task]
python -m torch.distributed.run --nproc_per_node N -m gaussian_head.oneshot.train TASK ...
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
import tyro

from gaussian_head.config import to_json
from gaussian_head.errors import configure_logging, run_command
from gaussian_head.oneshot.audio2coeff.train_challenge import (
    ChallengeExpressionTrainingOptions,
    ChallengePoseTrainingOptions,
)
from gaussian_head.oneshot.audio2coeff.train_sadtalker_expression import ExpressionTrainingOptions
from gaussian_head.oneshot.audio2coeff.train_sadtalker_pose import PoseTrainingOptions
from gaussian_head.oneshot.face_renderer.pirender_training import PIRenderTrainingOptions
from gaussian_head.oneshot.face_renderer.vid2vid_training import Vid2VidTrainingOptions
from gaussian_head.oneshot.fitting import FitConfig, Task, fit
from gaussian_head.oneshot.wav2lip.training import ExpertConfig, LipsConfig, LipsGanConfig
from gaussian_head.progress import track

MOST_THREADS = 8
"""Of one process; torchrun's are limited by OMP_NUM_THREADS."""


@runtime_checkable
class TaskOptions(Protocol):
    """A frozen dataclass that says how a network is trained."""

    def build(self) -> Task:
        """Open the data and make the networks."""
        ...


TASKS: dict[str, type[TaskOptions]] = {
    "sadtalker-expression": ExpressionTrainingOptions,
    "sadtalker-pose": PoseTrainingOptions,
    "challenge-expression": ChallengeExpressionTrainingOptions,
    "challenge-pose": ChallengePoseTrainingOptions,
    "vid2vid": Vid2VidTrainingOptions,
    "pirender": PIRenderTrainingOptions,
    "wav2lip-expert": ExpertConfig,
    "wav2lip": LipsConfig,
    "wav2lip-gan": LipsGanConfig,
}


@dataclass(frozen=True, kw_only=True)
class RunOptions(FitConfig):
    """Where and how long."""

    out: Path
    """Folder for this training's checkpoints and TensorBoard events."""
    debug: bool = False
    """Show the traceback of an error."""


def parse(arguments: list[str] | None = None) -> tuple[TaskOptions, RunOptions]:
    """Read a command line: a task of TASKS, its options and the run's."""
    commands = {name: _command(kind) for name, kind in TASKS.items()}
    found = tyro.extras.subcommand_cli_from_dict(commands, description=__doc__, args=arguments)
    return found.task, found.run


def _command(kind: type[TaskOptions]) -> type:
    parts = [("task", tyro.conf.OmitArgPrefixes[kind]), ("run", tyro.conf.OmitArgPrefixes[RunOptions])]
    return make_dataclass("Command", parts, namespace={"__doc__": kind.__doc__})


def train(task: TaskOptions, run: RunOptions) -> None:
    """Train; see `fit`."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        torch.set_num_threads(min(os.cpu_count() or 1, MOST_THREADS))
    told = json.loads(json.dumps(to_json(task), default=str))
    told.pop("device", None)  # a run may go on elsewhere
    fit(task.build(), run.out, run, track, told)
    if _is_first():
        print(run.out)


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def main() -> None:
    """Parse the command line and run."""
    task, run = parse()
    configure_logging(logging.INFO if _is_first() else logging.WARNING)
    run_command(lambda: train(task, run), debug=run.debug)


if __name__ == "__main__":
    main()
