"""S3FD (Zhang et al. 2017), the face detector in front of SyncNet, written to load its `sfd_face.pth` as it is.

Boxes are looked for on six grids of 4, 8, ... 128 px, for faces of 16, 32, ... 512 px of the picture given.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray
from torch import Tensor, nn
from torch.nn import functional as F

from gaussian_head.networks.weights import find_weights, load_into

STRIDES = (4, 8, 16, 32, 64, 128)
FACE_PER_STRIDE = 4
"""A grid's faces are four times as large as its steps."""
MEAN_RGB = (123.0, 117.0, 104.0)
SMALLEST_SIDE = 32
"""Px; of smaller pictures the last layers see nothing."""


class S3FD(nn.Module):
    """VGG-16 that goes on shrinking, with a box and a score at every place of six of its layers."""

    def __init__(self, padding: int = 6, dilation: int = 6, *, ceil_mode: bool = True) -> None:
        """Build the network.

        Args:
            padding: Of the first layer behind VGG's convolutions.
            dilation: Likewise.
            ceil_mode: An odd row or column left at the third halving counts.
        """
        super().__init__()
        widths = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)  # 0: halve the size
        layers: list[nn.Module] = []
        inputs = 3
        for width in widths:
            if width:
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = width
            else:
                layers.append(nn.MaxPool2d(2, ceil_mode=ceil_mode and inputs == 256))
        layers += [nn.Conv2d(512, 1024, 3, padding=padding, dilation=dilation), nn.ReLU(inplace=True)]
        layers += [nn.Conv2d(1024, 1024, 1), nn.ReLU(inplace=True)]
        self.vgg = nn.ModuleList(layers)
        self.L2Norm3_3 = ScaledDirection(256)
        self.L2Norm4_3 = ScaledDirection(512)
        self.L2Norm5_3 = ScaledDirection(512)
        self.extras = nn.ModuleList([
            nn.Conv2d(1024, 256, 1), nn.Conv2d(256, 512, 3, stride=2, padding=1),
            nn.Conv2d(512, 128, 1), nn.Conv2d(128, 256, 3, stride=2, padding=1),
        ])  # fmt: skip
        sources = (256, 512, 512, 1024, 512, 256)
        self.loc = nn.ModuleList(nn.Conv2d(width, 4, 3, padding=1) for width in sources)
        scores = (4, 2, 2, 2, 2, 2)  # the finest grid has three kinds of background
        self.conf = nn.ModuleList(nn.Conv2d(n, m, 3, padding=1) for n, m in zip(sources, scores, strict=True))

    def forward(
        self, pictures: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B P 4"], Float[Tensor, "B P 2"], Float32[ndarray, "P 4"]]:
        """Look at pictures.

        Args:
            pictures: RGB in 0..255 less MEAN_RGB, at least SMALLEST_SIDE px.

        Returns:
            For every place, grid by grid and row by row: the box's offsets, the probabilities of background and face,
            and the place itself (`places_of`).
        """
        height, width = pictures.shape[2:]
        offsets, scores, places = [], [], []
        for stride, (score, offset) in zip(STRIDES, self.grids(pictures), strict=True):
            offsets.append(offset.flatten(2).mT)
            scores.append(score.flatten(2).mT)
            places.append(places_of(stride, *offset.shape[2:], height, width))
        return torch.cat(offsets, 1), torch.cat(scores, 1).softmax(-1), np.concatenate(places)

    def grids(self, pictures: Float[Tensor, "B 3 H W"]) -> list[tuple[Tensor, Tensor]]:
        """Return of every grid the scores [B, 2, h, w] of background and face, before the softmax, and the offsets."""
        found = []
        for grid, x in enumerate(self._sources(pictures)):
            score = self.conf[grid](x)
            if grid == 0:
                score = torch.cat([score[:, :3].amax(1, keepdim=True), score[:, 3:]], 1)
            found.append((score, self.loc[grid](x)))
        return found

    def _norms(self) -> tuple[nn.Module, ...]:
        return self.L2Norm3_3, self.L2Norm4_3, self.L2Norm5_3

    def _sources(self, x: Tensor) -> list[Tensor]:
        norms = dict(zip((15, 22, 29), self._norms(), strict=True))
        sources = []
        for i, layer in enumerate(self.vgg):
            x = layer(x)
            if i in norms:
                sources.append(norms[i](x))
        sources.append(x)
        for i, layer in enumerate(self.extras):
            x = F.relu(layer(x))
            if i % 2 == 1:
                sources.append(x)
        return sources

    @torch.inference_mode()
    def detect(
        self, rgb: UInt8[ndarray, "H W 3"], *, scale: float = 0.25, min_score: float = 0.9
    ) -> Float[ndarray, "N 4"]:
        """Find faces as SyncNet's pipeline does (specs/metrics.md section 5).

        Args:
            rgb: The picture, 0..255.
            scale: Shrunk by this first; the shrunken sides must have at least SMALLEST_SIDE px.
            min_score: Faces must be more probable than this.

        Returns:
            (left, top, right, bottom) in px of `rgb`, the most probable first; may reach beyond the picture.
        """
        height, width = rgb.shape[:2]
        small = cv2.resize(rgb, (0, 0), fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        if min(small.shape[:2]) < SMALLEST_SIDE:
            raise ValueError(
                f"detect at scale {scale} needs sides of {SMALLEST_SIDE / scale:.0f} px or more: {width} x {height}."
            )
        device = self.extras[0].weight.device
        x = torch.from_numpy(small).to(device).permute(2, 0, 1)[None].float()
        offsets, scores, places = self(x - torch.tensor(MEAN_RGB, device=device)[:, None, None])
        probabilities = scores[0, :, 1].cpu().numpy()
        probable = probabilities > min_score
        probabilities = probabilities[probable]
        boxes = decode(offsets[0].cpu().numpy()[probable], places[probable]) * (width, height, width, height)
        for max_overlap in (0.3, 0.1):  # the detector's own, then the pipeline's; together not the same as 0.1 alone
            kept = suppress(boxes, probabilities, max_overlap)
            boxes, probabilities = boxes[kept], probabilities[kept]
        return boxes


class ScaledDirection(nn.Module):
    """Divides each place's features by their length and multiplies them by learnt factors."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))

    def forward(self, x: Float[Tensor, "B F H W"]) -> Float[Tensor, "B F H W"]:
        """Scale."""
        length = x.square().sum(1, keepdim=True).sqrt() + 1e-10
        return self.weight[:, None, None] * (x / length)


def load_s3fd(device: torch.device) -> S3FD:
    """Return the detector with its public weights, ready to use.

    Raises:
        UserError: The weights are missing (WeightsMissingError), damaged, or another network's.
    """
    return load_into(S3FD(), find_weights("s3fd")).to(device)


def places_of(stride: int, rows: int, columns: int, height: int, width: int) -> Float32[ndarray, "P 4"]:
    """Return (centre x, centre y, width, height) of a grid's places, as shares of the picture of `height` x `width`."""
    y, x = np.mgrid[:rows, :columns].reshape(2, -1) + 0.5
    face = np.full_like(x, FACE_PER_STRIDE * stride)
    return np.stack([x * stride / width, y * stride / height, face / width, face / height], 1).astype(np.float32)


def decode(offsets: Float[ndarray, "P 4"], places: Float[ndarray, "P 4"]) -> Float[ndarray, "P 4"]:
    """Turn the network's offsets into (left, top, right, bottom), in the unit of `places`."""
    size = places[:, 2:] * np.exp(0.2 * offsets[:, 2:])
    corner = places[:, :2] + 0.1 * offsets[:, :2] * places[:, 2:] - size / 2
    return np.concatenate([corner, corner + size], 1)


def suppress(boxes: Float[ndarray, "N 4"], scores: Float[ndarray, "N"], max_overlap: float) -> list[int]:
    """Return the indices of the boxes kept, best first: none overlaps a better one by more than `max_overlap` (IoU)."""
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    order = np.argsort(-scores, kind="stable")
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        corner = np.maximum(boxes[best, :2], boxes[order, :2])
        common = np.prod(np.maximum(np.minimum(boxes[best, 2:], boxes[order, 2:]) - corner, 0), axis=1)
        order = order[common <= max_overlap * (areas[best] + areas[order] - common)]
    return kept
