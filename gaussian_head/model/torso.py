"""The torso: Gaussians on a sheet where neck and shoulders are, moved by the head's pose.

They live in the torso frame: the head's frame (metres, y up, z out of the face) in the training frame of the most usual
pose. The camera stands still, so neither the torso frame nor what is drawn of it moves unless the head does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cuda_ext import Carrier, deform
from gaussian_head.model.gaussians import Gaussians
from gaussian_head.model.head import POSITION_SCALE, Deformed, Prepared
from gaussian_head.model.landmark_space import CODE_LIMIT, LEAST_POSE_SPREAD, METRES_PER_RADIAN
from gaussian_head.model.motion import MotionField

POSE_NUMBERS = 6
FREE = (1.0,) * 3 + (0.0,) * 7 + (1.0,) * 3
"""What the field changes: positions and colours. What swells behind the head would swell past it in another pose."""


@dataclass(frozen=True)
class TorsoModelConfig:
    """Size of the torso's networks; stored with the checkpoint."""

    gaussians: int
    """Number of Gaussians; it never changes."""
    hidden: int = 32
    """Width of the motion field."""
    resolutions: tuple[int, ...] = (16, 40)
    """Cells per axis of the field's grids."""
    bound_m: float = 0.25
    """Half width of the grids around the head's centre."""


class TorsoCondition(NamedTuple):
    """What one pose of the head asks of the torso."""

    code: Float[Tensor, " P"]
    """Rotation and translation from the usual pose, in standard deviations, softly limited."""
    motion: Float[Tensor, "4 4"]
    """Takes points that the head carries from the torso frame to where they are now."""


class Torso(nn.Module):
    """Neck and shoulders: the upper end of the neck goes with the head, its lower end stays, a field adds the rest."""

    def __init__(self, config: TorsoModelConfig, gaussians: Gaussians) -> None:
        """Make a torso that `fit_poses` or a checkpoint completes.

        Args:
            config: Sizes.
            gaussians: In the torso frame.
        """
        super().__init__()
        self.config = config
        self.gaussians = gaussians
        self.field = MotionField(POSE_NUMBERS, len(FREE), config.resolutions, config.hidden, config.bound_m)
        self.register_buffer("free", torch.tensor(FREE), persistent=False)
        self.register_buffer("viewmat", torch.eye(4))
        self.register_buffer("pose_mean", torch.zeros(POSE_NUMBERS))
        self.register_buffer("pose_spread", torch.ones(POSE_NUMBERS))
        self.register_buffer("neck", torch.tensor([0.0, 1.0]))

    def fit_poses(
        self, viewmats: Float[Tensor, "T 4 4"], usual: Float[Tensor, "4 4"], neck_m: tuple[float, float]
    ) -> None:
        """Learn what is usual from the training frames' poses.

        Args:
            viewmats: World-to-camera of the training frames.
            usual: Of them the one whose head frame is the torso frame: the torso's own, fixed, world-to-camera.
            neck_m: Height (y) at which the neck follows the head by half, and how much higher it follows by 0.73;
                metres.
        """
        self.viewmat.copy_(usual)
        self.neck.copy_(torch.tensor(neck_m))
        numbers = torch.stack([_pose_numbers(self._motion(viewmat)) for viewmat in viewmats.to(self.viewmat)])
        self.pose_mean.copy_(numbers.mean(0))
        self.pose_spread.copy_(numbers.std(0, correction=0).clamp_min(LEAST_POSE_SPREAD))

    def condition(self, viewmat: Float[Tensor, "4 4"]) -> TorsoCondition:
        """Turn the head's pose (world to camera, OpenCV axes) into what it asks of the torso."""
        motion = self._motion(viewmat.to(self.viewmat))
        code = (_pose_numbers(motion) - self.pose_mean) / self.pose_spread
        return TorsoCondition(CODE_LIMIT * torch.tanh(code / CODE_LIMIT), motion)

    def prepare(self) -> Prepared:
        """Compute what depends only on the Gaussians."""
        means = self.gaussians.means.detach()
        regions, logits = self.field.regions(means)
        middle, blend = self.neck
        gates = torch.sigmoid(logits[:, :1] + ((means[:, 1] - middle) / blend)[:, None])
        return Prepared(regions, gates, self.gaussians.opacities)

    def deform(self, prepared: Prepared, condition: TorsoCondition) -> Deformed:
        """Move the Gaussians as one pose asks; they stay in the torso frame, seen from `viewmat`."""
        g, motion = self.gaussians, condition.motion
        means = g.means.detach()
        carried = means @ motion[:3, :3].T + motion[:3, 3] - means
        own = torch.arange(len(g), device=means.device)[:, None]
        carriers = [Carrier(own, means.new_ones(len(g), 1), carried)]
        responses = [(self.field.expression(condition.code) * self.free, None)]
        stored = (g.means, g.quats, g.log_scales, g.sh0, g.shN)
        moved = deform(*stored, prepared.regions, prepared.gates, carriers, responses, POSITION_SCALE)
        return Deformed(moved.means, moved.quats, moved.scales, prepared.opacities, moved.sh, moved.change)

    def _motion(self, viewmat: Float[Tensor, "4 4"]) -> Float[Tensor, "4 4"]:
        return torch.linalg.inv(self.viewmat) @ viewmat


def _pose_numbers(motion: Float[Tensor, "4 4"]) -> Float[Tensor, "6"]:
    """Write a rigid motion as sines of its rotation about x, y and z, and as its translation in about radians."""
    skew = (motion[:3, :3] - motion[:3, :3].T) / 2
    turn = torch.stack([skew[2, 1], skew[0, 2], skew[1, 0]])
    return torch.cat([turn, motion[:3, 3] / METRES_PER_RADIAN])
