"""What the trainings of both face renderers share: their common options, their schedule, their pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from gaussian_head.errors import UserError
from gaussian_head.oneshot.face_renderer.perceptual import Eyes

SHOWN = 4
"""Pairs in TensorBoard's pictures."""


@dataclass(frozen=True)
class RendererTrainingOptions:
    """What every training of a face renderer is told."""

    data: Path
    """Folder of square videos of faces, each with its coefficients (.mat) beside it."""
    size: int = 256
    """Width and height of the pictures, px: a multiple of 32, at least 64; the published weights are for 256."""
    batch: int = 5
    """Pairs of frames a step (and process)."""
    learning_rate: float = 1e-4
    """At the beginning."""
    decay: float = 0.2
    """The learning rate is multiplied by this ..."""
    decay_every: int = 300_000
    """... every so many steps."""
    eyes: Eyes = "auto"
    """What compares pictures; auto: vgg19, else alexnet, else pyramid, whichever weights are here."""
    init: Path | None = None
    """Weights to begin with, the published ones or of an earlier training; default: random ones."""
    cache_mb: float = 2_000.0
    """Megabytes of decoded frames kept in memory (and process)."""
    seed: int = 0
    """Of the first weights and of the pairs."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:NUMBER."""

    NOT_NEGATIVE: ClassVar[tuple[str, ...]] = ("learning_rate", "decay", "cache_mb", "seed")
    """Options that are at least 0."""

    def __post_init__(self) -> None:
        """Check the limits.

        Raises:
            UserError: A number is out of its range.
        """
        if self.size < 64 or self.size % 32:
            raise UserError(f"--size must be a multiple of 32, at least 64, got {self.size}.")
        if min(self.batch, self.decay_every) < 1:
            raise UserError(f"--batch and --decay-every must be at least 1, got {self.batch} and {self.decay_every}.")
        for name in self.NOT_NEGATIVE:
            if not getattr(self, name) >= 0:
                raise UserError(f"--{name.replace('_', '-')} must be at least 0, got {getattr(self, name)}.")

    def set_learning_rate(self, optimizer: Optimizer, step: int) -> None:
        """Set what the schedule says of a step."""
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate * self.decay ** (step // self.decay_every)


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, kept: float) -> None:
    """Move an averaged network's parameters towards another's: it keeps a share of itself."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - kept)


def picture_rows(columns: Iterable[Float[Tensor, "B 3 H W"]]) -> Float[Tensor, "3 R C"]:
    """Lay pictures, RGB in [-1, 1], side by side, one row a batch entry; returns RGB in [0, 1]."""
    rows = torch.cat(list(columns), 3)  # [B, 3, H, columns * W]
    return (torch.cat(list(rows), 1).clamp(-1, 1) + 1).cpu() / 2
