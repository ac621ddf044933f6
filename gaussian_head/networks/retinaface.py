"""RetinaFace (Deng et al. 2020) on a ResNet-50, written to load facexlib's `detection_Resnet50_Final.pth` as it is.

Boxes are looked for on three grids of 8, 16 and 32 px, two sizes at each place: faces of 16 to 512 px. Source:
specs/one_shot.md 1.1.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray
from torch import Tensor, nn
from torch.nn import functional as F

from gaussian_head.networks.resnet import ResNet
from gaussian_head.networks.s3fd import decode, suppress
from gaussian_head.networks.weights import find_weights, load_into

STRIDES = (8, 16, 32)
FACES_PX = ((16, 32), (64, 128), (256, 512))
"""Sides of the faces that each grid's places stand for."""
MEAN_BGR = (104.0, 117.0, 123.0)
MIN_SCORE, MAX_OVERLAP = 0.97, 0.4
"""How probable a face must be; how much (IoU) it may overlap a better one."""
PREFIX = "module."
"""The published file was saved by a network that ran on several GPUs."""


class RetinaFace(nn.Module):
    """A ResNet-50, a pyramid of its last three stages, and three answers at every place of it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = ResNet(50)
        self.fpn = Pyramid()
        self.ssh1, self.ssh2, self.ssh3 = Context(), Context(), Context()
        self.ClassHead, self.BboxHead, self.LandmarkHead = (
            nn.ModuleList(Answer(2 * numbers) for _ in STRIDES) for numbers in (2, 4, 10)
        )

    def forward(
        self, pictures: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B P 4"], Float[Tensor, "B P 2"], Float[Tensor, "B P 10"]]:
        """Look at pictures.

        Args:
            pictures: BGR in 0..255 less MEAN_BGR.

        Returns:
            For every place (`places_of`): the box's offsets, the probabilities of background and face, and the offsets
            of five points (eyes, nose, corners of the mouth; x and y of each, left to right in the picture).
        """
        maps = self.fpn(self.body(pictures)[1:])
        seen = [context(x) for context, x in zip((self.ssh1, self.ssh2, self.ssh3), maps, strict=True)]
        boxes, scores, points = (
            torch.cat([answer(x).reshape(len(pictures), -1, numbers) for answer, x in zip(head, seen, strict=True)], 1)
            for head, numbers in ((self.BboxHead, 4), (self.ClassHead, 2), (self.LandmarkHead, 10))
        )
        return boxes, scores.softmax(-1), points

    @torch.inference_mode()
    def detect(
        self, rgb: UInt8[ndarray, "H W 3"], *, min_score: float = MIN_SCORE
    ) -> tuple[Float[ndarray, "N 4"], Float[ndarray, "N"], Float[ndarray, "N 5 2"]]:
        """Find faces.

        The network wants BGR; SadTalker's first stage shows it RGB by mistake, which is not repeated here.

        Args:
            rgb: The picture, 0..255; it is not resized.
            min_score: Faces must be more probable than this.

        Returns:
            (left, top, right, bottom) in px, which may reach beyond the picture; the probabilities, the greatest first;
            and the five points in px.
        """
        height, width = rgb.shape[:2]
        x = torch.tensor(rgb[:, :, ::-1].copy()).permute(2, 0, 1)[None].float()
        offsets, scores, shifts = (y[0].numpy() for y in self(x - torch.tensor(MEAN_BGR)[:, None, None]))
        probable = scores[:, 1] > min_score
        places, scores = places_of(height, width)[probable], scores[probable, 1]
        boxes = decode(offsets[probable], places) * (width, height, width, height)
        points = decode_points(shifts[probable], places).reshape(-1, 5, 2) * (width, height)
        kept = suppress(boxes, scores, MAX_OVERLAP)
        return boxes[kept], scores[kept], points[kept]


class Pyramid(nn.Module):
    """The deeper a stage, the more it knows: each is added to the one before, at its size."""

    def __init__(self) -> None:
        super().__init__()
        self.output1, self.output2, self.output3 = (_layer(inputs, 256, 1) for inputs in (512, 1024, 2048))
        self.merge1, self.merge2 = _layer(256, 256, 3), _layer(256, 256, 3)

    def forward(self, stages: list[Float[Tensor, "B _ _ _"]]) -> list[Float[Tensor, "B 256 _ _"]]:
        """Mix."""
        at8, at16, at32 = self.output1(stages[0]), self.output2(stages[1]), self.output3(stages[2])
        at16 = self.merge2(at16 + F.interpolate(at32, at16.shape[2:]))
        return [self.merge1(at8 + F.interpolate(at16, at8.shape[2:])), at16, at32]


class Context(nn.Module):
    """Convolutions that see 3, 5 and 7 px around."""

    def __init__(self) -> None:
        super().__init__()
        self.conv3X3 = _layer(256, 128, 3, ends_in_relu=False)
        self.conv5X5_1 = _layer(256, 64, 3)
        self.conv5X5_2 = _layer(64, 64, 3, ends_in_relu=False)
        self.conv7X7_2 = _layer(64, 64, 3)
        self.conv7x7_3 = _layer(64, 64, 3, ends_in_relu=False)

    def forward(self, x: Float[Tensor, "B 256 H W"]) -> Float[Tensor, "B 256 H W"]:
        """Look around."""
        wide = self.conv5X5_1(x)
        return torch.cat([self.conv3X3(x), self.conv5X5_2(wide), self.conv7x7_3(self.conv7X7_2(wide))], 1).relu()


class Answer(nn.Module):
    """Numbers at every place."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Conv2d(256, outputs, 1)

    def forward(self, x: Float[Tensor, "B 256 H W"]) -> Float[Tensor, "B H W C"]:
        """Answer; the channels come last."""
        return self.conv1x1(x).permute(0, 2, 3, 1)


def _layer(inputs: int, outputs: int, size: int, *, ends_in_relu: bool = True) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), *[nn.ReLU()] * ends_in_relu)


def places_of(height: int, width: int) -> Float32[ndarray, "P 4"]:
    """Return (centre x, centre y, width, height) of the places looked at, as shares of a picture.

    Grid by grid, row by row, the smaller face first.
    """
    places = []
    for stride, faces in zip(STRIDES, FACES_PX, strict=True):
        y, x = np.mgrid[: -(-height // stride), : -(-width // stride)].reshape(2, -1) + 0.5
        centres = np.stack([x, y], 1) * stride
        sized = [np.concatenate([centres, np.full_like(centres, face)], 1) for face in faces]
        places.append(np.stack(sized, 1).reshape(-1, 4) / (width, height, width, height))
    return np.concatenate(places).astype(np.float32)


def decode_points(shifts: Float[ndarray, "P 10"], places: Float[ndarray, "P 4"]) -> Float[ndarray, "P 10"]:
    """Turn the network's offsets of five points into places, in the unit of `places`."""
    return np.tile(places[:, :2], 5) + 0.1 * shifts * np.tile(places[:, 2:], 5)


def load_retinaface(given: Path | None = None) -> RetinaFace:
    """Load the public weights.

    Args:
        given: The file; default: see `networks.weights.find_weights`.

    Raises:
        UserError: The file is missing, damaged, or another network's.
    """
    return load_into(RetinaFace(), find_weights("retinaface", given), PREFIX)
