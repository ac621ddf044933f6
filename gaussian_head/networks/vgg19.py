"""VGG-19's convolutions (Simonyan and Zisserman 2015), the eyes of PIRender's losses; torchvision's parameter names."""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from gaussian_head.networks.weights import find_weights, load_from_larger

CHANNELS = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,))
"""Of the convolutions before each pooling; the three that follow `relu5_1` are left out."""
SMALLEST_PX = 16
"""Below this side of the picture nothing is left for the last convolution."""


class Vgg19(nn.Module):
    """The convolutions up to `conv5_1`."""

    def __init__(self) -> None:
        super().__init__()
        layers, inputs = [], 3
        for stage, widths in enumerate(CHANNELS):
            if stage:
                layers.append(nn.MaxPool2d(2))
            for outputs in widths:
                layers += [nn.Conv2d(inputs, outputs, kernel_size=3, padding=1), nn.ReLU()]
                inputs = outputs
        self.features = nn.Sequential(*layers)

    def forward(self, pictures: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """Return `relu1_1`, `relu2_1`, `relu3_1`, `relu4_1`, `relu5_1`: 64, 128, 256, 512, 512 channels.

        Args:
            pictures: RGB, standardised; at least 16 px on each side.
        """
        seen, opens_stage = [], True
        for layer in self.features:
            pictures = layer(pictures)
            if isinstance(layer, nn.ReLU) and opens_stage:
                seen.append(pictures)
                opens_stage = False
            opens_stage = opens_stage or isinstance(layer, nn.MaxPool2d)
        return seen


def load_vgg19(given: Path | None = None) -> Vgg19:
    """Load torchvision's published weights; the deeper convolutions and the classifier in the file are not used.

    Args:
        given: The file; default: see `networks.weights.find_weights`.

    Raises:
        WeightsMissingError: The file is not there.
        UserError: It is damaged, or not VGG-19's.
    """
    return load_from_larger(Vgg19, find_weights("vgg19", given), "torchvision's VGG-19")
