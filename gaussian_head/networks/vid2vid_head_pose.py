"""Face-vid2vid's estimator of head pose and expression (Wang et al. 2021), names of the public checkpoint.

Source: specs/one_shot.md 4.3, 4.5 (`facevid2vid_00189-model.pth.tar`, key `he_estimator`).
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from gaussian_head.networks.vid2vid_blocks import PUBLISHED, Vid2VidSize
from gaussian_head.networks.vid2vid_motion import HeadMotion
from gaussian_head.networks.weights import find_weights, load_into

STAGES = ((4, 3), (8, 3), (16, 5), (32, 2))
"""Channels of each of the four stages, in those of the first convolution, and how many blocks keep the size."""


class HeadPoseEstimator(nn.Module):
    """RGB in [0, 1] -> how the head is turned, moved and deformed."""

    def __init__(self, size: Vid2VidSize = PUBLISHED) -> None:
        super().__init__()
        first = size.estimator
        self.conv1, self.norm1 = nn.Conv2d(3, first, 7, 2, padding=3), nn.BatchNorm2d(first)
        inputs = first
        for stage, (factor, count) in enumerate(STAGES):
            wide = factor * first
            self.add_module(f"conv{stage + 2}", nn.Conv2d(inputs, wide, 1))
            self.add_module(f"norm{stage + 2}", nn.BatchNorm2d(wide))
            if stage:
                self.add_module(f"block{2 * stage}", Bottleneck(wide, halve=True))
            name = 2 * stage + 1
            blocks = OrderedDict((f"b{name}_{i}", Bottleneck(wide)) for i in range(count))
            self.add_module(f"block{name}", nn.Sequential(blocks))
            inputs = wide
        self.fc_roll, self.fc_pitch, self.fc_yaw = (nn.Linear(inputs, size.bins) for _ in range(3))
        self.fc_t = nn.Linear(inputs, 3)
        self.fc_exp = nn.Linear(inputs, 3 * size.points)

    def forward(self, pictures: Float[Tensor, "B 3 H W"]) -> HeadMotion:
        """Return the motion that each picture shows."""
        x = max_pool2d(self.norm1(self.conv1(pictures)).relu(), 3, 2, padding=1)
        for stage in range(len(STAGES)):
            x = getattr(self, f"norm{stage + 2}")(getattr(self, f"conv{stage + 2}")(x)).relu()
            if stage:
                x = getattr(self, f"block{2 * stage}")(x)
            x = getattr(self, f"block{2 * stage + 1}")(x)
        x = x.mean((2, 3))
        # the published weights of yaw are under the name of roll, and the other way round
        yaw, pitch, roll = self.fc_roll(x), self.fc_pitch(x), self.fc_yaw(x)
        return HeadMotion(yaw, pitch, roll, self.fc_t(x), self.fc_exp(x).unflatten(1, (-1, 3)))


class Bottleneck(nn.Module):
    """Convolutions of 1 x 1, 3 x 3 and 1 x 1 beside a short cut; the second may halve the size."""

    def __init__(self, channels: int, *, halve: bool = False) -> None:
        super().__init__()
        narrow, stride = max(1, channels // 4), 2 if halve else 1
        self.conv1, self.norm1 = nn.Conv2d(channels, narrow, 1), nn.BatchNorm2d(narrow)
        self.conv2, self.norm2 = nn.Conv2d(narrow, narrow, 3, stride, padding=1), nn.BatchNorm2d(narrow)
        self.conv3, self.norm3 = nn.Conv2d(narrow, channels, 1), nn.BatchNorm2d(channels)
        if halve:
            self.skip, self.norm4 = nn.Conv2d(channels, channels, 1, stride), nn.BatchNorm2d(channels)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C I J"]:
        """Add what the convolutions say to the input."""
        y = self.norm1(self.conv1(x)).relu()
        y = self.norm2(self.conv2(y)).relu()
        y = self.norm3(self.conv3(y))
        return (y + (self.norm4(self.skip(x)) if hasattr(self, "skip") else x)).relu()


def load_head_pose_estimator(given: Path | None = None) -> HeadPoseEstimator:
    """Load the public weights.

    Args:
        given: The file; default: see `networks.weights.find_weights`.

    Raises:
        UserError: The file is missing, damaged, or another network's.
    """
    return load_into(HeadPoseEstimator(), find_weights("facevid2vid", given), "he_estimator.")
