"""Face-vid2vid's detector of canonical key points (Wang et al. 2021), names of the public checkpoints.

Source: specs/one_shot.md 4.2.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d

from gaussian_head.networks.vid2vid_blocks import PUBLISHED, Block, Vid2VidSize, coordinates

TEMPERATURE = 0.1
"""Of the softmax over a heat map."""
SMALLER = 4
"""How much smaller the heat maps are than the picture."""


class KeypointDetector(nn.Module):
    """RGB in [0, 1] -> key points of the face, without its pose and expression."""

    def __init__(self, size: Vid2VidSize = PUBLISHED) -> None:
        super().__init__()
        self.predictor = Hourglass(size)
        self.kp = nn.Conv3d(size.width, size.points, 3, padding=1)
        self.down = Smaller()

    def forward(self, pictures: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B points 3"]:
        """Return (x, y, z) in [-1, 1] where each heat map expects its point."""
        heat = self.kp(self.predictor(self.down(pictures)))
        shares = (heat.flatten(2) / TEMPERATURE).softmax(2)
        return shares @ coordinates(heat).flatten(0, 2)


class Smaller(nn.Module):
    """A picture at a quarter of its size, without aliases."""

    def __init__(self) -> None:
        super().__init__()
        sigma = (SMALLER - 1) / 2
        self.radius = round(4 * sigma)
        offsets = torch.arange(-self.radius, self.radius + 1, dtype=torch.float32)
        bell = (-((offsets / sigma) ** 2) / 2).exp()
        bell = bell[:, None] * bell
        self.register_buffer("weight", (bell / bell.sum()).expand(3, 1, -1, -1).clone())

    def forward(self, pictures: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 h w"]:
        """Smooth and leave pixels out."""
        return conv2d(pictures, self.weight, stride=SMALLER, padding=self.radius, groups=3)


class Hourglass(nn.Module):
    """A picture, ever smaller, and from the smallest a volume, ever larger."""

    def __init__(self, size: Vid2VidSize) -> None:
        super().__init__()
        down = [3, *size.hourglass()]
        up = [*reversed(size.hourglass()), size.width]
        self.down_blocks = nn.Sequential(
            OrderedDict((f"down{i}", Block(down[i], down[i + 1], 2, "halve")) for i in range(size.halvings))
        )
        self.conv = nn.Conv2d(down[-1], down[-1] * size.depth, 1)
        self.up_blocks = nn.Sequential(
            OrderedDict((f"up{i}", Block(up[i], up[i + 1], 3, "double")) for i in range(size.halvings))
        )
        self._depth = size.depth

    def forward(self, pictures: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C D H W"]:
        """Return a volume of features of the picture's size."""
        return self.up_blocks(self.conv(self.down_blocks(pictures)).unflatten(1, (-1, self._depth)))
