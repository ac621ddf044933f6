"""The one training loop: it steps, logs, validates, saves, and continues where it was stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from gaussian_head.checkpoints import optimizer_tensors, restore_optimizer
from gaussian_head.model.checkpoint import find_checkpoint, save_checkpoint
from gaussian_head.training.learner import Learner
from gaussian_head.training.stage import Stage


@dataclass(frozen=True)
class TrainerConfig:
    """How often things happen besides steps."""

    log_every: int = 50
    """Steps between logged losses."""
    validate_every: int = 1_000
    """Steps between validations, with pictures."""
    save_every: int = 1_000
    """Steps between checkpoints."""


class Trainer:
    """Runs a stage to its end, from its latest checkpoint if there is one."""

    def __init__(
        self,
        run: Path,
        config: TrainerConfig,
        validate: Callable[[Stage, int, SummaryWriter], None],
        progress: Callable[[Iterable[int], int, str, int], Iterator[int]],
    ) -> None:
        """Prepare.

        Args:
            run: The run folder; the stage's checkpoints and TensorBoard events go to `run/<stage>`.
            config: See `TrainerConfig`.
            validate: Writes validation figures and pictures after some steps.
            progress: Wraps the steps: (steps, total, label, first).
        """
        self.run = run
        self.config = config
        self._validate = validate
        self._progress = progress
        self.resumed = False
        """Whether the latest `fit` continued an earlier run."""

    def fit(self, stage: Stage, document: dict[str, Any]) -> None:
        """Train a stage from its beginning, or from its latest checkpoint in the run folder.

        Args:
            stage: What to train.
            document: JSON values stored with every checkpoint.

        Raises:
            FloatingPointError: The loss was not finite many times in a row.
        """
        folder = self.run / stage.name
        learner = Learner(stage)
        checkpoint = find_checkpoint(folder)
        first = checkpoint.step if checkpoint else 0
        self.resumed = checkpoint is not None
        if checkpoint is not None:
            tensors = checkpoint.load_training()
            restore_optimizer(learner.optimizer, tensors)
            stage.restore(tensors)
        writer = SummaryWriter(str(folder), purge_step=first)
        clock = time.perf_counter()
        for step in self._progress(range(first, stage.steps), stage.steps, stage.name, first):
            view, done = learner.step(step), step + 1
            if done % self.config.log_every == 0:
                writer.add_scalar("time/step_ms", (time.perf_counter() - clock) * 1e3 / self.config.log_every, done)
                self._log(writer, stage, view.losses, done)
                clock = time.perf_counter()
            if done % self.config.save_every == 0 or done == stage.steps:
                training = optimizer_tensors(learner.optimizer) | stage.state()
                save_checkpoint(folder, stage.model, done, document, training, stage.part)
            if done % self.config.validate_every == 0 or done == stage.steps:
                self._validate(stage, done, writer)
                clock = time.perf_counter()
        writer.close()

    def _log(self, writer: SummaryWriter, stage: Stage, losses: dict[str, torch.Tensor], step: int) -> None:
        for name, value in losses.items():
            writer.add_scalar(f"loss/{name}", value.item(), step)
        for tag, figure in stage.figures().items():
            writer.add_scalar(tag, figure, step)
