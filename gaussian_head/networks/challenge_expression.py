"""Transformer3DMM: the expression network of a ViCo 2023 challenge entry; its parameter names.

Two transformers read the same sequence (mel rows and the first frame's expression, which fades): one for the 51
numbers of the upper face, one for the 13 that move the lips. Source: specs/one_shot.md 7.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gaussian_head.networks.weights import find_weights, load_into

FRAMES = 90
"""Longest sequence, at 30 frames/s."""
MEL_BANDS, MEL_COLUMNS = 40, 5
EXPRESSION = 64
LOWER = (0, 1, 2, 3, 4, 5, 7, 9, 10, 11, 12, 13, 14)
"""Expression numbers that move the lips most."""
UPPER = tuple(number for number in range(EXPRESSION) if number not in LOWER)
_WIDTH = MEL_BANDS * MEL_COLUMNS + EXPRESSION


class ChallengeExpression(nn.Module):
    """Mel windows and the expression of the first frame -> expressions."""

    def __init__(self) -> None:
        super().__init__()
        self.init_encoding = Fading()
        self.pos_encoding = Position()
        self.transformer_upper = _transformer()
        self.transformer_lower = _transformer()
        self.upper_tail_fc = _tail(len(UPPER))
        self.lower_tail_fc = _tail(len(LOWER))

    def forward(self, mels: Float[Tensor, "B T 40 5"], first: Float[Tensor, "B 64"]) -> Float[Tensor, "B T 64"]:
        """Return expression coefficients.

        Args:
            mels: A window of the mel spectrogram per frame, bands first, -4..4; at most 90 frames.
            first: Expression coefficients of the first frame.
        """
        sequence = self.pos_encoding(torch.cat([mels.flatten(2), self.init_encoding(first, mels.shape[1])], 2))
        upper = self.upper_tail_fc(self.transformer_upper(sequence, sequence))
        lower = self.lower_tail_fc(self.transformer_lower(sequence, sequence))
        expression = upper.new_empty(*upper.shape[:2], EXPRESSION)
        expression[..., list(UPPER)], expression[..., list(LOWER)] = upper, lower
        return expression


class Fading(nn.Module):
    """Repeats the first frame's expression over time, weaker and weaker: half of it is left after 90 frames."""

    position: Tensor

    def __init__(self) -> None:
        super().__init__()
        weight = 1 - 0.5 * torch.arange(FRAMES) / FRAMES
        self.register_buffer("position", weight[:, None].repeat(1, EXPRESSION))

    def forward(self, first: Float[Tensor, "B 64"], frames: int) -> Float[Tensor, "B T 64"]:
        """Repeat."""
        return first[:, None] * self.position[:frames]


class Position(nn.Module):
    """Adds sines and cosines that tell the place in the sequence, then drops out at random (in training)."""

    pe: Tensor

    def __init__(self) -> None:
        super().__init__()
        time = torch.arange(FRAMES)[:, None]
        rates = torch.exp(torch.arange(0, _WIDTH, 2) * (-math.log(10000) / _WIDTH))
        waves = torch.stack([torch.sin(time * rates), torch.cos(time * rates)], -1)
        self.register_buffer("pe", waves.reshape(FRAMES, 1, _WIDTH))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Float[Tensor, "B T 264"]) -> Float[Tensor, "B T 264"]:
        """Add."""
        return self.dropout(x + self.pe[: x.shape[1], 0])


def _transformer() -> nn.Transformer:
    return nn.Transformer(_WIDTH, 4, num_encoder_layers=2, num_decoder_layers=2, dim_feedforward=2048, batch_first=True)


def _tail(outputs: int) -> nn.Sequential:
    half = _WIDTH // 2
    return nn.Sequential(nn.Linear(_WIDTH, half), nn.ReLU(), nn.Linear(half, half), nn.ReLU(), nn.Linear(half, outputs))


def load_challenge_expression(given: Path | None = None) -> ChallengeExpression:
    """Load weights of this network. The challenge entry's were never published: they must be trained or given.

    Args:
        given: The file; default: see `networks.weights.find_weights`.

    Raises:
        UserError: The file is missing, damaged, or another network's.
    """
    return load_into(ChallengeExpression(), find_weights("challenge_expression", given))
