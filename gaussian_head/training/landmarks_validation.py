"""What TensorBoard shows of the stage `landmarks`: the mouth on the val frames, true and predicted."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from torch.utils.tensorboard import SummaryWriter

from gaussian_head.driving.regression import correlation
from gaussian_head.geometry.landmarks import mouth_aperture
from gaussian_head.geometry.speech_points import lip_error_mm
from gaussian_head.training.landmarks import LandmarkStage

WIDTH, HEIGHT = 640, 200
TRUE_COLOR, PREDICTED_COLOR = (40, 40, 40), (220, 90, 20)


@torch.no_grad()
def validate_landmarks(stage: LandmarkStage, step: int, writer: SummaryWriter) -> None:
    """Write figures and curves of every speaker's val frames; at the end the curves frame by frame, too."""
    for speaker, space in zip(stage.speakers, stage.spaces, strict=True):
        truth = speaker.landmarks[speaker.val]
        codes = stage.net(speaker.features).numpy()[speaker.val]
        predicted = space.decode(codes).numpy()
        true_mm, heard_mm = mouth_aperture(truth) * 1e3, mouth_aperture(predicted) * 1e3
        writer.add_scalar(f"val_aperture_correlation/{speaker.name}", correlation(heard_mm, true_mm), step)
        writer.add_scalar(f"val_lip_error_mm/{speaker.name}", lip_error_mm(predicted, truth), step)
        tag = f"val/aperture_true_dark_predicted_orange/{speaker.name}"
        writer.add_image(tag, draw_curves(true_mm, heard_mm), step, dataformats="HWC")
        if step == stage.steps:
            for frame, true, heard in zip(speaker.val, true_mm, heard_mm, strict=True):
                writer.add_scalar(f"aperture_mm_by_frame/{speaker.name}/true", true, frame)
                writer.add_scalar(f"aperture_mm_by_frame/{speaker.name}/predicted", heard, frame)
    writer.flush()


def draw_curves(true: Float[np.ndarray, " T"], predicted: Float[np.ndarray, " T"]) -> UInt8[np.ndarray, "H W 3"]:
    """Draw two curves over each other, from 0 to the larger one's maximum."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), (255, 255, 255))
    draw = ImageDraw.Draw(picture)
    top = max(float(true.max()), float(predicted.max()), 1e-6)
    across = np.linspace(0, WIDTH - 1, len(true))
    for values, color in ((true, TRUE_COLOR), (predicted, PREDICTED_COLOR)):
        down = HEIGHT - 1 - values / top * (HEIGHT - 1)
        draw.line(list(zip(across.tolist(), down.tolist(), strict=True)), fill=color, width=2)
    return np.asarray(picture)
