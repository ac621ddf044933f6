"""Wav2Lip's three trainings: the expert, the generator under the expert, and the same with a quality discriminator.

Source: specs/one_shot.md 6.2 (Prajwal et al. 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

from gaussian_head.errors import UserError
from gaussian_head.networks.wav2lip import Wav2Lip, load_wav2lip
from gaussian_head.networks.wav2lip_expert import SyncExpert, agreement, load_expert, sync_loss
from gaussian_head.networks.wav2lip_quality import QualityDiscriminator, load_quality
from gaussian_head.oneshot.fitting import Task, Update, task_device
from gaussian_head.oneshot.wav2lip.clips import ExpertBatch, LipsBatch, TrainingClips, find_clips

JUDGED = 2**31
"""Stands in the place of a rank in the seeds of held-out batches, which are the same at every judgement."""
GOOD_SYNC = 0.75
"""Loss on held-out clips below which the generator may listen to the expert: before, it only learns to draw."""


@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """Train Wav2Lip's expert: tell lips that fit the sound from lips of another moment."""

    data: Path
    """Folder of clips, made by gaussian_head.oneshot.wav2lip.prepare."""
    start: Path | None = None
    """Weights to begin with, such as lipsync_expert.pth; default: random."""
    batch_size: int = 64
    """Windows a step."""
    learning_rate: float = 1e-4
    """Of Adam."""
    judged_batches: int = 8
    """Held-out batches looked at for each judgement."""
    seed: int = 0
    """Decides the batches and the first weights."""
    device: str = "auto"
    """cpu, cuda or cuda:NUMBER; auto: a GPU where there is one."""

    def __post_init__(self) -> None:
        _check_positive(self.batch_size, self.judged_batches, self.learning_rate)

    def build(self) -> ExpertTask:
        """Return the training.

        Raises:
            UserError: There are no clips, or `start` is not the expert's.
        """
        torch.manual_seed(self.seed)
        expert = SyncExpert() if self.start is None else load_expert(self.start).requires_grad_(True)
        return ExpertTask(self, expert.to(task_device(self.device)))


class ExpertTask(Task):
    """Binary cross-entropy of the cosine; half of the windows are negatives."""

    name = "wav2lip_expert"

    def __init__(self, config: ExpertConfig, expert: SyncExpert) -> None:
        learned, judged = find_clips(config.data)
        self._config, self._learned, self._judged = config, TrainingClips(learned), TrainingClips(judged)
        self._expert = expert
        self.networks = {"expert": expert}
        self.optimizers = {"expert": torch.optim.Adam(expert.parameters(), config.learning_rate)}

    def batch(self, step: int, rank: int) -> ExpertBatch:
        """Draw windows."""
        rng = np.random.default_rng((self._config.seed, rank, step))
        return self._learned.expert_batch(rng, self._config.batch_size)

    def step(self, batch: ExpertBatch, step: int, update: Update) -> dict[str, Tensor]:
        """Learn from a batch."""
        self._expert.train()
        cosine, together = self._judge(batch)
        loss = sync_loss(cosine, together)
        update(loss, self.optimizers["expert"])
        return {"sync": loss.detach(), "accuracy": _accuracy(cosine, together)}

    @torch.no_grad()
    def show(self, step: int, writer: SummaryWriter) -> None:
        """Judge held-out clips."""
        self._expert.eval()
        found = []
        for k in range(self._config.judged_batches):
            rng = np.random.default_rng((self._config.seed, JUDGED, k))
            cosine, together = self._judge(self._judged.expert_batch(rng, self._config.batch_size))
            found.append([sync_loss(cosine, together).item(), _accuracy(cosine, together).item()])
        loss, accuracy = np.mean(found, 0)
        writer.add_scalar("held_out/sync", loss, step)
        writer.add_scalar("held_out/accuracy", accuracy, step)

    def _judge(self, batch: ExpertBatch) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
        device = _device_of(self._expert)
        cosine = agreement(self._expert, batch.speech.to(device), batch.clips.to(device))
        return cosine, batch.together.to(device)


