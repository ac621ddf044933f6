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


def speech_encoder(width: int = 32, residuals_at_3: int = 1) -> nn.Sequential:
    """Return the network from mel windows [B, 1, 80, 16] (values -4..4, bands first) to features [B, F, 1, 1].

    Args:
        width: Channels of the first layer; F is 16 times as many, in the published networks SPEECH_FEATURES.
        residuals_at_3: Residual blocks at 3 x 3; Wav2Lip's expert has two.
    """
    layers = [Convolution(1, width)]
    wide = width
    for stride, residuals in ((None, 2), ((3, 1), 2), (3, 2), ((3, 2), residuals_at_3)):
        if stride is not None:
            layers.append(Convolution(wide, 2 * wide, stride=stride))
            wide *= 2
        layers += [Convolution(wide, wide, residual=True) for _ in range(residuals)]
    layers += [Convolution(wide, 2 * wide, padding=0), Convolution(2 * wide, 2 * wide, 1, padding=0)]
    return nn.Sequential(*layers)
