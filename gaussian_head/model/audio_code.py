"""What a motion field hears, the published way: eight frames of audio features become one code.

After AD-NeRF's audio network as the field's Gaussian heads use it (specs/gaussian_head.md e.1); the numbers of layers,
channels and weights are theirs, and so is what is heard: four frames before, the frame itself, three after.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

PAST, AHEAD = 4, 3
"""Frames before and after the current one that are heard."""
WINDOW = PAST + 1 + AHEAD
STEPS = 16
"""Of each frame's features, the first steps that are heard."""
SIZE = 32
"""Numbers in a code."""
SLOPE = 0.02


class AudioCode(nn.Module):
    """Encodes each of WINDOW frames by convolutions over its steps, and averages the codes as attention tells."""

    def __init__(self, audio_shape: tuple[int, int]) -> None:
        """Make an encoder of features with this window length and width (of which up to STEPS steps are used)."""
        super().__init__()
        channels = (audio_shape[1], 32, 32, 64, 64)
        self.steps = nn.Sequential(*(
            layer
            for a, b in zip(channels[:-1], channels[1:], strict=True)
            for layer in (nn.Conv1d(a, b, 3, stride=2, padding=1), nn.LeakyReLU(SLOPE))
        ))  # fmt: skip
        self.frame = nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(SLOPE), nn.Linear(64, SIZE))
        narrowing = (SIZE, 16, 8, 4, 2, 1)
        self.attention = nn.Sequential(*(
            layer
            for a, b in zip(narrowing[:-1], narrowing[1:], strict=True)
            for layer in (nn.Conv1d(a, b, 3, padding=1), nn.LeakyReLU(SLOPE))
        ))  # fmt: skip
        self.share = nn.Sequential(nn.Linear(WINDOW, WINDOW), nn.Softmax(0))

    def forward(self, windows: Float[Tensor, "8 W C"]) -> Float[Tensor, " 32"]:
        """Encode one video frame's sound: the features of the frames around it, as `audio_windows` cuts them."""
        codes = self.frame(self.steps(windows[:, :STEPS].mT)[..., 0])  # [8, 32]
        return self.share(self.attention(codes.T[None]).flatten()) @ codes


def audio_windows(
    features: Float[np.ndarray, "T W C"], start: int = 0, stop: int | None = None
) -> Float[Tensor, "R 8 W C"]:
    """Lay the features of the frames around each frame side by side; beyond the recording's ends there are zeros.

    Args:
        features: Of the whole recording, a row for each video frame.
        start: First frame wanted.
        stop: One after the last; None: all.

    Returns:
        A view of one float32 copy of the features: eight times as many numbers, no more memory.
    """
    stop = len(features) if stop is None else stop
    first, last = max(0, start - PAST), min(len(features), stop + AHEAD)
    around = ((PAST - (start - first), AHEAD - (last - stop)), (0, 0), (0, 0))
    heard = np.pad(np.asarray(features[first:last], np.float32), around)  # a copy: features may not be writable
    return torch.from_numpy(heard).unfold(0, WINDOW, 1).movedim(-1, 1)
