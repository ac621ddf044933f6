"""A stage with its optimizer: one step at a time."""

from __future__ import annotations

import logging
from typing import Any

import torch

from gaussian_head.training.stage import Stage, View

logger = logging.getLogger(__name__)
NAN_LIMIT = 20
"""Steps in a row whose loss is not finite before training gives up."""


class Learner:
    """Takes steps along a stage's gradient, at rates that fall exponentially over its run."""

    def __init__(self, stage: Stage) -> None:
        """Make the optimizer of what the stage learns; everything else of the model is frozen."""
        self.stage = stage
        stage.model.requires_grad_(False)
        groups: dict[tuple[float, float], dict[str, Any]] = {}
        for name, parameter, rate, decay in stage.learned():
            group = groups.setdefault((rate, decay), {"params": [], "lr": rate, "weight_decay": decay})
            group["params"].append((name, parameter.requires_grad_(True)))
        self.optimizer = torch.optim.AdamW(list(groups.values()), betas=(0.9, 0.99), eps=1e-15, fused=True)
        self._initial = [group["lr"] for group in self.optimizer.param_groups]
        self._bad = 0

    def step(self, step: int) -> View:
        """Take the step that follows `step` finished ones; it is skipped if its loss or gradient is not finite.

        Raises:
            FloatingPointError: NAN_LIMIT steps in a row were not finite.
        """
        stage = self.stage
        decay = stage.final_share ** (step / stage.steps)
        for group, initial in zip(self.optimizer.param_groups, self._initial, strict=True):
            group["lr"] = initial * decay
        view = stage.view(step)
        total = torch.stack(list(view.losses.values())).sum()
        self.optimizer.zero_grad()
        total.backward()
        if self._is_finite(total, step + 1):
            self._bad = 0
            self.optimizer.step()
            stage.after_step(step + 1, self.optimizer, view)
        else:
            self._bad += 1
        if self._bad == NAN_LIMIT:
            raise FloatingPointError(
                f"{stage.name}: {NAN_LIMIT} losses in a row were not finite; "
                "lower the learning rates or look at the subject's masks (report.png)."
            )
        return view

    def _is_finite(self, total: torch.Tensor, done: int) -> bool:
        held = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(held)
        for what, value in (("loss", total), ("gradient", norm)):
            if not torch.isfinite(value):
                logger.warning("%s step %d: the %s is not finite; the step is skipped.", self.stage.name, done, what)
                return False
        return True
