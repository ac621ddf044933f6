"""What Wav2Lip's networks and SadTalker's expression network are built of; their parameter names.

Source: specs/one_shot.md 3.1, 6.1 (Prajwal et al. 2020).
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

SPEECH_FEATURES = 512
MEL_BANDS, MEL_COLUMNS = 80, 16
"""Size of the window that `speech_encoder` reads."""


class Convolution(nn.Module):
    """Convolution, batch normalisation, ReLU; with `residual` the input is added before the ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int = 3,
        stride: int | tuple[int, int] = 1,
        padding: int = 1,
        *,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(nn.Conv2d(inputs, outputs, size, stride, padding), nn.BatchNorm2d(outputs))
        self.residual = residual

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H2 W2"]:
        """Convolve."""
        y = self.conv_block(x)
        return (y + x if self.residual else y).relu()


def speech_encoder() -> nn.Sequential:
    """Return the network from mel windows [B, 1, 80, 16] (values -4..4, bands first) to features [B, 512, 1, 1]."""
    return nn.Sequential(
        Convolution(1, 32),
        Convolution(32, 32, residual=True),
        Convolution(32, 32, residual=True),
        Convolution(32, 64, stride=(3, 1)),
        Convolution(64, 64, residual=True),
        Convolution(64, 64, residual=True),
        Convolution(64, 128, stride=3),
        Convolution(128, 128, residual=True),
        Convolution(128, 128, residual=True),
        Convolution(128, 256, stride=(3, 2)),
        Convolution(256, 256, residual=True),
        Convolution(256, 512, padding=0),
        Convolution(512, 512, 1, padding=0),
    )
