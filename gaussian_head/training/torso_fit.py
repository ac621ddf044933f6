"""Assembly of the stage `torso`; it needs nothing of the head's stages."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from gaussian_head.config import to_json
from gaussian_head.data.subject import Subject
from gaussian_head.model.checkpoint import find_checkpoint
from gaussian_head.model.torso import TorsoModelConfig
from gaussian_head.render.rasterizers import choose_rasterizer
from gaussian_head.training.fit import check_same_run, tell_run
from gaussian_head.training.presets import FitConfig
from gaussian_head.training.torso import TorsoStage
from gaussian_head.training.torso_start import create_torso, map_torso
from gaussian_head.training.trainer import Trainer

logger = logging.getLogger(__name__)
STAGE = TorsoStage.name


def fit_torso(
    subject: Subject, run: Path, config: FitConfig, preset: str, trainer: Trainer, device: torch.device | None = None
) -> bool:
    """Train the torso to its end, on the CPU or another device, continuing from its latest checkpoint.

    Args:
        subject: The person; its pictures are on the device.
        run: The run folder.
        config: Options; its `torso`, `size`, `seed` and `rasterizer` are read.
        preset: Name of the options.
        trainer: Runs the stage.
        device: Where to train.

    Returns:
        Whether there was anything left to do, and a torso to do it with.

    Raises:
        UserError: The run folder holds a run of other options or of another subject, or the rasterizer is missing.
    """
    rasterizer = choose_rasterizer(config.rasterizer)
    options = {"size": config.size, "seed": config.seed, "rasterizer": config.rasterizer} | to_json(config.torso)
    document = tell_run(STAGE, preset, subject.layout.subject, options)
    checkpoint = find_checkpoint(run / STAGE)
    if checkpoint is not None:
        check_same_run(checkpoint.document, document, run / STAGE)
        if checkpoint.step >= config.torso.steps:
            logger.info("%s: up to date (%d steps)", STAGE, checkpoint.step)
            return False
    shown = map_torso(subject)
    if not shown.alpha.any():
        logger.warning("%s: no picture shows a torso; the stage is left out.", subject.layout.torso_image(0).parent)
        return False
    if checkpoint is None:
        torso = create_torso(subject, shown, TorsoModelConfig(config.torso.gaussians), config.seed)
    else:
        torso = checkpoint.load_torso()
    torso = torso.to(device or torch.device("cpu"))
    trainer.fit(TorsoStage(torso, subject, shown, config.torso, config.seed, rasterizer), document)
    return True
