"""LSTMStepwiseFusion: the head-pose network of a ViCo 2023 challenge entry; its parameter names.

Four LSTM layers start from the first frame's pose and are driven by expression and sound. Its published sizes were
inferred (the configuration is lost). Source: specs/one_shot.md 7; specs/vico.md 4 (the network it is made from).
"""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from gaussian_head.networks.challenge_expression import EXPRESSION, MEL_BANDS, MEL_COLUMNS
from gaussian_head.networks.weights import find_weights, load_into

POSE = 9
"""Angles 3 (rad), translation 3, crop 3."""
DRIVEN = EXPRESSION + MEL_BANDS * MEL_COLUMNS
_LAYERS, _HIDDEN = 4, 96


class ChallengePose(nn.Module):
    """First pose, expressions and mel windows -> poses."""

    def __init__(self) -> None:
        super().__init__()
        self.initial_fc = nn.Sequential(
            nn.LayerNorm(POSE), nn.Linear(POSE, POSE), nn.Tanh(), nn.Linear(POSE, 2 * _LAYERS * _HIDDEN)
        )
        self.fusion_fc = nn.Sequential(nn.LayerNorm(DRIVEN), nn.Linear(DRIVEN, 2 * _HIDDEN), nn.Tanh())
        self.lstm_layers = nn.LSTM(2 * _HIDDEN, _HIDDEN, _LAYERS, bias=False, batch_first=True, dropout=0.1)
        self.dynam_3dmm_fc = nn.Linear(_HIDDEN, POSE)

    def forward(self, first: Float[Tensor, "B 9"], driven: Float[Tensor, "B T 264"]) -> Float[Tensor, "B T 9"]:
        """Return poses.

        Args:
            first: Pose of the first frame.
            driven: Expression coefficients 64 and a mel window (40 bands x 5 columns, -4..4) per frame.
        """
        state = self.initial_fc(first).reshape(len(first), 2, _LAYERS, _HIDDEN).permute(1, 2, 0, 3)
        hidden, _ = self.lstm_layers(self.fusion_fc(driven), tuple(state.contiguous()))
        return self.dynam_3dmm_fc(hidden)


def load_challenge_pose(given: Path | None = None) -> ChallengePose:
    """Load weights of this network. The challenge entry's were never published: they must be trained or given.

    Args:
        given: The file; default: see `networks.weights.find_weights`.

    Raises:
        UserError: The file is missing, damaged, or another network's.
    """
    return load_into(ChallengePose(), find_weights("challenge_pose", given))
