"""What TensorBoard shows of the stage `torso`: PSNR of the visible torso on held-out frames, and pictures of them."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from gaussian_head.training.torso import TorsoStage
from gaussian_head.training.validation import FRAMES, SHOWN

GARISH = (1.0, 0.0, 1.0)
"""Colour put behind the torso where pictures shall show every hole."""


def validate_torso(stage: TorsoStage, step: int, writer: SummaryWriter) -> None:
    """Write PSNR over what shows the torso, and pictures: truth, torso over its background, its coverage."""
    writer.add_scalar("val/psnr_torso_db", visible_psnr(stage), step)
    frames = _frames(stage.subject.val, SHOWN)
    shown = []
    for k in frames:
        truth = stage.subject.frame(k).image.cpu() / 255
        picture, alpha = (part.cpu() for part in stage.picture(k))
        coverage = 1 - (1 - alpha) * torch.tensor(GARISH)[:, None, None]
        shown.append(torch.cat([truth, picture.clamp(0, 1), coverage], 1))
    writer.add_image("val/truth_torso_coverage", torch.cat(shown, 2), step)
    writer.flush()


def visible_psnr(stage: TorsoStage) -> float:
    """Return the mean PSNR (dB) over val frames of the pixels that show the torso: not the head, matte above a half.

    Frames that show none are left out; without any the result is NaN.
    """
    values = []
    for k in _frames(stage.subject.val, FRAMES):
        frame = stage.subject.frame(k)
        shows = stage.visible(frame) * (frame.matte > 127)
        if shows.sum() > 0:
            error = (stage.picture(k)[0].clamp(0, 1) - frame.image / 255).square() * shows
            values.append(-10 * (error.sum() / (3 * shows.sum())).clamp_min(1e-10).log10())
    return float(torch.stack(values).mean()) if values else float("nan")


def _frames(split: list[int], count: int) -> list[int]:
    return [split[i] for i in np.unique(np.linspace(0, len(split) - 1, count).round().astype(int))]
