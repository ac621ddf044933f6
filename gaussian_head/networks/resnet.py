"""Residual networks of 18 and 50 layers (He et al. 2016) without a classifier; torchvision's parameter names."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512)
"""Channels inside the blocks of each of the four stages."""


class ResNet(nn.Module):
    """RGB -> the pictures after each of four stages, at 1/4, 1/8, 1/16 and 1/32 of the size."""

    def __init__(self, depth: Literal[18, 50], stem: Literal["one", "three"] = "one") -> None:
        """Build.

        Args:
            depth: 18, with blocks of two convolutions, or 50, with blocks of three (stride on the 3 x 3).
            stem: The first convolution is one of 7 x 7, or (v1c, mmsegmentation's names) three of 3 x 3.
        """
        super().__init__()
        block, counts = (Basic, (2, 2, 2, 2)) if depth == 18 else (Bottleneck, (3, 4, 6, 3))
        if stem == "one":
            self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(64)
        else:
            layers = [
                layer
                for inputs, outputs, stride in ((3, 32, 2), (32, 32, 1), (32, 64, 1))
                for layer in (*_convolution(inputs, outputs, 3, stride), nn.ReLU())
            ]
            self.stem = nn.Sequential(*layers)
        inputs = 64
        for i, (width, count) in enumerate(zip(WIDTHS, counts, strict=True), start=1):
            outputs = width * block.EXPANSION
            first = block(inputs, width, stride=1 if i == 1 else 2)
            others = [block(outputs, width, stride=1) for _ in range(count - 1)]
            self.add_module(f"layer{i}", nn.Sequential(first, *others))
            inputs = outputs

    def forward(self, pictures: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """Return what each of the four stages gives."""
        x = self.bn1(self.conv1(pictures)).relu() if hasattr(self, "conv1") else self.stem(pictures)
        x = nn.functional.max_pool2d(x, 3, 2, padding=1)
        seen = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            seen.append(x)
        return seen


class Basic(nn.Module):
    """Two 3 x 3 convolutions beside a short cut; the first may halve the size."""

    EXPANSION = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(inputs, width, 3, stride)
        self.conv2, self.bn2 = _convolution(width, width, 3)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D I J"]:
        """Add what the convolutions say to the input."""
        y = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(y)) + self.downsample(x)).relu()


class Bottleneck(nn.Module):
    """Convolutions of 1 x 1, 3 x 3 and 1 x 1 beside a short cut; the second may halve the size."""

    EXPANSION = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(inputs, width, 1)
        self.conv2, self.bn2 = _convolution(width, width, 3, stride)
        self.conv3, self.bn3 = _convolution(width, 4 * width, 1)
        self.downsample = _shortcut(inputs, 4 * width, stride)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D I J"]:
        """Add what the convolutions say to the input."""
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        return (self.bn3(self.conv3(y)) + self.downsample(x)).relu()


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False), nn.BatchNorm2d(outputs)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return nn.Sequential(*_convolution(inputs, outputs, 1, stride))
