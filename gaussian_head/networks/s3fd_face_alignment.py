"""S3FD in the edition of face_alignment and Wav2Lip, its parameter names (`s3fd-619a316812.pth`).

The body is `networks.s3fd`'s; names, one layer's padding and what is done with the scores differ.
Source: specs/one_shot.md 6.3, 10.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import nn

from gaussian_head.networks.s3fd import S3FD, SMALLEST_SIDE, decode, suppress
from gaussian_head.networks.weights import find_weights, load_into

MEAN = (104.0, 117.0, 123.0)
"""Taken from R, G, B in this order, although they are the mean of B, G, R: so the detector is used, and thresholds are
meant."""
MIN_SCORE, MAX_OVERLAP = 0.5, 0.3
VGG = (
    "conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv4_1", "conv4_2", "conv4_3",
    "conv5_1", "conv5_2", "conv5_3", "fc6", "fc7",
)  # fmt: skip
EXTRAS = ("conv6_1", "conv6_2", "conv7_1", "conv7_2")
SOURCES = ("conv3_3_norm", "conv4_3_norm", "conv5_3_norm", "fc7", "conv6_2", "conv7_2")


class FaceAlignmentS3FD(S3FD):
    """S3FD under the other names."""

    def __init__(self) -> None:
        super().__init__(padding=3, dilation=1, ceil_mode=False)
        parts = dict(zip(VGG, (layer for layer in self.vgg if isinstance(layer, nn.Conv2d)), strict=True))
        parts |= dict(zip(EXTRAS, self.extras, strict=True))
        parts |= dict(zip(SOURCES, (self.L2Norm3_3, self.L2Norm4_3, self.L2Norm5_3), strict=False))
        for source, conf, loc in zip(SOURCES, self.conf, self.loc, strict=True):
            parts |= {f"{source}_mbox_conf": conf, f"{source}_mbox_loc": loc}
        for name in ("vgg", "extras", "conf", "loc"):  # kept as plain lists: a module counts under one name alone
            layers = list(getattr(self, name))
            delattr(self, name)
            setattr(self, name, layers)
        for name in ("L2Norm3_3", "L2Norm4_3", "L2Norm5_3"):
            delattr(self, name)
        for name, part in parts.items():
            self.add_module(name, part)

    def _norms(self) -> tuple[nn.Module, ...]:
        return self.conv3_3_norm, self.conv4_3_norm, self.conv5_3_norm

    @torch.inference_mode()
    def find(self, pictures: UInt8[ndarray, "B H W 3"]) -> list[Float[ndarray, "N 4"]]:
        """Find faces in pictures of one size.

        Args:
            pictures: RGB, 0..255; smaller ones than SMALLEST_SIDE px are padded with black.

        Returns:
            Of each picture (left, top, right, bottom) in px, the most probable first; may reach beyond the picture.
        """
        rows, columns = (max(0, SMALLEST_SIDE - side) for side in pictures.shape[1:3])
        padded = np.pad(pictures, ((0, 0), (0, rows), (0, columns), (0, 0)))
        height, width = padded.shape[1:3]
        device = self.conv1_1.weight.device
        x = torch.from_numpy(padded).to(device).permute(0, 3, 1, 2).float()
        offsets, scores, places = self(x - torch.tensor(MEAN, device=device)[:, None, None])
        found = []
        for offset, score in zip(offsets.cpu().numpy(), scores[..., 1].cpu().numpy(), strict=True):
            probable = score > MIN_SCORE
            boxes = decode(offset[probable], places[probable]) * (width, height, width, height)
            found.append(boxes[suppress(boxes, score[probable], MAX_OVERLAP)])
        return found


def load_face_alignment_s3fd(given: Path | None = None) -> FaceAlignmentS3FD:
    """Load the public weights.

    Args:
        given: The file; default: see `networks.weights.find_weights`.

    Raises:
        UserError: The file is missing (WeightsMissingError), damaged, or another network's.
    """
    return load_into(FaceAlignmentS3FD(), find_weights("s3fd_face_alignment", given))
