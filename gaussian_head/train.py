"""Command: fit a head to a subject folder.

python -m gaussian_head.train {landmarks,mouth,face,fuse,torso,all} --data data/<ID> --out output/<name>
    [--preset quick|full]
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from gaussian_head.data.subject import Subject
from gaussian_head.device import choose_device
from gaussian_head.errors import configure_logging, run_command
from gaussian_head.evaluation.timing import read_timing, record_timing
from gaussian_head.model.head import ConditionName
from gaussian_head.progress import track
from gaussian_head.render.rasterizers import RasterizerName, choose_rasterizer
from gaussian_head.training.fit import ORDER, fit_stage
from gaussian_head.training.landmarks_fit import PredictorChoice, fit_landmarks
from gaussian_head.training.landmarks_validation import validate_landmarks
from gaussian_head.training.presets import PRESETS
from gaussian_head.training.torso_fit import fit_torso
from gaussian_head.training.torso_validation import validate_torso
from gaussian_head.training.trainer import Trainer
from gaussian_head.training.validation import validate

MOST_THREADS = 8
"""More would wait for each other: a step is made of operators of a millisecond and less."""


@dataclass(frozen=True)
class TrainOptions:
    """Fit a Gaussian head to a subject folder, continuing where an earlier run was stopped."""

    stage: Annotated[Literal["landmarks", "mouth", "face", "fuse", "torso", "all"], tyro.conf.Positional]
    """Stage to train; `all` runs landmarks, mouth, face, fuse and torso in this order."""
    data: Path
    """Subject folder, made by: python -m data_utils.process VIDEO"""
    out: Path
    """Run folder for checkpoints, TensorBoard events and reports."""
    preset: Literal["quick", "full"] = "quick"
    """quick: minutes on two CPU cores; full: more Gaussians, the reference's schedule, for a GPU."""
    device: str = "auto"
    """cpu, cuda or cuda:NUMBER; auto: a GPU where there is one."""
    rasterizer: RasterizerName = "ours"
    """What draws the Gaussians; another than ours must be installed and needs a CUDA device."""
    init: Path | None = None
    """Network that stage landmarks begins with, made by: python -m gaussian_head.pretrain_landmarks"""
    condition: ConditionName = "landmarks"
    """What moves lips and chin: their landmarks, an audio code in the fields (the published way), or both."""
    look_ahead: Literal[0, 2, 4] = 4
    """Frames of 40 ms that the network from sound to landmarks hears ahead; a stream is as much late."""
    predictor: PredictorChoice = "auto"
    """What turns sound into landmarks; auto: what does better on held-out stretches of the train split."""
    debug: bool = False
    """Show the traceback of an error."""


def train(options: TrainOptions) -> None:
    """Run the chosen stages; see `TrainOptions`."""
    config = PRESETS[options.preset]
    choose_rasterizer(options.rasterizer)  # a missing one is told before anything is trained
    landmarks = replace(config.landmarks, look_ahead=options.look_ahead)
    head = replace(config.head, condition=options.condition)
    config = replace(config, rasterizer=options.rasterizer, head=head, landmarks=landmarks)
    torch.set_num_threads(min(os.cpu_count() or 1, MOST_THREADS))
    device = choose_device(options.device)
    subject = Subject(options.data, config.size, device=device)
    for name in ("landmarks", *ORDER, "torso") if options.stage == "all" else (options.stage,):
        started = time.monotonic()
        if name == "landmarks":
            trainer = Trainer(options.out, config.landmarks.trainer, validate_landmarks, track)
            done = fit_landmarks(
                subject, options.out, config, options.preset, trainer, choice=options.predictor, init=options.init
            )
        elif name == "torso":
            trainer = Trainer(options.out, config.trainer, validate_torso, track)
            done = fit_torso(subject, options.out, config, options.preset, trainer, device)
        else:
            trainer = Trainer(options.out, config.trainer, validate, track)
            done = fit_stage(name, subject, options.out, config, options.preset, trainer, device)
        if done:
            earlier = read_timing(options.out).get(name, 0.0) if trainer.resumed else 0.0
            record_timing(options.out, name, earlier + time.monotonic() - started)
    print(options.out)


def main() -> None:
    """Parse the command line and run."""
    options = tyro.cli(TrainOptions)
    configure_logging()
    run_command(lambda: train(options), debug=options.debug)


if __name__ == "__main__":
    main()
