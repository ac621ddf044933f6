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

    def build(self) -> PIRenderTask:
        """Open the data and make the networks.

        Raises:
            UserError: The data cannot be used, or a file of weights is missing or does not fit.
        """
        return PIRenderTask(self)


class PIRenderTask(Task):
    """PIRender's training."""

    name = "pirender"

    def __init__(self, options: PIRenderOptions) -> None:
        self._options, self._device = options, task_device(options.device)
        self.clips = PairedClips(
            options.data, options.size, crop=options.widths.coefficients == 73, cache_mb=options.cache_mb
        )
        self._warp_loss = choose_perceptual_loss(options.eyes).to(self._device)
        self._final_loss = choose_perceptual_loss(options.eyes, options.gram_weight).to(self._device)
        generator, average = (
            initial_pirender(options.widths, options.seed)
            if options.init is None
            else load_pirender(options.init, options.widths).requires_grad_(requires_grad=True)
            for _ in range(2)
        )
        self.networks = {
            "generator": generator.to(self._device).train(),
            "average": average.to(self._device).eval().requires_grad_(requires_grad=False),
        }
        self.optimizers = {
            "generator": Adam(generator.parameters(), options.learning_rate, betas=(0.5, 0.999), fused=True)
        }

    def batch(self, step: int, rank: int) -> PairBatch:
        """Draw pairs of frames; see `Task`."""
        return self.clips.draw(np.random.default_rng((self._options.seed, rank, step)), self._options.batch)

    def step(self, batch: PairBatch, step: int, update: Update) -> dict[str, Tensor]:
        """Draw each frame from the other and compare; see `Task`."""
        options, optimizer = self._options, self.optimizers["generator"]
        warp_only = step < options.warp_steps
        if step == options.warp_steps:
            optimizer.state.clear()  # the second stage begins with a fresh Adam
        set_learning_rate(optimizer, options, step if warp_only else step - options.warp_steps)
        frames = to_network(np.concatenate([batch.source, batch.target])).to(self._device)
        windows = torch.from_numpy(np.concatenate([batch.target_windows, batch.source_windows])).to(self._device)
        wanted = frames.roll(options.batch, 0)
        found = self.networks["generator"](frames, windows, warp_only=warp_only)
        losses = {"warp": options.warp_weight * self._warp_loss(found.warped, wanted)}
        if found.picture is not None:
            losses["final"] = options.final_weight * self._final_loss(found.picture, wanted)
        update(sum(losses.values()), optimizer)
        follow(self.networks["average"], self.networks["generator"], options.average)
        best = found.warped if found.picture is None else found.picture
        return {name: loss.detach() for name, loss in losses.items()} | {"l1": (best - wanted).abs().mean().detach()}

    @torch.no_grad()
    def show(self, step: int, writer: SummaryWriter) -> None:
        """Write rows of source, warped source, finished picture and target, by the averaged network; see `Task`."""
        batch = self.clips.draw(np.random.default_rng(self._options.seed), SHOWN)
        source, target = (to_network(pictures).to(self._device) for pictures in (batch.source, batch.target))
        windows = torch.from_numpy(batch.target_windows).to(self._device)
        found = self.networks["average"](source, windows, warp_only=step <= self._options.warp_steps)
        drawn = found.warped if found.picture is None else found.picture
        writer.add_image("source_warped_drawn_target", picture_rows([source, found.warped, drawn, target]), step)


def initial_pirender(widths: PIRenderWidths, seed: int) -> PIRenderGenerator:
    """Return a network of random weights, normal of INITIAL_STD, no biases; torch's random state is left alone."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        network = PIRenderGenerator(widths)
        for layer in network.modules():
            if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                nn.init.normal_(layer.weight, std=INITIAL_STD)
                nn.init.zeros_(layer.bias)
    return network

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
