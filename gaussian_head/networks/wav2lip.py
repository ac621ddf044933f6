"""Wav2Lip's generator (Prajwal et al. 2020), its parameter names (`wav2lip.pth`, `wav2lip_gan.pth`).

It fills in the lower half of a face so that the lips fit a fifth of a second of speech. Source: specs/one_shot.md 6.1.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gaussian_head.networks.wav2lip_blocks import Convolution, speech_encoder
from gaussian_head.networks.weights import WeightsMissingError, find_weights, load_into

SIDE = 96
"""Width and height of the faces in px."""
EDITIONS = ("wav2lip_gan", "wav2lip")
"""Keys in the table of weights; the first, trained with the quality discriminator, draws sharper teeth."""


class Wav2Lip(nn.Module):
    """Speech and a face -> the same face saying it."""

    def __init__(self, width: int = 16) -> None:
        """Build the network.

        Args:
            width: Channels at full size, which all other widths are multiples of; the published networks have 16.
        """
        super().__init__()
        w = width
        faces = [w, 2 * w, 4 * w, 8 * w, 16 * w, 32 * w]
        encoder: list[nn.Module] = [nn.Sequential(Convolution(6, w, 7, padding=3))]
        for inputs, outputs, residuals in zip(faces, faces[1:], (2, 3, 2, 2, 1), strict=False):
            block = [Convolution(inputs, outputs, stride=2)]
            block += [Convolution(outputs, outputs, residual=True) for _ in range(residuals)]
            encoder.append(nn.Sequential(*block))
        deepest = 32 * w
        encoder.append(nn.Sequential(
            Convolution(deepest, deepest, padding=0), Convolution(deepest, deepest, 1, padding=0)
        ))  # fmt: skip
        self.face_encoder_blocks = nn.ModuleList(encoder)
        self.audio_encoder = speech_encoder(2 * w)
        decoder: list[nn.Module] = [nn.Sequential(Convolution(deepest, deepest, 1, padding=0))]
        inputs, residuals = deepest, 1
        # each block also sees the face encoder's picture of its input's size
        for seen, outputs in zip((deepest, *reversed(faces[1:])), (32 * w, 32 * w, 24 * w, 16 * w, 8 * w, 4 * w),
                                 strict=True):  # fmt: skip
            first = Growth(inputs + seen, outputs, doubled=len(decoder) > 1)
            decoder.append(nn.Sequential(
                first, *[Convolution(outputs, outputs, residual=True) for _ in range(residuals)]
            ))  # fmt: skip
            inputs, residuals = outputs, 2
        self.face_decoder_blocks = nn.ModuleList(decoder)
        self.output_block = nn.Sequential(Convolution(inputs + w, 2 * w), nn.Conv2d(2 * w, 3, 1), nn.Sigmoid())

    def forward(
        self, speech: Float[Tensor, "B *T 1 80 16"], faces: Float[Tensor, "B 6 *T 96 96"]
    ) -> Float[Tensor, "B 3 *T 96 96"]:
        """Draw faces.

        Args:
            speech: Mel windows (`media.wav2lip_mel`), bands first; with T, of frames that follow each other.
            faces: BGR in [0, 1]: channels 0-2 the face with rows 48.. black, 3-5 the same person's face, whole (when it
                draws lips for a video the same frame, in training other frames).

        Returns:
            BGR in [0, 1].
        """
        if faces.ndim == 4:
            return self._draw(speech, faces)
        drawn = self._draw(fold_time(speech.transpose(1, 2)), fold_time(faces))
        return torch.stack(drawn.split(len(faces)), 2)

    def _draw(self, speech: Float[Tensor, "B 1 80 16"], faces: Float[Tensor, "B 6 96 96"]) -> Tensor:
        pictures = []
        for encode in self.face_encoder_blocks:
            faces = encode(faces)
            pictures.append(faces)
        x = self.audio_encoder(speech)
        for decode in self.face_decoder_blocks:
            x = torch.cat([decode(x), pictures.pop()], 1)
        return self.output_block(x)


class Growth(nn.Module):
    """Transposed convolution, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, *, doubled: bool) -> None:
        """Build the layer; `doubled`: pictures become twice as large, else 2 px larger."""
        super().__init__()
        geometry = {"stride": 2, "padding": 1, "output_padding": 1} if doubled else {}
        self.conv_block = nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 3, **geometry), nn.BatchNorm2d(outputs))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H2 W2"]:
        """Convolve."""
        return self.conv_block(x).relu()


def fold_time(x: Float[Tensor, "B C T *size"]) -> Float[Tensor, "N C *size"]:
    """Make one batch of clips' frames, all first frames first (T x B), the order of the published networks."""
    return x.transpose(1, 2).transpose(0, 1).flatten(0, 1)


def load_wav2lip(given: Path | None = None) -> Wav2Lip:
    """Load public weights, or weights trained here.

    Args:
        given: The file; default: the first of EDITIONS that is found (see `networks.weights.find_weights`).

    Raises:
        UserError: The file is missing (WeightsMissingError), damaged, or another network's.
    """
    return load_into(Wav2Lip(), find_wav2lip(given), prefix="module.")


def find_wav2lip(given: Path | None = None) -> Path:
    """Return the file that `load_wav2lip` would load.

    Raises:
        WeightsMissingError: There is none.
    """
    if given is not None:
        return find_weights(EDITIONS[0], given)
    for edition in EDITIONS:
        try:
            return find_weights(edition)
        except WeightsMissingError as error:
            missing = error
    raise WeightsMissingError(
        "needs wav2lip_gan.pth or wav2lip.pth in checkpoints/ (or the folder that GAUSSIAN_HEAD_CHECKPOINTS names), "
        "see scripts/prepare.sh"
    ) from missing
