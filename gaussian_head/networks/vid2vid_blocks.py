"""What the networks of face-vid2vid share: their sizes, their convolution block, their coordinates.

Names of parameters and defaults are those of the public checkpoints (specs/one_shot.md 4). Volumes are [B, C, D, H, W];
coordinates are (x, y, z) in [-1, 1], -1 and 1 the centres of the outermost voxels, y down.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, avg_pool3d, conv2d, interpolate, leaky_relu, normalize


@dataclass(frozen=True)
class Vid2VidSize:
    """How large the networks are; the defaults are the published ones."""

    points: int = 15
    """Key points of a face."""
    bins: int = 66
    """Classes of an angle, 3 degrees each."""
    depth: int = 16
    """Layers of a volume in depth."""
    width: int = 32
    """Channels at the hourglasses' full size; each halving doubles them."""
    widest: int = 1024
    """The most channels an hourglass has."""
    halvings: int = 5
    """Of an hourglass. A picture's side must be a multiple of 4 * 2 ** halvings."""
    picture: int = 64
    """The generator's channels at the picture's size; 4 times as many at a quarter of it."""
    volume: int = 32
    """Channels of the volume of features that is moved."""
    residuals: int = 6
    """Three-dimensional residual blocks that make this volume."""
    squeezed: int = 4
    """Channels of the thin volume by which the motion is judged."""
    middle: int = 6
    """Residual blocks of the decoder before it grows."""
    modulation: int = 128
    """Channels from which the decoder's normalisations read scale and shift."""
    descriptor: int = 1024
    """Channels of the mapping network."""
    estimator: int = 64
    """Channels of the head-pose estimator's first convolution; its last has 32 times as many."""

    def hourglass(self) -> list[int]:
        """Return the hourglass's channels after each halving."""
        return [min(self.widest, self.width * 2 ** (i + 1)) for i in range(self.halvings)]


PUBLISHED = Vid2VidSize()
SMALL = Vid2VidSize(
    points=6, depth=4, width=4, widest=32, halvings=3, picture=8, volume=8, residuals=1, squeezed=2, middle=1,
    modulation=16, descriptor=64, estimator=4,
)  # fmt: skip
"""For pictures of 64 px on a CPU."""


class Block(nn.Module):
    """A convolution of 3, normalisation, (leaky) ReLU; before it the size may double, after it halve, not in depth."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        dimensions: Literal[2, 3],
        resample: Literal["same", "halve", "double"] = "same",
        slope: float = 0.0,
    ) -> None:
        super().__init__()
        convolution, norm = (nn.Conv2d, nn.BatchNorm2d) if dimensions == 2 else (nn.Conv3d, nn.BatchNorm3d)
        self.conv = convolution(inputs, outputs, 3, padding=1)
        self.norm = norm(outputs)
        self._halve = (
            partial(avg_pool2d, kernel_size=2) if dimensions == 2 else partial(avg_pool3d, kernel_size=(1, 2, 2))
        )
        self._double = (2.0, 2.0) if dimensions == 2 else (1.0, 2.0, 2.0)
        self._resample, self._slope = resample, slope

    def forward(self, x: Float[Tensor, "B C *size"]) -> Float[Tensor, "B D *other"]:
        """Convolve."""
        if self._resample == "double":
            x = interpolate(x, scale_factor=self._double)
        x = leaky_relu(self.norm(self.conv(x)), self._slope)
        return self._halve(x) if self._resample == "halve" else x


class SpectralConvolution(nn.Module):
    """A convolution whose weight is divided by its largest singular value (Miyato et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, bias: bool = True, stride: int = 1) -> None:
        super().__init__()
        like = nn.Conv2d(inputs, outputs, kernel, bias=bias)
        self.weight_orig = like.weight
        self.bias = like.bias
        self.register_buffer("weight_u", normalize(torch.randn(outputs), dim=0))
        self.register_buffer("weight_v", normalize(torch.randn(inputs * kernel**2), dim=0))
        self._stride, self._padding = stride, kernel // 2

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D I J"]:
        """Convolve; in training the estimate of the singular value is improved by one step of the power iteration."""
        matrix = self.weight_orig.flatten(1)
        if self.training:
            with torch.no_grad():
                self.weight_v.copy_(normalize(matrix.mT @ self.weight_u, dim=0))
                self.weight_u.copy_(normalize(matrix @ self.weight_v, dim=0))
        # copies: a second pass before the backward pass of the first may change the buffers
        singular = self.weight_u.clone() @ (matrix @ self.weight_v.clone())
        return conv2d(x, self.weight_orig / singular, self.bias, self._stride, self._padding)


def coordinates(like: Float[Tensor, "B C D H W"]) -> Float[Tensor, "D H W 3"]:
    """Return the (x, y, z) of each voxel of a volume."""
    z, y, x = (torch.linspace(-1, 1, size, device=like.device, dtype=like.dtype) for size in like.shape[2:])
    depth, down, right = torch.meshgrid(z, y, x, indexing="ij")
    return torch.stack([right, down, depth], -1)
