"""BiSeNet for faces (Yu et al. 2018; zllrunning/face-parsing.PyTorch), its parameter names (`79999_iter.pth`).

Each pixel of a face is given one of CelebAMask-HQ's 19 classes. Source: specs/one_shot.md 10, gaussian_head.md b.4.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor, nn
from torch.nn.functional import interpolate

from gaussian_head.networks.resnet import ResNet
from gaussian_head.networks.weights import find_weights, load_into

CLASSES = (
    "background", "skin", "left brow", "right brow", "left eye", "right eye", "glasses", "left ear", "right ear",
    "ear-ring", "nose", "mouth", "upper lip", "lower lip", "neck", "necklace", "cloth", "hair", "hat",
)  # fmt: skip
SIDE = 512
"""Width and height of its input in px."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's RGB in [0, 1]."""


class BiSeNet(nn.Module):
    """Standardised RGB -> scores of 19 classes, from three depths; the first is the answer."""

    def __init__(self, classes: int = len(CLASSES)) -> None:
        super().__init__()
        self.cp = ContextPath()
        self.ffm = FeatureFusion()
        self.conv_out = Output(256, 256, classes)
        self.conv_out16 = Output(128, 64, classes)
        self.conv_out32 = Output(128, 64, classes)

    def forward(self, pictures: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B C H W"], ...]:
        """Return the scores at the pictures' size: the answer, and what 1/8 and 1/16 alone would say."""
        shallow, at8, at16 = self.cp(pictures)
        fused = self.ffm(shallow, at8)
        scores = self.conv_out(fused), self.conv_out16(at8), self.conv_out32(at16)
        return tuple(_resize(score, pictures.shape[2:]) for score in scores)

    def answer(self, pictures: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C H W"]:
        """Return the first of `forward`'s scores alone."""
        shallow, at8, _ = self.cp(pictures)
        return _resize(self.conv_out(self.ffm(shallow, at8)), pictures.shape[2:])


class ContextPath(nn.Module):
    """A ResNet-18 whose deep stages, weighed by channel, are added to the shallower ones."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = ResNet(18)
        self.arm16 = Refinement(256, 128)
        self.arm32 = Refinement(512, 128)
        self.conv_head32 = Convolution(128, 128, 3)
        self.conv_head16 = Convolution(128, 128, 3)
        self.conv_avg = Convolution(512, 128, 1)

    def forward(self, pictures: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """Return the ResNet's picture at 1/8 and the refined ones at 1/8 and 1/16."""
        _, at8, at16, at32 = self.resnet(pictures)
        whole = self.conv_avg(at32.mean((2, 3), keepdim=True))
        up32 = self.conv_head32(interpolate(self.arm32(at32) + whole, at16.shape[2:]))
        up16 = self.conv_head16(interpolate(self.arm16(at16) + up32, at8.shape[2:]))
        return at8, up16, up32


class Convolution(nn.Module):
    """Convolution, normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H W"]:
        """Convolve."""
        return self.bn(self.conv(x)).relu()


class Refinement(nn.Module):
    """A convolution whose channels are weighed by what the whole picture says."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = Convolution(inputs, outputs, 3)
        self.conv_atten = nn.Conv2d(outputs, outputs, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(outputs)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H W"]:
        """Convolve and weigh."""
        x = self.conv(x)
        return x * self.bn_atten(self.conv_atten(x.mean((2, 3), keepdim=True))).sigmoid()


class FeatureFusion(nn.Module):
    """Mixes the shallow and the deep picture; channels that the whole picture calls for count up to double."""

    def __init__(self) -> None:
        super().__init__()
        self.convblk = Convolution(256, 256, 1)
        self.conv1 = nn.Conv2d(256, 64, 1, bias=False)
        self.conv2 = nn.Conv2d(64, 256, 1, bias=False)

    def forward(self, shallow: Float[Tensor, "B 128 H W"], deep: Float[Tensor, "B 128 H W"]) -> Tensor:
        """Mix."""
        x = self.convblk(torch.cat([shallow, deep], 1))
        weight = self.conv2(self.conv1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return x + x * weight


class Output(nn.Module):
    """Scores of the classes."""

    def __init__(self, inputs: int, width: int, classes: int) -> None:
        super().__init__()
        self.conv = Convolution(inputs, width, 3)
        self.conv_out = nn.Conv2d(width, classes, 1, bias=False)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H W"]:
        """Score."""
        return self.conv_out(self.conv(x))


def _resize(scores: Float[Tensor, "B C H W"], size: torch.Size) -> Float[Tensor, "B C _ _"]:
    return interpolate(scores, size, mode="bilinear", align_corners=True)


def load_bisenet(given: Path | None = None) -> BiSeNet:
    """Load the public weights.

    Args:
        given: The file; default: see `networks.weights.find_weights`.

    Raises:
        UserError: The file is missing, damaged, or another network's.
    """
    return load_into(BiSeNet(), find_weights("bisenet", given))


@torch.inference_mode()
def class_probabilities(network: BiSeNet, frame: UInt8[ndarray, "H W 3"]) -> Float[ndarray, "19 512 512"]:
    """Return how likely each class is at each pixel of the network's input.

    Args:
        network: Ready to use.
        frame: RGB, 0..255, of any size; it is squeezed to 512 x 512.

    Returns:
        Probabilities that sum to 1 over the classes.
    """
    small = cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    standard = (np.float32(small) / 255 - np.float32(MEAN)) / np.float32(STD)
    return network.answer(torch.from_numpy(standard).permute(2, 0, 1)[None])[0].softmax(0).numpy()
