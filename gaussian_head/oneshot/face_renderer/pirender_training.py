"""Training of PIRender: two frames of a clip, each drawn from the other (Ren et al. 2021; specs/vico.md 7.4)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam
from torch.utils.tensorboard import SummaryWriter

from gaussian_head.errors import UserError
from gaussian_head.geometry.coefficients import MOTION, MOTION_WITH_CROP
from gaussian_head.networks.pirender import PIRenderGenerator, PIRenderWidths, load_pirender
from gaussian_head.oneshot.face_renderer.data import PairBatch, PairedClips
from gaussian_head.oneshot.face_renderer.perceptual import choose_perceptual_loss
from gaussian_head.oneshot.face_renderer.pirender import to_network
from gaussian_head.oneshot.face_renderer.training import SHOWN, RendererTrainingOptions, follow, picture_rows
from gaussian_head.oneshot.fitting import Task, Update, task_device

INITIAL_STD = 0.02
"""Of the weights that PIRender begins with."""


@dataclass(frozen=True)
class PIRenderTrainingOptions(RendererTrainingOptions):
    """Train PIRender: a portrait moved by coefficients of a face model. Each pair of frames is drawn both ways."""

    warp_steps: int = 200_000
    """Steps in which the warp alone is learnt; then the repainting joins it, and the schedule begins anew."""
    warp_weight: float = 2.5
    """Of the warped picture's loss."""
    final_weight: float = 4.0
    """Of the finished picture's loss."""
    gram_weight: float = 250.0
    """Of the Gram matrices within the finished picture's loss; the loss pyramid has none."""
    average: float = 0.5 ** (32 / 10_000)
    """Of the averaged network a step keeps this share; that network is the one to use."""
    widths: PIRenderWidths = field(default_factory=PIRenderWidths)
    """Channels; the defaults are the published network's."""

    NOT_NEGATIVE = (
        *RendererTrainingOptions.NOT_NEGATIVE, "warp_steps", "warp_weight", "final_weight", "gram_weight"
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check the limits; see `RendererTrainingOptions`."""
        super().__post_init__()
        if not 0 <= self.average < 1:
            raise UserError(f"--average must be at least 0 and below 1, got {self.average}.")
        if self.widths.coefficients not in (MOTION, MOTION_WITH_CROP):
            raise UserError(f"--coefficients must be 70 or 73 (with the crop), got {self.widths.coefficients}.")

    def build(self) -> PIRenderTask:
        """Open the data and make the networks.

        Raises:
            UserError: The data cannot be used, or a file of weights is missing or does not fit.
        """
        return PIRenderTask(self)


class PIRenderTask(Task):
    """PIRender's training."""

    name = "pirender"

    def __init__(self, options: PIRenderTrainingOptions) -> None:
        self._options, self._device = options, task_device(options.device)
        self.clips = PairedClips(
            options.data, options.size, crop=options.widths.coefficients == MOTION_WITH_CROP, cache_mb=options.cache_mb
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
        options.set_learning_rate(optimizer, step if warp_only else step - options.warp_steps)
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