@dataclass(frozen=True, kw_only=True)
class LipsConfig:
    """Train Wav2Lip's generator: draw the lower half of a face so that the expert believes it."""

    data: Path
    """Folder of clips, made by gaussian_head.oneshot.wav2lip.prepare."""
    expert: Path | None = None
    """The expert's weights, trained here or public; default: lipsync_expert.pth."""
    start: Path | None = None
    """Weights to begin with, such as wav2lip.pth; default: random."""
    batch_size: int = 16
    """Windows of five frames a step."""
    learning_rate: float = 1e-4
    """Of Adam."""
    sync_weight: float = 0.01
    """Share of the expert's loss, from when the generator is good enough on."""
    offset_frames: int = 0
    """Frames that what a frame hears begins later: as it will be used (the published weights were trained with -1)."""
    judge_every: int = 3000
    """Steps between judgements whether the generator is good enough for the expert."""
    judged_batches: int = 8
    """Held-out batches looked at for each judgement."""
    seed: int = 0
    """Decides the batches and the first weights."""
    device: str = "auto"
    """cpu, cuda or cuda:NUMBER; auto: a GPU where there is one."""

    def __post_init__(self) -> None:
        _check_positive(self.batch_size, self.judged_batches, self.judge_every, self.learning_rate)
        if not 0 <= self.sync_weight < 1:
            raise UserError(f"--sync-weight must be 0 or more and less than 1, got {self.sync_weight}.")

    def build(self) -> LipsTask:
        """Return the training.

        Raises:
            UserError: There are no clips, or weights are missing or another network's.
        """
        torch.manual_seed(self.seed)
        device = task_device(self.device)
        generator = Wav2Lip() if self.start is None else load_wav2lip(self.start).requires_grad_(True)
        return LipsTask(self, generator.to(device), load_expert(self.expert).to(device))


