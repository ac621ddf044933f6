"""How unlike two pictures look: the loss that face renderers learn from, with whatever eyes are at hand.

`vgg19` is what PIRender and face-vid2vid were trained with (specs/vico.md 7.4); it and `alexnet` need published
weights. `pyramid` needs none: colours and edges at several sizes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from gaussian_head.networks import alexnet, vgg19
from gaussian_head.networks.weights import WeightsMissingError

Eyes = Literal["auto", "vgg19", "alexnet", "pyramid"]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's RGB in [0, 1]."""
SCALES = 4
"""Sizes at which pictures are compared: the whole and its halves."""

logger = logging.getLogger(__name__)


class FeatureLoss(nn.Module):
    """Mean absolute difference of a network's features, at several sizes; and of their Gram matrices at the first."""

    def __init__(
        self,
        network: Callable[[Float[Tensor, "B 3 H W"]], list[Tensor]],
        smallest_px: int,
        gram_weight: float | int = 0.0,
        scales: int = SCALES,
    ) -> None:
        """Compare by a network.

        Args:
            network: Standardised RGB -> features of several depths; frozen.
            smallest_px: Least width and height that it takes; smaller sizes are left out.
            gram_weight: Of the Gram matrices' difference, which says that textures are alike wherever they are.
            scales: How many sizes.
        """
        super().__init__()
        self.network, self.smallest_px = network, smallest_px
        self.gram_weight, self.scales = gram_weight, scales
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)

    def forward(self, found: Float[Tensor, "B 3 H W"], wanted: Float[Tensor, "B 3 H W"]) -> Float[Tensor, ""]:
        """Compare pictures, RGB in [-1, 1]; only `found` is learnt from.

        Raises:
            ValueError: The pictures are too small for the network.
        """
        if min(found.shape[2:]) < self.smallest_px:
            raise ValueError(f"pictures must be {self.smallest_px} px or more, got {list(found.shape[2:])}.")
        loss = found.new_zeros(())
        for scale, (small, goal) in enumerate(_halves(found, wanted.detach(), self.scales, self.smallest_px)):
            seen = self.network(self._standardise(small))
            with torch.no_grad():
                goals = self.network(self._standardise(goal))
            for features, goal_features in zip(seen, goals, strict=True):
                loss = loss + (features - goal_features).abs().mean()
                if scale == 0 and self.gram_weight:
                    loss = loss + self.gram_weight * (gram(features) - gram(goal_features)).abs().mean()
        return loss

    def _standardise(self, pictures: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        return ((pictures + 1) / 2 - self.mean) / self.std


class PyramidLoss(nn.Module):
    """Mean absolute difference of colours and of their steps to the right and downwards, at several sizes."""

    def __init__(self, scales: int = SCALES) -> None:
        super().__init__()
        self.scales = scales

    def forward(self, found: Float[Tensor, "B 3 H W"], wanted: Float[Tensor, "B 3 H W"]) -> Float[Tensor, ""]:
        """Compare pictures, RGB in [-1, 1]."""
        loss = found.new_zeros(())
        for small, goal in _halves(found, wanted.detach(), self.scales, smallest_px=2):
            error = small - goal
            loss = loss + error.abs().mean() + error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        return loss


def gram(features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C C"]:
    """Return how often channels are high together, whatever the place; divided by the number of values."""
    flat = features.flatten(2)
    return flat @ flat.mT / (flat.shape[1] * flat.shape[2])


def choose_perceptual_loss(eyes: Eyes = "auto", gram_weight: float | int = 0.0) -> FeatureLoss | PyramidLoss:
    """Return a loss; `auto` is the first of vgg19, alexnet, pyramid whose weights are here, and the log says which.

    Args:
        eyes: What compares.
        gram_weight: See `FeatureLoss`; `pyramid` has no features and leaves it out.

    Raises:
        WeightsMissingError: The weights of the network named are not here.
        UserError: They are damaged, or another network's.
    """
    if eyes == "vgg19":
        return FeatureLoss(vgg19.load_vgg19(), vgg19.SMALLEST_PX, gram_weight)
    if eyes == "alexnet":
        return FeatureLoss(alexnet.load_alexnet(), alexnet.SMALLEST_PX, gram_weight)
    if eyes == "pyramid":
        return PyramidLoss()
    for name in ("vgg19", "alexnet"):
        try:
            loss = choose_perceptual_loss(name, gram_weight)
        except WeightsMissingError as error:
            logger.info("perceptual loss: not %s (%s)", name, error)
        else:
            logger.info("perceptual loss: %s", name)
            return loss
    logger.info("perceptual loss: pyramid, which needs no weights; pictures come out softer than with a network")
    return PyramidLoss()


def _halves(
    found: Tensor, wanted: Tensor, scales: int, smallest_px: int
) -> list[tuple[Float[Tensor, "B 3 _ _"], Float[Tensor, "B 3 _ _"]]]:
    """Return both at their size, at half, at a quarter ..., as long as they are large enough."""
    pairs = [(found, wanted)]
    while len(pairs) < scales and min(pairs[-1][0].shape[2:]) // 2 >= smallest_px:
        pairs.append(tuple(interpolate(picture, scale_factor=0.5, mode="bilinear") for picture in pairs[-1]))
    return pairs
