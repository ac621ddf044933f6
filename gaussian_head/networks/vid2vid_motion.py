"""How a face moves in face-vid2vid: coefficients -> head pose and deformation -> key points.

The mapping network is SadTalker's (Zhang et al. 2023), the key points are those of Wang et al. 2021, section 3.
Source: specs/one_shot.md 4.1-4.3.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gaussian_head.networks.vid2vid_blocks import PUBLISHED, Vid2VidSize

PI = 3.14
"""What the networks were trained with: SadTalker turns degrees into radians by this."""
DEGREES_PER_BIN = 3
FIRST_BIN_DEG = -99


class HeadMotion(NamedTuple):
    """How a head is turned, moved and deformed, as the networks say it."""

    yaw: Float[Tensor, "B bins"]
    """Scores of the bins of 3 degrees from -99 on, here and in the next two."""
    pitch: Float[Tensor, "B bins"]
    roll: Float[Tensor, "B bins"]
    translation: Float[Tensor, "B 3"]
    """Along (x, y, z), the picture's half side = 1."""
    deformation: Float[Tensor, "B points 3"]
    """What expression adds to each key point, likewise."""


class MappingNet(nn.Module):
    """Windows of coefficients -> motion of the head."""

    def __init__(self, coefficients: int = 70, size: Vid2VidSize = PUBLISHED) -> None:
        """Build.

        Args:
            coefficients: 70 (expression 64, angles 3, translation 3), or 73 with the crop's 3.
            size: Of the networks.
        """
        super().__init__()
        self.coefficients = coefficients
        wide = size.descriptor
        self.first = nn.Sequential(nn.Conv1d(coefficients, wide, 7))
        for i in range(3):
            # the published name counts an activation before the convolution
            self.add_module(f"encoder{i}", nn.Sequential(nn.LeakyReLU(0.1), nn.Conv1d(wide, wide, 3, dilation=3)))
        self.fc_roll, self.fc_pitch, self.fc_yaw = (nn.Linear(wide, size.bins) for _ in range(3))
        self.fc_t = nn.Linear(wide, 3)
        self.fc_exp = nn.Linear(wide, 3 * size.points)

    def forward(self, windows: Float[Tensor, "B M 27"]) -> HeadMotion:
        """Return the motion of each window's middle frame."""
        x = self.first(windows)
        for encode in (self.encoder0, self.encoder1, self.encoder2):
            x = encode(x) + x[:, :, 3:-3]
        x = x.mean(2)
        return HeadMotion(
            self.fc_yaw(x), self.fc_pitch(x), self.fc_roll(x), self.fc_t(x), self.fc_exp(x).unflatten(1, (-1, 3))
        )


class FreeView(NamedTuple):
    """Angles that stand for a motion's own, in degrees; None: the motion's own."""

    yaw_deg: Float[Tensor, "B"] | None = None
    pitch_deg: Float[Tensor, "B"] | None = None
    roll_deg: Float[Tensor, "B"] | None = None


OWN_ANGLES = FreeView()


def degrees(scores: Float[Tensor, "B bins"]) -> Float[Tensor, "B"]:
    """Return the angle that scores of bins expect."""
    bins = torch.arange(scores.shape[1], device=scores.device, dtype=scores.dtype)
    return (scores.softmax(1) * bins).sum(1) * DEGREES_PER_BIN + FIRST_BIN_DEG


def rotation_matrices(
    yaw_deg: Float[Tensor, "B"], pitch_deg: Float[Tensor, "B"], roll_deg: Float[Tensor, "B"]
) -> Float[Tensor, "B 3 3"]:
    """Return R = Rx(pitch) Ry(yaw) Rz(roll), for columns (x, y, z)."""
    one, zero = torch.ones_like(yaw_deg), torch.zeros_like(yaw_deg)

    def matrices(*rows: Tensor) -> Tensor:
        return torch.stack(rows, 1).unflatten(1, (3, 3))

    (cx, sx), (cy, sy), (cz, sz) = (
        ((angle / 180 * PI).cos(), (angle / 180 * PI).sin()) for angle in (pitch_deg, yaw_deg, roll_deg)
    )
    about_x = matrices(one, zero, zero, zero, cx, -sx, zero, sx, cx)
    about_y = matrices(cy, zero, sy, zero, one, zero, -sy, zero, cy)
    about_z = matrices(cz, -sz, zero, sz, cz, zero, zero, zero, one)
    return about_x @ about_y @ about_z


def move_points(
    canonical: Float[Tensor, "#B points 3"],
    motion: HeadMotion,
    view: FreeView = OWN_ANGLES,
    *,
    vertical_only: bool = True,
    deform: bool = True,
) -> Float[Tensor, "B points 3"]:
    """Turn, move and deform a face's key points: R p + t + d. Nothing is changed in place.

    Args:
        canonical: Key points of the face itself.
        motion: Of each frame.
        view: Angles instead of the motion's own.
        vertical_only: Leave out the translation in x and z, as SadTalker does; the paper does not.
        deform: Add the deformation.
    """
    yaw, pitch, roll = (
        degrees(scores) if given is None else given for scores, given in zip(motion[:3], view, strict=True)
    )
    translation = motion.translation
    if vertical_only:
        translation = translation * translation.new_tensor([0, 1, 0])
    moved = canonical @ rotation_matrices(yaw, pitch, roll).mT + translation[:, None]
    return moved + motion.deformation if deform else moved
