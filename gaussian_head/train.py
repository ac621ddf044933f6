"""Command: fit a head to a subject folder.

python -m gaussian_head.train {mouth,face,fuse,all} --data data/<ID> --out output/<name> [--preset quick|full]
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from gaussian_head.data.subject import Subject
from gaussian_head.errors import configure_logging, run_command
from gaussian_head.training.fit import ORDER, fit_stage
from gaussian_head.training.presets import PRESETS
from gaussian_head.training.trainer import Trainer
from gaussian_head.training.validation import validate


@dataclass(frozen=True)
class TrainOptions:
    """Fit a Gaussian head to a subject folder, continuing where an earlier run was stopped."""

    stage: Annotated[Literal["mouth", "face", "fuse", "all"], tyro.conf.Positional]
    """Stage to train; `all` runs mouth, face and fuse in this order."""
    data: Path
    """Subject folder, made by: python -m data_utils.process VIDEO"""
    out: Path
    """Run folder for checkpoints, TensorBoard events and reports."""
    preset: Literal["quick", "full"] = "quick"
    """quick: 256 px, minutes on two CPU cores; full: 512 px, the reference's schedule."""
    debug: bool = False
    """Show the traceback of an error."""


def train(options: TrainOptions) -> None:
    """Run the chosen stages; see `TrainOptions`."""
    config = PRESETS[options.preset]
    subject = Subject(options.data, config.size)
    trainer = Trainer(options.out, config.trainer, validate, show_progress)
    for name in ORDER if options.stage == "all" else (options.stage,):
        fit_stage(name, subject, options.out, config, options.preset, trainer)
    print(options.out)


def show_progress(steps: Iterator[int], first: int, total: int, label: str) -> Iterator[int]:
    """Show a bar with speed and time left; plain lines now and then where the output is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    started = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=total, completed=first)
        for step in steps:
            yield step
            bar.update(task, completed=step + 1)
            if not console.is_terminal and (step + 1) % max(1, total // 5) == 0:
                pace = (time.monotonic() - started) / (step + 1 - first)
                print(
                    f"{label}: {step + 1}/{total}, {pace * 1e3:.0f} ms a step, "
                    f"{pace * (total - step - 1) / 60:.1f} min left",
                    flush=True,
                )


def main() -> None:
    """Parse the command line and run."""
    options = tyro.cli(TrainOptions)
    configure_logging()
    run_command(lambda: train(options), debug=options.debug)


if __name__ == "__main__":
    main()
