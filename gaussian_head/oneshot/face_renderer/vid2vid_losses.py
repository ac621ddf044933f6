"""What face-vid2vid is trained by, beside a perceptual loss (Wang et al. 2021, section 3.3 and appendix A).

Key points are (x, y, z), the picture's half side = 1, y down. Weights of the sum are the training's affair; the paper's
are perceptual 10, adversarial 1, equivariance 20, key-point prior 10, head pose 20, deformation prior 5.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import grid_sample, instance_norm, interpolate, leaky_relu

from gaussian_head.networks.vid2vid_blocks import SpectralConvolution
from gaussian_head.networks.vid2vid_motion import HeadMotion, degrees

LEAST_DISTANCE = 0.1
"""Key points may be this near each other before the prior pushes them apart; the paper's squared distance."""
DEPTH = 0.33
"""The paper's mean of all key points' z."""


class RandomWarp:
    """A random affine map and thin-plate spline of the plane for each picture of a batch (as Siarohin et al. 2019)."""

    def __init__(
        self,
        batch: int,
        generator: torch.Generator,
        *,
        affine: float | int = 0.05,
        bend: float | int = 0.005,
        controls: int = 5,
        like: Tensor | None = None,
    ) -> None:
        """Draw.

        Args:
            batch: B.
            generator: Of random numbers, on the CPU.
            affine: Standard deviation of each number of the affine maps from those of the identity.
            bend: Likewise of the spline's weights; 0: affine maps.
            controls: Points along a side from which the spline bends.
            like: On whose device and in whose type to compute.
        """
        like = torch.empty(0) if like is None else like
        noise = torch.randn(batch, 2, 3, generator=generator) * affine
        self.affine = (torch.eye(2, 3) + noise).to(like)
        side = torch.linspace(-1, 1, controls)
        self.controls = torch.cartesian_prod(side, side).to(like)
        self.weights = (torch.randn(batch, controls**2, generator=generator) * bend).to(like)

    def points(self, points: Float[Tensor, "B N 2"]) -> Float[Tensor, "B N 2"]:
        """Return where points (x, y) of the warped picture lie in the picture."""
        moved = points @ self.affine[:, :, :2].mT + self.affine[:, None, :, 2]
        squared = ((points[:, :, None] - self.controls) ** 2).sum(3)
        # r^2 log r, which is 0 at 0; both coordinates bend alike
        return moved + ((squared * (squared + 1e-6).log() / 2) @ self.weights[:, :, None])

    def pictures(self, pictures: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Warp pictures; what lies outside mirrors them."""
        height, width = pictures.shape[2:]
        y, x = (torch.linspace(-1, 1, size, device=pictures.device, dtype=pictures.dtype) for size in (height, width))
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)
        grid = self.points(grid.expand(len(pictures), -1, -1)).unflatten(1, (height, width))
        return grid_sample(pictures, grid, padding_mode="reflection", align_corners=True)


def equivariance_loss(
    find: Callable[[Float[Tensor, "B 3 H W"]], Float[Tensor, "B points 3"]],
    pictures: Float[Tensor, "B 3 H W"],
    points: Float[Tensor, "B points 3"],
    warp: RandomWarp,
) -> Float[Tensor, ""]:
    """Return how far the points of warped pictures are from being warped likewise: mean |x|, |y|.

    Args:
        find: Pictures -> their key points, pose and expression included.
        pictures: RGB in [0, 1].
        points: What `find` gives for them; the depth is not compared, for the warp has none.
        warp: A new one for each batch.
    """
    found = find(warp.pictures(pictures))[..., :2]
    return (points[..., :2] - warp.points(found)).abs().mean()


def keypoint_prior_loss(
    points: Float[Tensor, "B points 3"], least: float = LEAST_DISTANCE, depth: float = DEPTH
) -> Float[Tensor, ""]:
    """Return what is wrong with canonical key points: nearer than allowed, and at another mean depth (appendix A.2).

    Args:
        points: Of the face without pose and expression.
        least: Squared distance from which on two points are far enough from each other.
        depth: That the mean of z ought to have.
    """
    squared = ((points[:, :, None] - points[:, None]) ** 2).sum(3)
    near = (least - squared).relu()
    # a point's distance from itself does not count
    crowded = (near.sum((1, 2)) - least * points.shape[1]).mean()
    return crowded + (points[..., 2].mean(1) - depth).abs().mean()


def deformation_prior_loss(deformation: Float[Tensor, "B points 3"]) -> Float[Tensor, ""]:
    """Return how large the deformations are, the L1 norm over the points: expression ought to explain little."""
    return deformation.abs().sum((1, 2)).mean()


def head_pose_loss(motion: HeadMotion, angles_deg: Float[Tensor, "B 3"]) -> Float[Tensor, ""]:
    """Return the absolute errors of yaw, pitch and roll in degrees, summed, their mean over the batch.

    Args:
        motion: What the network says.
        angles_deg: Yaw, pitch, roll as another estimator sees them.
    """
    return (torch.stack([degrees(scores) for scores in motion[:3]], 1) - angles_deg).abs().sum(1).mean()


class PatchDiscriminator(nn.Module):
    """A picture -> how real each patch looks (Isola et al. 2017), with what was seen on the way."""

    def __init__(self, width: int = 64, widest: int = 512, blocks: int = 4) -> None:
        super().__init__()
        widths = [3, *(min(widest, width * 2**i) for i in range(blocks))]
        self.down_blocks = nn.ModuleList(
            SpectralConvolution(widths[i], widths[i + 1], 4, stride=2 if i < blocks - 1 else 1) for i in range(blocks)
        )
        self.conv = SpectralConvolution(widths[-1], 1, 3)

    def forward(self, pictures: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Return the features of each block and, last, the scores."""
        seen = []
        x = pictures
        for i, block in enumerate(self.down_blocks):
            x = block(x)
            # the first sees colours, whose mean and contrast matter
            x = leaky_relu(instance_norm(x) if i else x, 0.2)
            seen.append(x)
        return [*seen, self.conv(x)]


class MultiScaleDiscriminator(nn.Module):
    """Patch discriminators of a picture at several sizes (Wang et al. 2018)."""

    def __init__(self, scales: int = 2, width: int = 64, widest: int = 512, blocks: int = 4) -> None:
        """Build.

        Args:
            scales: How many sizes, each half of the one before.
            width: Channels after the first block; each block doubles them.
            widest: The most channels.
            blocks: Convolutions before the scores; all but the last halve the size.
        """
        super().__init__()
        self.discs = nn.ModuleList(PatchDiscriminator(width, widest, blocks) for _ in range(scales))

    def forward(self, pictures: Float[Tensor, "B 3 H W"]) -> list[list[Tensor]]:
        """Return, for each size, what `PatchDiscriminator` gives."""
        sizes = [pictures]
        while len(sizes) < len(self.discs):
            sizes.append(interpolate(sizes[-1], scale_factor=0.5, mode="bilinear", antialias=True))
        return [judge(size) for judge, size in zip(self.discs, sizes, strict=True)]


def discriminator_hinge_loss(real: list[list[Tensor]], made: list[list[Tensor]]) -> Float[Tensor, ""]:
    """Return the discriminator's loss: real scores ought to be above 1, those of made pictures below -1."""
    losses = [(1 - r[-1]).relu().mean() + (1 + m[-1]).relu().mean() for r, m in zip(real, made, strict=True)]
    return torch.stack(losses).mean()


def generator_hinge_loss(made: list[list[Tensor]]) -> Float[Tensor, ""]:
    """Return the generator's loss: scores ought to be high."""
    return torch.stack([-scores[-1].mean() for scores in made]).mean()


def feature_matching_loss(real: list[list[Tensor]], made: list[list[Tensor]]) -> Float[Tensor, ""]:
    """Return the mean absolute difference of what the discriminator saw; no gradient flows to the real side."""
    pairs = [pair for r, m in zip(real, made, strict=True) for pair in zip(r[:-1], m[:-1], strict=True)]
    return torch.stack([(a.detach() - b).abs().mean() for a, b in pairs]).mean()
