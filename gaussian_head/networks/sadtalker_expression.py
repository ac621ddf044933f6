"""SadTalker's expression network (ExpNet; Zhang et al. 2023): sound and a face at rest -> 64 numbers; its names.

Each frame stands alone: one linear layer mixes what is heard with the reference expression and how far the eyes are
closed. Source: specs/one_shot.md 3.1.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gaussian_head.networks.wav2lip_blocks import SPEECH_FEATURES, speech_encoder
from gaussian_head.networks.weights import find_weights, load_into

EXPRESSION = 64
PREFIX = "audio2exp."
"""Where SadTalker's safetensors files hold this network."""


class ExpressionNetwork(nn.Module):
    """Mel windows, reference expressions and blinks -> expressions."""

    def __init__(self) -> None:
        super().__init__()
        self.audio_encoder = speech_encoder()
        self.mapping1 = nn.Linear(SPEECH_FEATURES + EXPRESSION + 1, EXPRESSION)

    def forward(
        self,
        mels: Float[Tensor, "T 1 80 16"],
        reference: Float[Tensor, "T 64"],
        blink: Float[Tensor, "T 1"],
    ) -> Float[Tensor, "T 64"]:
        """Return expression coefficients.

        Args:
            mels: A window of the mel spectrogram per frame, bands first, -4..4.
            reference: Expression coefficients of the portrait, or of a video whose eyes are followed.
            blink: How far the eyes are closed, 0..1.
        """
        return self.mapping1(torch.cat([self.features(mels), reference, blink], 1))

    def features(self, mels: Float[Tensor, "T 1 80 16"]) -> Float[Tensor, "T 512"]:
        """Return what is heard."""
        return self.audio_encoder(mels).flatten(1)


def load_expression_network(given: Path | None = None) -> ExpressionNetwork:
    """Load the public weights: a safetensors file of SadTalker, or its older `auido2exp_00300-model.pth`.

    Args:
        given: The file; default: see `networks.weights.find_weights`.

    Raises:
        UserError: The file is missing, damaged, or another network's.
    """
    return load_into(ExpressionNetwork(), find_weights("sadtalker_expression", given), PREFIX)
