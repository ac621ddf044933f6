"""Training of SadTalker's expression network.

Its own training code was never published: weights of the losses are its configuration's (specs/one_shot.md 3.5), their
formulas follow the paper (Zhang et al. 2023).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from gaussian_head.networks.bfm import load_face_model
from gaussian_head.networks.sadtalker_expression import PREFIX, ExpressionNetwork
from gaussian_head.oneshot.audio2coeff.data import Clip, Clips, Cut
from gaussian_head.oneshot.audio2coeff.landmarks import LandmarkModel, aperture, seen
from gaussian_head.oneshot.audio2coeff.sadtalker import NETWORK_FPS, WINDOW_OFFSET_FRAMES
from gaussian_head.oneshot.audio2coeff.training import SHOWN_RANK, compared, mels_of, stacked, started
from gaussian_head.oneshot.fitting import Task, Update, task_device

logger = logging.getLogger(__name__)
ReadingLoss = Callable[[Float[Tensor, "B T 64"], "ExpressionBatch"], Float[Tensor, ""]]
"""From expressions to how badly a lip reader understands them."""
_EYES = slice(36, 48)


@dataclass(frozen=True)
class ExpressionTrainingOptions:
    """Train SadTalker's expression network."""

    data: Path
    """Folder of videos or sounds, each beside a .mat of its coefficients. SadTalker took coefficients of first frames
    that Wav2Lip had driven, in which nothing but the lips moves."""
    face_model: Path | None = None
    """bfm2009.safetensors, for the losses of landmarks and eyes. Without it, coefficients alone are compared, and
    blinks are not learned: the network then takes no notice of them."""
    blinks: Literal["measured", "drawn"] = "measured"
    """Where blinks come from: measured in the coefficients, or drawn at random, for faces that never blink."""
    start: Path | None = None
    """Weights to start from."""
    frames: int = 40
    """Of a window."""
    batch: int = 32
    """Windows a step."""
    learning_rate: float | int = 2e-5
    """Of Adam."""
    coefficient_weight: float | int = 2.0
    """Of the squared error of the coefficients."""
    landmark_weight: float | int = 1e-2
    """Of the landmarks' squared distance, px of a picture of 224."""
    eye_weight: float | int = 4.0
    """Of how far the eyes are from where the blink wants them."""
    reading_weight: float | int = 1e-2
    """Of the lip reader, where a program passes one."""
    wav_fps: float | int = 25.0
    """Frames a second of coefficients without a video beside them."""
    seed: int = 0
    """Of weights and windows."""
    device: str = "auto"
    """auto, cpu, cuda."""

    def build(self, reading: ReadingLoss | None = None) -> ExpressionTraining:
        """Read the data and make the training.

        Args:
            reading: A lip reader's loss. None is shipped, and without one that loss is left out.

        Raises:
            UserError: Data, face model or weights to start from are missing or broken.
        """
        return ExpressionTraining(self, reading)


class ExpressionBatch(NamedTuple):
    """B windows of T frames."""

    mels: Float[Tensor, "B T 80 16"]
    rest: Float[Tensor, "B 64"]
    """Expression of the clip's first frame."""
    closed: Float[Tensor, "B T 1"]
    """How far the eyes shall be closed, 0..1."""
    opened: Float[Tensor, "B 1 2"]
    """Aperture of the open eyes."""
    expression: Float[Tensor, "B T 64"]
    identity: Float[Tensor, "B T 80"]
    angles: Float[Tensor, "B T 3"]
    translation: Float[Tensor, "B T 3"]