class LipsTask(Task):
    """L1 of the drawn frames, and the expert's judgement of them once they are good enough to be judged."""

    name = "wav2lip"
    _betas = (0.9, 0.999)

    def __init__(self, config: LipsConfig, generator: Wav2Lip, expert: SyncExpert) -> None:
        """Prepare the training.

        Args:
            config: See `LipsConfig`.
            generator: To be trained.
            expert: Trained; it is frozen here.
        """
        learned, judged = find_clips(config.data)
        self._config, self._generator, self._expert = config, generator, expert.eval().requires_grad_(False)
        self._learned, self._judged = (TrainingClips(some, config.offset_frames) for some in (learned, judged))
        self._stage = Stage().to(_device_of(generator))
        self.networks = {"generator": generator, "stage": self._stage}
        adam = torch.optim.Adam(generator.parameters(), config.learning_rate, betas=self._betas)
        self.optimizers = {"generator": adam}

    def batch(self, step: int, rank: int) -> LipsBatch:
        """Draw windows."""
        rng = np.random.default_rng((self._config.seed, rank, step))
        return self._learned.lips_batch(rng, self._config.batch_size)

    def step(self, batch: LipsBatch, step: int, update: Update) -> dict[str, Tensor]:
        """Learn from a batch."""
        self._begin(step)
        batch = _moved(batch, _device_of(self._generator))
        drawn = self._generator(batch.heard, batch.faces)
        loss, losses = self._mixed(drawn, batch, {})
        update(loss, self.optimizers["generator"])
        return losses

    @torch.no_grad()
    def show(self, step: int, writer: SummaryWriter) -> None:
        """Judge held-out clips, and show what is given, what is drawn, and the truth."""
        l1, sync = self.judge()
        writer.add_scalar("held_out/l1", l1, step)
        writer.add_scalar("held_out/sync", sync, step)
        writer.add_scalar("held_out/expert_listens", float(self._stage.expert_listens), step)
        batch = _moved(self._held_out(0), _device_of(self._generator))
        drawn = self._generator.eval()(batch.heard[:1], batch.faces[:1])
        rows = [
            clip[0].flip(0).transpose(0, 1) for clip in (batch.faces[:, :3], batch.faces[:, 3:], drawn, batch.truth)
        ]
        writer.add_images("held_out/given_reference_drawn_truth", torch.cat(rows, 2).clamp(0, 1).cpu(), step)

    @torch.no_grad()
    def judge(self) -> tuple[float, float]:
        """Return L1 and the expert's loss on held-out clips, the same in all processes."""
        self._generator.eval()
        device, found = _device_of(self._generator), []
        for k in range(self._config.judged_batches):
            batch = _moved(self._held_out(k), device)
            drawn = self._generator(batch.heard, batch.faces)
            found.append(torch.stack([F.l1_loss(drawn, batch.truth), self._sync(drawn, batch)]))
        mean = torch.stack(found).mean(0)
        l1, sync = mean.tolist()
        return l1, sync

    def _begin(self, step: int) -> None:
        if step % self._config.judge_every == 0 and not self._stage.expert_listens:
            _, sync = self.judge()
            self._stage.expert_listens.fill_(_mean_of_processes(sync, _device_of(self._generator)) < GOOD_SYNC)
        self._generator.train()

    def _mixed(
        self, drawn: Float[Tensor, "B 3 5 96 96"], batch: LipsBatch, others: dict[str, tuple[float, Tensor]]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of L1, the expert's loss and others (weight, loss), whose weights sum to 1, and its parts."""
        weighted = dict(others)
        if self._stage.expert_listens and self._config.sync_weight:
            weighted["sync"] = self._config.sync_weight, self._sync(drawn, batch)
        l1 = F.l1_loss(drawn, batch.truth)
        loss = (1 - sum(weight for weight, _ in weighted.values())) * l1
        loss = loss + sum(weight * value for weight, value in weighted.values())
        return loss, {"l1": l1.detach(), **{name: value.detach() for name, (_, value) in weighted.items()}}

    def _sync(self, drawn: Float[Tensor, "B 3 5 96 96"], batch: LipsBatch) -> Tensor:
        return sync_loss(agreement(self._expert, batch.speech, drawn))

    def _held_out(self, k: int) -> LipsBatch:
        rng = np.random.default_rng((self._config.seed, JUDGED, k))
        return self._judged.lips_batch(rng, self._config.batch_size)


@dataclass(frozen=True, kw_only=True)
class LipsGanConfig(LipsConfig):
    """Train Wav2Lip's generator with a quality discriminator beside the expert: sharper teeth and lips."""

    quality: Path | None = None
    """Weights of the discriminator to begin with, such as visual_quality_disc.pth; default: random."""
    sync_weight: float = 0.03
    """Share of the expert's loss, from when the generator is good enough on."""
    quality_weight: float = 0.07
    """Share of the discriminator's loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.quality_weight < 1 - self.sync_weight:
            raise UserError(f"--quality-weight and --sync-weight must sum to less than 1, got {self.quality_weight}.")

    def build(self) -> LipsGanTask:
        """Return the training; raises as `LipsConfig.build`."""
        torch.manual_seed(self.seed)
        device = task_device(self.device)
        generator = Wav2Lip() if self.start is None else load_wav2lip(self.start).requires_grad_(True)
        quality = QualityDiscriminator() if self.quality is None else load_quality(self.quality).requires_grad_(True)
        return LipsGanTask(self, generator.to(device), load_expert(self.expert).to(device), quality.to(device))


class LipsGanTask(LipsTask):
    """The generator's training against a discriminator of filmed and drawn faces, which learns beside it."""

    name = "wav2lip_gan"
    _betas = (0.5, 0.999)

    def __init__(
        self, config: LipsGanConfig, generator: Wav2Lip, expert: SyncExpert, quality: QualityDiscriminator
    ) -> None:
        super().__init__(config, generator, expert)
        self._quality, self._quality_weight = quality, config.quality_weight
        self.networks |= {"quality": quality}
        self.optimizers |= {"quality": torch.optim.Adam(quality.parameters(), config.learning_rate, betas=self._betas)}

    def step(self, batch: LipsBatch, step: int, update: Update) -> dict[str, Tensor]:
        """Learn from a batch: first the generator, then the discriminator."""
        self._begin(step)
        batch = _moved(batch, _device_of(self._generator))
        drawn = self._generator(batch.heard, batch.faces)
        self._quality.requires_grad_(False)
        loss, losses = self._mixed(drawn, batch, {"quality": (self._quality_weight, self._believed(drawn, 1.0))})
        self._quality.requires_grad_(True)
        update(loss, self.optimizers["generator"])
        filmed, drawn = self._believed(batch.truth, 1.0), self._believed(drawn.detach(), 0.0)
        update(filmed + drawn, self.optimizers["quality"])
        return losses | {"discriminator_filmed": filmed.detach(), "discriminator_drawn": drawn.detach()}

    def _believed(self, clips: Float[Tensor, "B 3 5 96 96"], wanted: float) -> Tensor:
        logits = self._quality.logits(clips)
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, wanted))


class Stage(nn.Module):
    """What outlasts a stop besides weights: whether the generator is good enough for the expert."""

    expert_listens: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("expert_listens", torch.tensor(False))


def _accuracy(cosine: Float[Tensor, "B"], together: Float[Tensor, "B"]) -> Tensor:
    return ((cosine > 0.5) == (together > 0.5)).float().mean()


def _mean_of_processes(value: float, device: torch.device) -> float:
    """Average over the processes: their running statistics of batch norm differ, their decisions must not."""
    if not distributed.is_initialized():
        return value
    total = torch.tensor(value, device=device)
    distributed.all_reduce(total)
    return total.item() / distributed.get_world_size()


def _moved(batch: LipsBatch, device: torch.device) -> LipsBatch:
    return LipsBatch(*(part.to(device) for part in (batch.heard, batch.speech, batch.faces, batch.truth)))


def _device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def _check_positive(*values: float | int) -> None:
    if min(values) <= 0:
        raise UserError(f"batch sizes, steps between judgements and learning rates must be above 0, got {min(values)}.")
