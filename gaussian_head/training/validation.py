"""What TensorBoard shows of a stage: PSNR on held-out frames, and pictures of them."""

from __future__ import annotations

import io

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from gaussian_head.data.layout import VIDEO_FPS
from gaussian_head.data.subject import Subject
from gaussian_head.render.view import Eye, HeadRenderer
from gaussian_head.training.stage import HeadStage

FRAMES = 12
"""Validation frames measured, evenly spaced over the split."""
SHOWN = 4
CLIP_FRAMES = 25
"""Frames of the short rendered clip shown at the end of a stage."""


def validate(stage: HeadStage, step: int, writer: SummaryWriter) -> None:
    """Write PSNR over the full frame and the head, pictures, and at the stage's end a short clip."""
    subject, render = stage.subject, HeadRenderer(stage.head, stage.rasterizer)
    frames = [subject.val[i] for i in np.unique(np.linspace(0, len(subject.val) - 1, FRAMES).round().astype(int))]
    errors = {"full": [], "head": []}
    shown = []
    for k in frames:
        picture, target, head = _render(render, stage, k)
        error = (picture - target).square()
        errors["full"].append(error.mean())
        errors["head"].append((error * head).sum() / (3 * head.sum()).clamp_min(1))
        shown.append(torch.cat([target, picture], 1))
    for region, values in errors.items():
        psnr = -10 * torch.stack(values).clamp_min(1e-10).log10()
        writer.add_scalar(f"val/psnr_{region}_db", float(psnr.mean()), step)
    writer.add_image("val/truth_above_render", torch.cat(shown[:: -(-len(shown) // SHOWN)], 2), step)
    if step == stage.steps:
        clip = [_render(render, stage, k)[0] for k in subject.val[:CLIP_FRAMES]]
        _add_clip(writer, "val/clip", clip, step)
    writer.flush()


def _add_clip(writer: SummaryWriter, tag: str, pictures: list[Float[Tensor, "3 H W"]], step: int) -> None:
    """Write a short moving picture (GIF), as `add_video` would if moviepy were installed."""
    frames = [Image.fromarray((p.permute(1, 2, 0).numpy() * 255).astype(np.uint8)) for p in pictures]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=1000 // VIDEO_FPS, loop=0)
    width, height = frames[0].size
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=buffer.getvalue())
    summary = Summary(value=[Summary.Value(tag=tag, image=image)])
    writer._get_file_writer().add_summary(summary, step)  # noqa: SLF001 -- the writer has no public way in


def _render(
    render: HeadRenderer, stage: HeadStage, k: int
) -> tuple[Float[Tensor, "3 H W"], Float[Tensor, "3 H W"], Float[Tensor, "1 H W"]]:
    subject: Subject = stage.subject
    frame = subject.frame(k)
    view = render(stage.condition(k), Eye(subject.viewmats[k], subject.K, subject.width, subject.height))
    picture = view.over(frame.background / 255).clamp(0, 1)
    return picture.cpu(), frame.image.cpu() / 255, (frame.head > 0.5).float().cpu()