class ExpressionTraining(Task):
    """See `ExpressionTrainingOptions`."""

    name = "sadtalker_expression"

    def __init__(self, options: ExpressionTrainingOptions, reading: ReadingLoss | None) -> None:
        self.options, self._reading = options, reading
        self._device = task_device(options.device)
        self._clips = Clips(
            options.data, Cut(NETWORK_FPS, options.frames, offset_frames=WINDOW_OFFSET_FRAMES), options.wav_fps
        )
        self._face = None
        if options.face_model is not None:
            self._face = LandmarkModel(load_face_model(options.face_model), self._device)
        self._apertures: dict[int, Tensor] = {}
        self.network = started(ExpressionNetwork, options.seed, options.start, PREFIX).to(self._device)
        if self._face is None:
            if options.start is None:
                with torch.no_grad():
                    self.network.mapping1.weight[:, -1] = 0  # nothing teaches what a blink is, so it shall do nothing
            logger.warning("no --face-model: landmarks and eyes are not compared, and blinks are not learned.")
        if reading is None:
            logger.info("no lip reader: its loss is left out.")
        self.networks = {"expression": self.network}
        self.optimizers = {"expression": torch.optim.Adam(self.network.parameters(), options.learning_rate)}

    def batch(self, step: int, rank: int) -> ExpressionBatch:
        """Return windows."""
        rng = np.random.default_rng((self.options.seed, rank, step))
        windows = [self._clips.draw(rng) for _ in range(self.options.batch)]
        identity, expression = (stacked(windows, name).to(self._device) for name in ("identity", "expression"))
        closed, opened = torch.zeros(*expression.shape[:2], 1), torch.ones(len(windows), 1, 2)
        if self._face is not None:
            opened = torch.stack([self._open_eyes(window.clip) for window in windows])
            measured = aperture(self._face.points(identity, expression)) / opened
            closed = (1 - measured.mean(-1, keepdim=True)).clamp(0, 1)
            if self.options.blinks == "drawn":
                closed = torch.from_numpy(rng.random(closed.shape, np.float32))
        batch = ExpressionBatch(
            mels_of(windows),
            torch.from_numpy(np.stack([window.clip.coefficients.expression[0] for window in windows])),
            closed, opened, expression, identity, stacked(windows, "angles"),
            stacked(windows, "translation"),
        )  # fmt: skip
        return ExpressionBatch(*(part.to(self._device) for part in batch))

    def step(self, batch: ExpressionBatch, step: int, update: Update) -> dict[str, Tensor]:
        """Train on windows."""
        self.network.train()
        losses = self.losses(self._predict(batch), batch)
        losses["total"] = torch.stack(list(losses.values())).sum()
        update(losses["total"], self.optimizers["expression"])
        return losses

    def _predict(self, batch: ExpressionBatch) -> Float[Tensor, "B T 64"]:
        frames = batch.mels.shape[1]
        rest = batch.rest[:, None].expand(-1, frames, -1).flatten(0, 1)
        found = self.network(batch.mels.flatten(0, 1)[:, None], rest, batch.closed.flatten(0, 1))
        return found.unflatten(0, (-1, frames))

    def losses(self, found: Float[Tensor, "B T 64"], batch: ExpressionBatch) -> dict[str, Tensor]:
        """Return the losses that there are, weighted."""
        options = self.options
        losses = {"coefficients": options.coefficient_weight * (found - batch.expression).square().mean()}
        if self._face is not None:
            points = self._face.points(batch.identity, found)
            true = self._face.points(batch.identity, batch.expression)
            pose = batch.angles.flatten(0, 1), batch.translation.flatten(0, 1)
            apart = (seen(points.flatten(0, 1), *pose) - seen(true.flatten(0, 1), *pose)).square().sum(-1)
            if options.blinks == "drawn":
                apart = torch.cat([apart[:, : _EYES.start], apart[:, _EYES.stop :]], 1)
            losses["landmarks"] = options.landmark_weight * apart.mean()
            losses["eyes"] = options.eye_weight * (aperture(points) / batch.opened - (1 - batch.closed)).abs().mean()
        if self._reading is not None:
            losses["reading"] = options.reading_weight * self._reading(found, batch)
        return losses

    @torch.no_grad()
    def show(self, step: int, writer: SummaryWriter) -> None:
        """Show expressions over time, true above found, and their error."""
        self.network.eval()
        batch = self.batch(0, SHOWN_RANK)
        found = self._predict(batch)
        writer.add_scalar("shown/expression_l1", (found - batch.expression).abs().mean().item(), step)
        writer.add_image("shown/expression", compared(batch.expression[0], found[0]), step)

    def _open_eyes(self, clip: Clip) -> Float[Tensor, "1 2"]:
        """Return the aperture that nine frames of ten do not exceed."""
        if clip.index not in self._apertures:
            held = clip.coefficients
            parts = (torch.from_numpy(part).to(self._device) for part in (held.identity, held.expression))
            found = aperture(self._face.points(*parts))
            self._apertures[clip.index] = found.quantile(0.9, 0, keepdim=True).clamp(min=1e-3)
        return self._apertures[clip.index]
