"""Training of SadTalker's pose network, a variational auto-encoder with a discriminator.

Its own training code was never published: weights of the losses are its configuration's (specs/one_shot.md 3.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from gaussian_head.networks.sadtalker_pose import FRAMES, PREFIX, STYLES, PoseNetwork
from gaussian_head.oneshot.audio2coeff.data import Clips, Cut
from gaussian_head.oneshot.audio2coeff.sadtalker import NETWORK_FPS, WINDOW_OFFSET_FRAMES
from gaussian_head.oneshot.audio2coeff.training import SHOWN_RANK, compared, mels_of, started
from gaussian_head.oneshot.fitting import Task, Update, task_device


@dataclass(frozen=True)
class PoseTrainingOptions:
    """Train SadTalker's pose network."""

    data: Path
    """Folder of videos or sounds, each beside a .mat of its coefficients; its sub-folders, or else its clips, are
    styles of moving, 46 at most (from there on they share)."""
    start: Path | None = None
    """Weights to start from."""
    own_spread: bool = True
    """Whether the logarithm of the latent's variance has its own layer; else that of the mean gives it, too, as in the
    published network. Names are the same."""
    batch: int = 64
    """Windows a step."""
    learning_rate: float | int = 1e-4
    """Of both Adams."""
    reconstruction_weight: float | int = 1.0
    """Of the squared error of a motion, summed over its 32 frames."""
    kl_weight: float | int = 1.0
    """Of the distance of latents from a standard normal distribution."""
    gan_weight: float | int = 0.7
    """Of looking real (least squares)."""
    wav_fps: float | int = 25.0
    """Frames a second of coefficients without a video beside them."""
    seed: int = 0
    """Of weights and windows."""
    device: str = "auto"
    """auto, cpu, cuda."""

    def build(self) -> PoseTraining:
        """Read the data and make the training.

        Raises:
            UserError: Data or weights to start from are missing or broken.
        """
        return PoseTraining(self)


class PoseBatch(NamedTuple):
    """B windows."""

    mels: Float[Tensor, "B 32 80 16"]
    first: Float[Tensor, "B 6"]
    motion: Float[Tensor, "B 32 6"]
    """Of the frames after the first, relative to it."""
    style: Int[Tensor, "B"]


class PoseTraining(Task):
    """See `PoseTrainingOptions`."""

    name = "sadtalker_pose"

    def __init__(self, options: PoseTrainingOptions) -> None:
        self.options = options
        self._device = task_device(options.device)
        self._clips = Clips(
            options.data, Cut(NETWORK_FPS, FRAMES + 1, offset_frames=WINDOW_OFFSET_FRAMES), options.wav_fps
        )
        self.network = started(
            lambda: PoseNetwork(own_spread=options.own_spread), options.seed, options.start, PREFIX
        ).to(self._device)
        self.networks = {"pose": self.network}
        maker = [*self.network.audio_encoder.parameters(), *self.network.netG.parameters()]
        self.optimizers = {
            "pose": torch.optim.Adam(maker, options.learning_rate),
            "discriminator": torch.optim.Adam(self.network.netD_motion.parameters(), options.learning_rate),
        }

    def batch(self, step: int, rank: int) -> PoseBatch:
        """Return windows."""
        rng = np.random.default_rng((self.options.seed, rank, step))
        windows = [self._clips.draw(rng) for _ in range(self.options.batch)]
        poses = torch.from_numpy(np.stack([w.coefficients.motion(crop=False)[:, 64:70] for w in windows]))
        batch = PoseBatch(
            mels_of(windows)[:, 1:], poses[:, 0],
            poses[:, 1:] - poses[:, :1], torch.tensor([window.clip.speaker % STYLES for window in windows]),
        )  # fmt: skip
        return PoseBatch(*(part.to(self._device) for part in batch))

    def step(self, batch: PoseBatch, step: int, update: Update) -> dict[str, Tensor]:
        """Train generator and discriminator on windows."""
        self.network.train()
        options, judge = self.options, self.network.netD_motion
        features = self._features(batch)
        mean, spread = self.network.encode(batch.motion, batch.first, batch.style, features)
        latent = mean + (spread / 2).exp() * torch.randn_like(mean)
        made = self.network.decode(latent, batch.first, batch.style, features)
        divergence = (mean.square() + spread.exp() - 1 - spread).sum(1).mean() / 2
        losses = {
            "reconstruction": options.reconstruction_weight * (made - batch.motion).square().sum((1, 2)).mean(),
            "kl": options.kl_weight * divergence,
            "gan": options.gan_weight * (judge(made) - 1).square().mean(),
        }
        losses["total"] = torch.stack(list(losses.values())).sum()
        update(losses["total"], self.optimizers["pose"])
        real, fake = judge(batch.motion), judge(made.detach())
        losses["discriminator"] = ((real - 1).square().mean() + fake.square().mean()) / 2
        update(losses["discriminator"], self.optimizers["discriminator"])
        return losses

    def _features(self, batch: PoseBatch) -> Float[Tensor, "B 32 512"]:
        return self.network.features(batch.mels.flatten(0, 1)[:, None]).unflatten(0, (-1, FRAMES))

    @torch.no_grad()
    def show(self, step: int, writer: SummaryWriter) -> None:
        """Show a motion, true above reconstructed, and the error of reconstruction."""
        self.network.eval()
        batch = self.batch(0, SHOWN_RANK)
        features = self._features(batch)
        mean, _ = self.network.encode(batch.motion, batch.first, batch.style, features)
        made = self.network.decode(mean, batch.first, batch.style, features)
        writer.add_scalar("shown/motion_l1", (made - batch.motion).abs().mean().item(), step)
        writer.add_image("shown/motion", compared(batch.motion[0], made[0]), step)
