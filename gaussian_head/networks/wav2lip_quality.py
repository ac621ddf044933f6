"""Wav2Lip's quality discriminator: real face or drawn one? Its parameter names (`visual_quality_disc.pth`).

Source: specs/one_shot.md 6.1.
"""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from gaussian_head.networks.wav2lip import fold_time
from gaussian_head.networks.weights import find_weights, load_into

SLOPE = 0.01
"""Of the ReLUs, below 0."""


class QualityDiscriminator(nn.Module):
    """The lower half of a face -> how probably it was filmed and not drawn."""

    def __init__(self, width: int = 32) -> None:
        """Build the network; `width`: channels of the first layer, in the published network 32."""
        super().__init__()
        w = width
        self.face_encoder_blocks = nn.ModuleList([
            nn.Sequential(PlainConvolution(3, w, 7)),
            nn.Sequential(PlainConvolution(w, 2 * w, 5, stride=(1, 2)), PlainConvolution(2 * w, 2 * w, 5)),
            nn.Sequential(PlainConvolution(2 * w, 4 * w, 5, stride=2), PlainConvolution(4 * w, 4 * w, 5)),
            nn.Sequential(PlainConvolution(4 * w, 8 * w, 5, stride=2), PlainConvolution(8 * w, 8 * w, 5)),
            nn.Sequential(PlainConvolution(8 * w, 16 * w, 3, stride=2), PlainConvolution(16 * w, 16 * w, 3)),
            nn.Sequential(PlainConvolution(16 * w, 16 * w, 3, stride=2), PlainConvolution(16 * w, 16 * w, 3)),
            nn.Sequential(PlainConvolution(16 * w, 16 * w, 3, padding=0), PlainConvolution(16 * w, 16 * w, 1)),
        ])  # fmt: skip
        self.binary_pred = nn.Sequential(nn.Conv2d(16 * w, 1, 1), nn.Sigmoid())

    def forward(self, clips: Float[Tensor, "B 3 T 96 96"]) -> Float[Tensor, "N 1"]:
        """Judge each frame.

        Args:
            clips: Whole faces, BGR in [0, 1]; the lower halves are looked at.

        Returns:
            Probabilities that they were filmed, of all first frames first (T x B).
        """
        return self.logits(clips).sigmoid()

    def logits(self, clips: Float[Tensor, "B 3 T 96 96"]) -> Float[Tensor, "N 1"]:
        """Return what `forward` puts through a sigmoid: losses of it keep their gradients when it is sure."""
        return self.binary_pred[0](self.features(clips)).flatten(1)

    def features(self, clips: Float[Tensor, "B 3 T 96 96"]) -> Float[Tensor, "N F 1 1"]:
        """Return what the judgement is made of."""
        x = fold_time(clips[:, :, :, clips.shape[3] // 2 :])
        for block in self.face_encoder_blocks:
            x = block(x)
        return x


class PlainConvolution(nn.Module):
    """Convolution and leaky ReLU, not normalised."""

    def __init__(
        self, inputs: int, outputs: int, size: int, stride: int | tuple[int, int] = 1, padding: int | None = None
    ) -> None:
        """Build the layer; `padding`: default half the size."""
        super().__init__()
        padding = size // 2 if padding is None else padding
        self.conv_block = nn.Sequential(nn.Conv2d(inputs, outputs, size, stride, padding))
        # with torch's own first weights nothing is left of the picture after 13 layers, and nothing is learned
        nn.init.kaiming_normal_(self.conv_block[0].weight, SLOPE)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H2 W2"]:
        """Convolve."""
        return F.leaky_relu(self.conv_block(x), SLOPE)


def load_quality(given: Path | None = None) -> QualityDiscriminator:
    """Load the public weights, or weights trained here.

    Args:
        given: The file; default: see `networks.weights.find_weights`.

    Raises:
        UserError: The file is missing (WeightsMissingError), damaged, or another network's.
    """
    return load_into(QualityDiscriminator(), find_weights("wav2lip_quality", given), prefix="module.")
