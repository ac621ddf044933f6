"""The one training loop: it steps, logs, validates, saves, and continues where it was stopped."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from gaussian_head.model.checkpoint import find_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from gaussian_head.training.stage import Stage, View

logger = logging.getLogger(__name__)
Gradients = tuple[torch.Tensor | None, ...]
NAN_LIMIT = 20
"""Steps in a row whose loss is not finite before training gives up."""


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
            FloatingPointError: The loss was not finite NAN_LIMIT times in a row.
        """
        folder = self.run / stage.name
        optimizer = torch.optim.AdamW(stage.groups(), betas=(0.9, 0.99), eps=1e-15, fused=True)
        initial = {group["name"]: group["lr"] for group in optimizer.param_groups}
        checkpoint = find_checkpoint(folder)
        first = checkpoint.step if checkpoint else 0
        self.resumed = checkpoint is not None
        if checkpoint is not None:
            tensors = checkpoint.load_training()
            restore_optimizer(optimizer, tensors)
            stage.restore(tensors)
        writer = SummaryWriter(str(folder), purge_step=first)
        bad, clock = 0, time.perf_counter()
        workers = ThreadPoolExecutor(stage.views)
        for step in self._progress(range(first, stage.steps), stage.steps, stage.name, first):
            decay = stage.config.rates.final_share ** (step / stage.steps)
            for group in optimizer.param_groups:
                group["lr"] = initial[group["name"]] * decay
            done = step + 1
            draws = range(step * stage.views, done * stage.views)
            parameters = [group["params"][0] for group in optimizer.param_groups]
            results = list(workers.map(partial(_differentiate, stage, parameters), draws))
            bad = 0 if self._learn(stage, optimizer, results, done) else bad + 1
            if bad == NAN_LIMIT:
                raise FloatingPointError(
                    f"{stage.name}: {NAN_LIMIT} losses in a row were not finite; "
                    "lower the learning rates or look at the subject's masks (report.png)."
                )
            if done % self.config.log_every == 0:
                writer.add_scalar("time/step_ms", (time.perf_counter() - clock) * 1e3 / self.config.log_every, done)
                self._log(writer, stage, results[0][0].losses, done)
                clock = time.perf_counter()
            if done % self.config.save_every == 0 or done == stage.steps:
                training = optimizer_tensors(optimizer) | stage.state()
                save_checkpoint(folder, stage.head, done, document, training)
            if done % self.config.validate_every == 0 or done == stage.steps:
                self._validate(stage, done, writer)
                clock = time.perf_counter()
        workers.shutdown()
        writer.close()

    @staticmethod
    def _learn(
        stage: Stage, optimizer: torch.optim.Optimizer, results: list[tuple[View, Gradients]], done: int
    ) -> bool:
        """Take one step along the views' mean gradient, unless something is not finite; say whether it was taken."""
        views = [view for view, _ in results]
        losses = torch.stack([value for view in views for value in view.losses.values()])
        for i, group in enumerate(optimizer.param_groups):  # summed in order: threads do not change the result
            terms = [gradients[i] for _, gradients in results if gradients[i] is not None]
            group["params"][0].grad = sum(terms[1:], terms[0]) / len(views) if terms else None
        held = [group["params"][0].grad for group in optimizer.param_groups]
        norm = torch.nn.utils.get_total_norm([gradient for gradient in held if gradient is not None])
        for what, value in (("loss", losses.sum()), ("gradient", norm)):
            if not torch.isfinite(value):
                logger.warning("%s step %d: the %s is not finite; the step is skipped.", stage.name, done, what)
                return False
        for view, gradients in results:
            if view.means2d is not None:
                view.means2d.grad = gradients[-1]
        optimizer.step()
        stage.after_step(done, optimizer, views)
        return True

    def _log(self, writer: SummaryWriter, stage: Stage, losses: dict[str, torch.Tensor], step: int) -> None:
        for name, value in losses.items():
            writer.add_scalar(f"loss/{name}", value.item(), step)
        for name, branch in (("face", stage.head.face), ("mouth", stage.head.mouth)):
            writer.add_scalar(f"gaussians/{name}", len(branch.gaussians), step)


def _differentiate(stage: Stage, parameters: list[torch.Tensor], draw: int) -> tuple[View, Gradients]:
    """Render one view and differentiate its loss by the parameters, and last by the screen positions if it has them."""
    view = stage.view(draw)
    watched = [] if view.means2d is None else [view.means2d]
    total = torch.stack(list(view.losses.values())).sum()
    return view, torch.autograd.grad(total, parameters + watched, allow_unused=True)
