"""Deep3DFaceRecon's regressor (Deng et al. 2019): a face -> 257 numbers of a morphable model; its parameter names.

The five points by which a picture is aligned first are in `geometry.face_alignment`. Source: specs/one_shot.md 0, 1.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray
from torch import Tensor, nn

from gaussian_head.networks.resnet import ResNet
from gaussian_head.networks.weights import find_weights, load_into

WIDTHS = (80, 64, 80, 3, 27, 2, 1)
"""Identity, expression, texture, angle, light, shift in the picture's plane, shift in depth."""
COEFFICIENTS = sum(WIDTHS)
SADTALKER_PREFIX = "face_3drecon."
"""Where SadTalker's safetensors files hold this network."""


class CoefficientRegressor(nn.Module):
    """RGB in [0, 1], not standardised -> 257 coefficients."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ResNet(50)
        self.final_layers = nn.ModuleList([nn.Conv2d(2048, width, 1) for width in WIDTHS])

    def forward(self, faces: Float[Tensor, "B 3 224 224"]) -> Float[Tensor, "B 257"]:
        """Return identity 80, expression 64, texture 80, angle 3 (rad), light 27, translation 3."""
        features = self.features(faces)[:, :, None, None]
        return torch.cat([layer(features) for layer in self.final_layers], 1).flatten(1)

    def features(self, faces: Float[Tensor, "B 3 224 224"]) -> Float[Tensor, "B 2048"]:
        """Return what the coefficients are read from."""
        return self.backbone(faces)[-1].mean((2, 3))


@torch.inference_mode()
def regress(
    network: CoefficientRegressor, faces: Iterable[UInt8[ndarray, "224 224 3"]], batch: int = 16
) -> Float32[ndarray, "T 257"]:
    """Show pictures to the network, some at a time.

    Args:
        network: Ready to use.
        faces: Aligned (`geometry.face_alignment.cut_aligned`), RGB, 0..255; one at least. Never held all at once.
        batch: How many at a time; the result does not depend on it.
    """
    rows = []
    for part in _batches(faces, batch):
        pictures = torch.from_numpy(np.stack(part)).permute(0, 3, 1, 2).float() / 255
        rows.append(network(pictures).numpy())
    return np.concatenate(rows)


def _batches(items: Iterable[ndarray], size: int) -> Iterator[list[ndarray]]:
    items = iter(items)
    for first in items:
        yield list(chain([first], islice(items, size - 1)))


def load_coefficient_regressor(given: Path | None = None) -> CoefficientRegressor:
    """Load the public weights: Deep3D's `epoch_20.pth`, or a file of SadTalker that holds them.

    Args:
        given: The file; default: see `networks.weights.find_weights`.

    Raises:
        UserError: The file is missing, damaged, or another network's.
    """
    return load_into(CoefficientRegressor(), find_weights("deep3d", given), SADTALKER_PREFIX)
