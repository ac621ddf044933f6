"""Training of the challenge entry's two networks.

Its training script is lost: windows and optimizer are its own (specs/one_shot.md 7), the losses those of the ViCo
baseline that it grew from (specs/vico.md 4): distances of coefficients, and of their changes from frame to frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pairwise_distance
from torch.utils.tensorboard import SummaryWriter

from gaussian_head.networks.challenge_expression import FRAMES, MEL_BANDS, MEL_COLUMNS, ChallengeExpression
from gaussian_head.networks.challenge_pose import ChallengePose
from gaussian_head.oneshot.audio2coeff.challenge import NETWORK_FPS
from gaussian_head.oneshot.audio2coeff.data import Clips, Cut
from gaussian_head.oneshot.audio2coeff.training import SHOWN_RANK, compared, mels_of, stacked, started
from gaussian_head.oneshot.fitting import Task, Update, task_device

_GROUPS = {"angles": slice(0, 3), "translation": slice(3, 6), "crop": slice(6, 9)}


@dataclass(frozen=True)
class _ChallengeTrainingOptions:
    data: Path
    """Folder of videos or sounds, each beside a .mat of its coefficients."""
    start: Path | None = None
    """Weights to start from."""
    batch: int = 64
    """Windows of 90 frames a step."""
    learning_rate: float | int = 1e-3
    """Of AdamW at the start; it halves every `halve_every` steps."""
    halve_every: int = 20_000
    """Steps."""
    weight_decay: float | int = 0.05
    """Of AdamW."""
    wav_fps: float | int = 30.0
    """Frames a second of coefficients without a video beside them."""
    seed: int = 0
    """Of weights and windows."""
    device: str = "auto"
    """auto, cpu, cuda."""


@dataclass(frozen=True)
class ChallengeExpressionTrainingOptions(_ChallengeTrainingOptions):
    """Train the challenge entry's expression network."""

    change_weight: float | int = 1e-3
    """Of the distance of changes from frame to frame."""

    def build(self) -> ChallengeExpressionTraining:
        """Read the data and make the training.

        Raises:
            UserError: Data or weights to start from are missing or broken.
        """
        return ChallengeExpressionTraining(self)


@dataclass(frozen=True)
class ChallengePoseTrainingOptions(_ChallengeTrainingOptions):
    """Train the challenge entry's head-pose network."""

    change_weight: float | int = 1.0
    """Of the distance of changes from frame to frame."""
    crop_weight: float | int = 1e-2
    """Of the crop, whose numbers are px and so a hundred times as large as the others."""

    def build(self) -> ChallengePoseTraining:
        """Read the data and make the training.

        Raises:
            UserError: Data or weights to start from are missing or broken.
        """
        return ChallengePoseTraining(self)


class ChallengeBatch(NamedTuple):
    """B windows of 90 frames."""

    mels: Float[Tensor, "B T 40 5"]
    expression: Float[Tensor, "B T 64"]
    pose: Float[Tensor, "B T 9"] | None
    """Angles, translation, crop; None where only expressions are learned."""


class _ChallengeTraining(Task):
    """What both have in common."""

    def __init__(self, options: _ChallengeTrainingOptions, network: type[nn.Module], *, with_pose: bool) -> None:
        self.options, self._with_pose = options, with_pose
        self._device = task_device(options.device)
        cut = Cut(NETWORK_FPS, FRAMES, MEL_BANDS, MEL_COLUMNS, stride=3, margin=10)
        self._clips = Clips(options.data, cut, options.wav_fps, with_crop=with_pose)
        self.network = started(network, options.seed, options.start).to(self._device)
        self.networks = {"network": self.network}
        rates = {"lr": options.learning_rate, "weight_decay": options.weight_decay}
        self.optimizers = {"network": torch.optim.AdamW(self.network.parameters(), **rates)}

    def batch(self, step: int, rank: int) -> ChallengeBatch:
        """Return windows."""
        rng = np.random.default_rng((self.options.seed, rank, step))
        windows = [self._clips.draw(rng) for _ in range(self.options.batch)]
        pose = torch.cat([stacked(windows, name) for name in _GROUPS], 2).to(self._device) if self._with_pose else None
        return ChallengeBatch(mels_of(windows).to(self._device), stacked(windows, "expression").to(self._device), pose)

    def step(self, batch: ChallengeBatch, step: int, update: Update) -> dict[str, Tensor]:
        """Train on windows."""
        self.network.train()
        optimizer = self.optimizers["network"]
        for group in optimizer.param_groups:
            group["lr"] = self.options.learning_rate * 0.5 ** (step // self.options.halve_every)
        losses = self.losses(*self.predict(batch))
        losses["total"] = torch.stack(list(losses.values())).sum()
        update(losses["total"], optimizer)
        return losses

    @torch.no_grad()
    def show(self, step: int, writer: SummaryWriter) -> None:
        """Show coefficients over time, true above found, and their error."""
        self.network.eval()
        found, true = self.predict(self.batch(0, SHOWN_RANK))
        writer.add_scalar("shown/l1", (found - true).abs().mean().item(), step)
        writer.add_image("shown/coefficients", compared(true[0], found[0]), step)

    def predict(self, batch: ChallengeBatch) -> tuple[Tensor, Tensor]:
        """Return what the network finds, and what is true."""
        raise NotImplementedError

    def losses(self, found: Tensor, true: Tensor) -> dict[str, Tensor]:
        """Return weighted losses."""
        raise NotImplementedError


class ChallengeExpressionTraining(_ChallengeTraining):
    """See `ChallengeExpressionTrainingOptions`."""

    name = "challenge_expression"

    def __init__(self, options: ChallengeExpressionTrainingOptions) -> None:
        super().__init__(options, ChallengeExpression, with_pose=False)

    def predict(self, batch: ChallengeBatch) -> tuple[Float[Tensor, "B T 64"], Float[Tensor, "B T 64"]]:
        """Return expressions found from sound and the window's first one, and the true ones."""
        return self.network(batch.mels, batch.expression[:, 0]), batch.expression

    def losses(self, found: Float[Tensor, "B T 64"], true: Float[Tensor, "B T 64"]) -> dict[str, Tensor]:
        """Return weighted losses."""
        return {
            "expression": pairwise_distance(found, true).mean(),
            "changes": self.options.change_weight * pairwise_distance(found.diff(dim=1), true.diff(dim=1)).mean(),
        }


class ChallengePoseTraining(_ChallengeTraining):
    """See `ChallengePoseTrainingOptions`."""

    name = "challenge_pose"

    def __init__(self, options: ChallengePoseTrainingOptions) -> None:
        super().__init__(options, ChallengePose, with_pose=True)

    def predict(self, batch: ChallengeBatch) -> tuple[Float[Tensor, "B T 9"], Float[Tensor, "B T 9"]]:
        """Return poses found from the window's first one, its true expressions and the sound, and the true ones."""
        return self.network(batch.pose[:, 0], torch.cat([batch.expression, batch.mels.flatten(2)], 2)), batch.pose

    def losses(self, found: Float[Tensor, "B T 9"], true: Float[Tensor, "B T 9"]) -> dict[str, Tensor]:
        """Return weighted losses."""
        losses = {}
        for name, part in _GROUPS.items():
            weight = self.options.crop_weight if name == "crop" else 1.0
            losses[name] = weight * pairwise_distance(found[..., part], true[..., part]).mean()
            changes = pairwise_distance(found[..., part].diff(dim=1), true[..., part].diff(dim=1)).mean()
            losses[f"{name}_changes"] = weight * self.options.change_weight * changes
        return losses
