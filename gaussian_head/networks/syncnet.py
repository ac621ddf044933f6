"""SyncNet (Chung and Zisserman 2016): five frames of lips and 0.2 s of sound into one space, near where they agree.

Written to load the published `syncnet_v2.model` as it is: its names, its shapes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gaussian_head.networks.weights import find_weights, load_into

SIDE = 224
"""Width and height of a picture of lips, px."""
FRAMES = 5
"""Pictures (25 a second) in one look."""
CEPSTRA, STEPS = 13, 20
"""Rows and columns (100 a second) of the sound that belongs to one look."""


class SyncNet(nn.Module):
    """Two encoders with the same 1024 outputs, not normalised: small distance where lips and sound agree."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_layer(nn.Conv2d(1, 64, 3, padding=1)),
            nn.Identity(),  # the published network pools 1 x 1 here; it holds the place in the numbering
            *_layer(nn.Conv2d(64, 192, 3, padding=1)),
            nn.MaxPool2d(3, stride=(1, 2)),
            *_layer(nn.Conv2d(192, 384, 3, padding=1)),
            *_layer(nn.Conv2d(384, 256, 3, padding=1)),
            *_layer(nn.Conv2d(256, 256, 3, padding=1)),
            nn.MaxPool2d(3, stride=2),
            *_layer(nn.Conv2d(256, 512, (5, 4))),
        )
        self.netfcaud = _head()
        self.netcnnlip = nn.Sequential(
            *_layer(nn.Conv3d(3, 96, (FRAMES, 7, 7), stride=(1, 2, 2))),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2)),
            *_layer(nn.Conv3d(96, 256, (1, 5, 5), stride=(1, 2, 2), padding=(0, 1, 1))),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
            *_layer(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            *_layer(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            *_layer(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2)),
            *_layer(nn.Conv3d(256, 512, (1, 6, 6))),
        )
        self.netfclip = _head()

    def encode_sound(self, mfcc: Float[Tensor, "B 1 13 20"]) -> Float[Tensor, "B 1024"]:
        """Encode 0.2 s of sound, `media.mfcc.extract_mfcc`'s rows and columns."""
        return self.netfcaud(self.netcnnaud(mfcc).flatten(1))

    def encode_lips(self, pictures: Float[Tensor, "B 3 5 224 224"]) -> Float[Tensor, "B 1024"]:
        """Encode five successive face pictures, BGR in 0..255 as they are (`evaluation.face_track.crop_face`)."""
        return self.netfclip(self.lip_features(pictures))

    def lip_features(self, pictures: Float[Tensor, "B 3 5 224 224"]) -> Float[Tensor, "B 512"]:
        """Return the features before the last two layers, which lip readers use."""
        return self.netcnnlip(pictures).flatten(1)


def load_syncnet(device: torch.device) -> SyncNet:
    """Return SyncNet with its public weights, ready to use.

    Raises:
        UserError: The weights are missing (WeightsMissingError), damaged, or another network's.
    """
    return load_into(SyncNet(), find_weights("syncnet")).to(device)


def _layer(convolution: nn.Conv2d | nn.Conv3d) -> tuple[nn.Module, nn.Module, nn.Module]:
    norm = nn.BatchNorm3d if isinstance(convolution, nn.Conv3d) else nn.BatchNorm2d
    return convolution, norm(convolution.out_channels), nn.ReLU(inplace=True)


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(inplace=True), nn.Linear(512, 1024))
