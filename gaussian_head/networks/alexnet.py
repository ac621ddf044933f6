"""AlexNet's convolutions (Krizhevsky 2014, one weird trick), the eyes of LPIPS; torchvision's parameter names."""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from gaussian_head.networks.weights import find_weights, load_from_larger

SMALLEST_PX = 31
"""Below this side of the picture nothing is left for the last convolutions."""


class AlexNet(nn.Module):
    """The five convolutions, without the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(64, 192, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(192, 384, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, kernel_size=3, padding=1),
            nn.ReLU(),
        )

    def forward(self, pictures: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """Return what follows each of the five ReLUs: 64, 192, 384, 256, 256 channels.

        Args:
            pictures: RGB, standardised; at least 31 px on each side.
        """
        seen = []
        for layer in self.features:
            pictures = layer(pictures)
            if isinstance(layer, nn.ReLU):
                seen.append(pictures)
        return seen


def load_alexnet(given: Path | None = None) -> AlexNet:
    """Load torchvision's published weights; the classifier in the file is not used.

    Args:
        given: The file; default: see `networks.weights.find_weights`.

    Raises:
        WeightsMissingError: The file is not there.
        UserError: It is damaged, or not AlexNet's.
    """
    return load_from_larger(AlexNet, find_weights("alexnet", given), "torchvision's AlexNet")
