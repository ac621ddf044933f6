"""ArcFace's face recognition network IResNet (Deng et al. 2019), named as insightface's `backbone.pth` has it."""

from __future__ import annotations

import cv2
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor, nn

from gaussian_head.networks.weights import find_weights, load_into

BLOCKS = {50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
"""Residual blocks of each of the four stages, by the network's depth."""
SIDE = 112
"""Width and height of its input in px."""


class IResNet(nn.Module):
    """RGB in [-1, 1] -> 512 numbers whose direction tells who it is; their length is not normalised."""

    def __init__(self, depth: int = 100) -> None:
        """Build; `depth` is a key of BLOCKS."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        widths = (64, 64, 128, 256, 512)
        for i, count in enumerate(BLOCKS[depth], start=1):
            first = Residual(widths[i - 1], widths[i], stride=2)
            others = [Residual(widths[i], widths[i], stride=1) for _ in range(count - 1)]
            self.add_module(f"layer{i}", nn.Sequential(first, *others))
        self.bn2 = nn.BatchNorm2d(512)
        self.fc = nn.Linear(512 * (SIDE // 16) ** 2, 512)
        self.features = nn.BatchNorm1d(512)

    def forward(self, faces: Float[Tensor, "B 3 112 112"]) -> Float[Tensor, "B 512"]:
        """Embed."""
        x = self.prelu(self.bn1(self.conv1(faces)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.features(self.fc(self.bn2(x).flatten(1)))


class Residual(nn.Module):
    """Two 3 x 3 convolutions, normalised before and after; the second may halve the size."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Identity()
        if stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D I J"]:
        """Add what the convolutions say to the input."""
        y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(y)) + self.downsample(x)


def load_arcface(device: torch.device) -> nn.Module:
    """Return IResNet-100 with its public weights, ready to embed.

    Raises:
        UserError: The weights are missing, damaged, or another network's.
    """
    return load_into(IResNet(100), find_weights("arcface")).to(device)


def whole_frame_input(rgb: UInt8[ndarray, "H W 3"]) -> Float[Tensor, "1 3 112 112"]:
    """Squeeze a whole picture (no face detection, no alignment, as ViCo does) into the network's input, [-1, 1]."""
    small = cv2.resize(rgb, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    return (torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.5
