"""Wav2Lip's expert: do these lips go with this sound? Its parameter names (`lipsync_expert.pth`).

A SyncNet (Chung and Zisserman 2016) on colour pictures; it judges, frozen, while the generator learns.
Source: specs/one_shot.md 6.1.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from gaussian_head.networks.wav2lip_blocks import Convolution, speech_encoder
from gaussian_head.networks.weights import find_weights, load_into

FRAMES = 5
"""Frames it looks at, at 25 a second: as long as the 16 mel columns it hears."""


class SyncExpert(nn.Module):
    """Sound and lower halves of faces -> directions in one space, near each other where they fit."""

    def __init__(self, width: int = 32) -> None:
        """Build the network; `width`: channels of the first layers, in the published network 32."""
        super().__init__()
        w = width
        layers = [Convolution(3 * FRAMES, w, 7, padding=3), Convolution(w, 2 * w, 5, stride=(1, 2))]
        layers += [Convolution(2 * w, 2 * w, residual=True) for _ in range(2)]
        for inputs, residuals in ((2 * w, 3), (4 * w, 2), (8 * w, 2)):
            layers.append(Convolution(inputs, 2 * inputs, stride=2))
            layers += [Convolution(2 * inputs, 2 * inputs, residual=True) for _ in range(residuals)]
        deepest = 16 * w
        layers += [Convolution(deepest, deepest, stride=2), Convolution(deepest, deepest, padding=0)]
        layers.append(Convolution(deepest, deepest, 1, padding=0))
        self.face_encoder = nn.Sequential(*layers)
        self.audio_encoder = speech_encoder(w, residuals_at_3=2)

    def forward(
        self, speech: Float[Tensor, "B 1 80 16"], lips: Float[Tensor, "B 15 48 96"]
    ) -> tuple[Float[Tensor, "B F"], Float[Tensor, "B F"]]:
        """Return the directions (of length 1, no negative entries) of sound and of lips.

        Args:
            speech: Mel windows (`media.wav2lip_mel`), bands first.
            lips: Lower halves of FRAMES frames, BGR in [0, 1], the first frame's channels first.
        """
        heard = self.audio_encoder(speech).flatten(1)
        seen = self.face_encoder(lips).flatten(1)
        return F.normalize(heard), F.normalize(seen)


def agreement(expert: SyncExpert, speech: Float[Tensor, "B 1 80 16"], clips: Float[Tensor, "B 3 T 96 96"]) -> Tensor:
    """Return the cosine [B], 0..1, between speech and the lower halves of whole faces, BGR in [0, 1]."""
    lower = clips[:, :, :, clips.shape[3] // 2 :]
    heard, seen = expert(speech, lower.transpose(1, 2).flatten(1, 2))
    return (heard * seen).sum(1)


def sync_loss(cosine: Float[Tensor, "B"], together: Float[Tensor, "B"] | None = None) -> Float[Tensor, ""]:
    """Return the mean binary cross-entropy of cosines.

    Args:
        cosine: From `agreement`.
        together: 1 where sound and lips are of one moment, 0 where not; default: all are.
    """
    together = torch.ones_like(cosine) if together is None else together
    # rounding may carry a cosine over 1, where the logarithm has no value
    return F.binary_cross_entropy(cosine.clamp(0, 1), together)


def load_expert(given: Path | None = None) -> SyncExpert:
    """Load the public weights, or weights trained here.

    Args:
        given: The file; default: see `networks.weights.find_weights`.

    Raises:
        UserError: The file is missing (WeightsMissingError), damaged, or another network's.
    """
    return load_into(SyncExpert(), find_weights("wav2lip_expert", given), prefix="module.")
