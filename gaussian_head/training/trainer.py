"""The one training loop: it steps, logs, validates, saves, and continues where it was stopped."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from gaussian_head.model.checkpoint import find_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from gaussian_head.training.stages import Stage, View

logger = logging.getLogger(__name__)
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
        """Train a stage that starts fresh, or that `resume` has put back.

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
            views = list(workers.map(stage.view, range(step * stage.views, done * stage.views)))
            bad = 0 if self._learn(stage, optimizer, views, workers, done) else bad + 1
            if bad == NAN_LIMIT:
                raise FloatingPointError(
                    f"{stage.name}: {NAN_LIMIT} losses in a row were not finite; "
                    "lower the learning rates or look at the subject's masks (report.png)."
                )
            if done % self.config.log_every == 0:
                writer.add_scalar("time/step_ms", (time.perf_counter() - clock) * 1e3 / self.config.log_every, done)
                self._log(writer, stage, views[0].losses, done)
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
        stage: Stage, optimizer: torch.optim.Optimizer, views: list[View], workers: ThreadPoolExecutor, done: int
    ) -> bool:
        """Take one step along the views' mean gradient, unless a loss is not finite; say whether it was taken."""
        totals = [torch.stack(list(view.losses.values())).sum() for view in views]
        if not all(torch.isfinite(total) for total in totals):
            logger.warning("%s step %d: the loss is not finite; the step is skipped.", stage.name, done)
            return False
        parameters = [group["params"][0] for group in optimizer.param_groups]

        def differentiate(index: int) -> tuple[torch.Tensor | None, ...]:
            watched = [] if views[index].means2d is None else [views[index].means2d]
            return torch.autograd.grad(totals[index], parameters + watched, allow_unused=True)

        gradients = list(workers.map(differentiate, range(len(views))))
        for i, parameter in enumerate(parameters):  # summed in order: threads do not change the result
            terms = [g[i] for g in gradients if g[i] is not None]
            parameter.grad = sum(terms[1:], terms[0]) / len(views) if terms else None
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if not torch.isfinite(norm):
            logger.warning("%s step %d: the gradient is not finite; the step is skipped.", stage.name, done)
            return False
        for view, g in zip(views, gradients, strict=True):
            if view.means2d is not None:
                view.means2d.grad = g[-1]
        optimizer.step()
        stage.after_step(done, optimizer, views)
        return True

    def _log(self, writer: SummaryWriter, stage: Stage, losses: dict[str, torch.Tensor], step: int) -> None:
        for name, value in losses.items():
            writer.add_scalar(f"loss/{name}", value.item(), step)
        for name, branch in (("face", stage.head.face), ("mouth", stage.head.mouth)):
            writer.add_scalar(f"gaussians/{name}", len(branch.gaussians), step)
