"""Command: teach one network how sound moves many people's lips, for `train landmarks --init`.

python -m gaussian_head.pretrain_landmarks data/A data/B ... --out output/<name>
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from gaussian_head.data.subject import Subject
from gaussian_head.errors import configure_logging, run_command
from gaussian_head.progress import track
from gaussian_head.training.landmarks_fit import pretrain_landmarks
from gaussian_head.training.landmarks_validation import validate_landmarks
from gaussian_head.training.presets import PRESETS
from gaussian_head.training.trainer import Trainer

MOST_THREADS = 8


@dataclass(frozen=True)
class PretrainOptions:
    """Train a network from sound to lips on several subject folders, continuing where an earlier run was stopped."""

    data: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Subject folders, two or more."""
    out: Path
    """Run folder; gets pretrained.safetensors."""
    preset: Literal["quick", "full"] = "quick"
    """Options of the stage."""
    look_ahead: Literal[0, 2, 4] = 4
    """Frames of 40 ms that the network hears ahead; a stream is as much late."""
    debug: bool = False
    """Show the traceback of an error."""


def pretrain(options: PretrainOptions) -> None:
    """Run the stage; see `PretrainOptions`."""
    config = PRESETS[options.preset]
    config = replace(config, landmarks=replace(config.landmarks, look_ahead=options.look_ahead))
    torch.set_num_threads(min(os.cpu_count() or 1, MOST_THREADS))
    subjects = [Subject(folder, config.size) for folder in options.data]
    trainer = Trainer(options.out, config.landmarks.trainer, validate_landmarks, track)
    print(pretrain_landmarks(subjects, options.out, config, options.preset, trainer))


def main() -> None:
    """Parse the command line and run."""
    options = tyro.cli(PretrainOptions)
    configure_logging()
    run_command(lambda: pretrain(options), debug=options.debug)


if __name__ == "__main__":
    main()
