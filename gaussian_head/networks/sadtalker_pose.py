"""SadTalker's pose network (PoseVAE; Zhang et al. 2023): sound, style and chance -> head motion; its parameter names.

A conditional variational auto-encoder over 32 frames of (angles 3 rad, translation 3), all relative to the first
frame. Source: specs/one_shot.md 3.4.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gaussian_head.networks.wav2lip_blocks import SPEECH_FEATURES, speech_encoder
from gaussian_head.networks.weights import find_weights, load_into

FRAMES = 32
"""Length of what is decoded at once, at 25 frames/s."""
POSE, LATENT, STYLES = 6, 64, 46
PREFIX = "audio2pose."
"""Where SadTalker's safetensors files hold this network."""
_WIDTHS = (32, 64, 128, 256)


class PoseNetwork(nn.Module):
    """Speech encoder, auto-encoder of motion, and the discriminator that it was trained against.

    Args:
        own_spread: Whether the encoder's logarithm of variance has a layer of its own. The published one computes it
            with the layer of the mean by mistake; weights are named alike either way, so this is for new training.
    """

    def __init__(self, *, own_spread: bool = False) -> None:
        super().__init__()
        self.audio_encoder = nn.ModuleDict({"audio_encoder": speech_encoder()})
        self.netG = nn.ModuleDict({"encoder": MotionEncoder(own_spread), "decoder": MotionDecoder()})
        self.netD_motion = MotionDiscriminator()

    def features(self, mels: Float[Tensor, "T 1 80 16"]) -> Float[Tensor, "T 512"]:
        """Return what is heard in each frame's window (values -4..4)."""
        return self.audio_encoder["audio_encoder"](mels).flatten(1)

    def encode(
        self,
        motion: Float[Tensor, "B 32 6"],
        first: Float[Tensor, "B 6"],
        style: Int[Tensor, "B"],
        features: Float[Tensor, "B 32 512"],
    ) -> tuple[Float[Tensor, "B 64"], Float[Tensor, "B 64"]]:
        """Return mean and logarithm of variance of the latent that explains a motion."""
        return self.netG["encoder"](motion, first, style, features)

    def decode(
        self,
        latent: Float[Tensor, "B 64"],
        first: Float[Tensor, "B 6"],
        style: Int[Tensor, "B"],
        features: Float[Tensor, "B 32 512"],
    ) -> Float[Tensor, "B 32 6"]:
        """Return the motion relative to the pose of the first frame.

        Args:
            latent: Drawn from a standard normal distribution.
            first: Pose of the first frame.
            style: Which of the 46 persons seen in training to move like.
            features: What is heard.
        """
        return self.netG["decoder"](latent, first, style, features)


class MotionEncoder(nn.Module):
    """A motion -> the distribution of its latent."""

    def __init__(self, own_spread: bool) -> None:
        super().__init__()
        self.own_spread = own_spread
        self.classbias = nn.Parameter(torch.randn(STYLES, LATENT))
        self.resunet = ResidualUNet()
        self.MLP = nn.ModuleDict({"L0": nn.Linear(POSE + 2 * FRAMES * POSE + LATENT, 128)})
        self.linear_means = nn.Linear(128, LATENT)
        self.linear_logvar = nn.Linear(128, LATENT)
        self.linear_audio = nn.Linear(SPEECH_FEATURES, POSE)

    def forward(self, motion: Tensor, first: Tensor, style: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logarithm of variance."""
        moved = self.resunet(motion[:, None]).flatten(1)
        heard = self.linear_audio(features).flatten(1)
        hidden = self.MLP["L0"](torch.cat([first, moved, heard, self.classbias[style]], 1)).relu()
        mean = self.linear_means(hidden)
        return mean, self.linear_logvar(hidden) if self.own_spread else mean


class MotionDecoder(nn.Module):
    """A latent -> a motion."""

    def __init__(self) -> None:
        super().__init__()
        self.classbias = nn.Parameter(torch.randn(STYLES, LATENT))
        self.resunet = ResidualUNet()
        wide = FRAMES * POSE
        self.MLP = nn.ModuleDict({"L0": nn.Linear(POSE + LATENT + wide, 128), "L1": nn.Linear(128, wide)})
        self.pose_linear = nn.Linear(POSE, POSE)
        self.linear_audio = nn.Linear(SPEECH_FEATURES, POSE)

    def forward(self, latent: Tensor, first: Tensor, style: Tensor, features: Tensor) -> Tensor:
        """Return the motion."""
        heard = self.linear_audio(features).flatten(1)
        hidden = self.MLP["L0"](torch.cat([first, latent + self.classbias[style], heard], 1)).relu()
        rough = self.MLP["L1"](hidden).sigmoid().reshape(-1, 1, FRAMES, POSE)
        return self.pose_linear(self.resunet(rough)[:, 0])


class ResidualUNet(nn.Module):
    """A U-net over (time, pose number) that halves time alone; values 0..1 come out."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third, deepest = _WIDTHS
        self.input_layer = nn.Sequential(
            nn.Conv2d(1, first, 3, padding=1), nn.BatchNorm2d(first), nn.ReLU(), nn.Conv2d(first, first, 3, padding=1)
        )
        self.input_skip = nn.Sequential(nn.Conv2d(1, first, 3, padding=1))
        self.residual_conv_1 = ResidualConvolution(first, second, (2, 1))
        self.residual_conv_2 = ResidualConvolution(second, third, (2, 1))
        self.bridge = ResidualConvolution(third, deepest, (2, 1))
        self.upsample_1 = Longer(deepest)
        self.up_residual_conv1 = ResidualConvolution(deepest + third, third)
        self.upsample_2 = Longer(third)
        self.up_residual_conv2 = ResidualConvolution(third + second, second)
        self.upsample_3 = Longer(second)
        self.up_residual_conv3 = ResidualConvolution(second + first, first)
        self.output_layer = nn.Sequential(nn.Conv2d(first, 1, 1), nn.Sigmoid())

    def forward(self, x: Float[Tensor, "B 1 T P"]) -> Float[Tensor, "B 1 T P"]:
        """Filter."""
        whole = self.input_layer(x) + self.input_skip(x)
        half = self.residual_conv_1(whole)
        quarter = self.residual_conv_2(half)
        y = self.upsample_1(self.bridge(quarter))
        y = self.upsample_2(self.up_residual_conv1(torch.cat([y, quarter], 1)))
        y = self.upsample_3(self.up_residual_conv2(torch.cat([y, half], 1)))
        return self.output_layer(self.up_residual_conv3(torch.cat([y, whole], 1)))


class ResidualConvolution(nn.Module):
    """Two convolutions, each after normalisation and ReLU, beside one."""

    def __init__(self, inputs: int, outputs: int, stride: int | tuple[int, int] = 1) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, 3, stride, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        self.conv_skip = nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.BatchNorm2d(outputs))

    def forward(self, x: Float[Tensor, "B C T P"]) -> Float[Tensor, "B D T2 P"]:
        """Convolve."""
        return self.conv_block(x) + self.conv_skip(x)


class Longer(nn.Module):
    """Doubles time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(width, width, (2, 1), (2, 1))

    def forward(self, x: Float[Tensor, "B C T P"]) -> Float[Tensor, "B C T2 P"]:
        """Double."""
        return self.upsample(x)


class MotionDiscriminator(nn.Module):
    """Motion -> how real each quarter of a second looks."""

    def __init__(self) -> None:
        super().__init__()
        self.seq = nn.ModuleList([
            NormedConvolution(POSE, 256, 4, 2),
            NormedConvolution(256, 512, 4, 2),
            NormedConvolution(512, 1024, 3, 1),
            nn.Conv1d(1024, 1, 3, padding=1),
        ])  # fmt: skip

    def forward(self, motion: Float[Tensor, "B T 6"]) -> Float[Tensor, "B T2"]:
        """Return scores, larger is more real, without bounds."""
        x = motion.mT
        for layer in self.seq:
            x = layer(x)
        return x[:, 0]


class NormedConvolution(nn.Module):
    """Convolution over time, normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, size, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: Float[Tensor, "B C T"]) -> Float[Tensor, "B D T2"]:
        """Convolve."""
        return self.norm(self.conv(x)).relu()


def load_pose_network(given: Path | None = None) -> PoseNetwork:
    """Load the public weights: a safetensors file of SadTalker, or its older `auido2pose_00140-model.pth`.

    Args:
        given: The file; default: see `networks.weights.find_weights`.

    Raises:
        UserError: The file is missing, damaged, or another network's.
    """
    return load_into(PoseNetwork(), find_weights("sadtalker_pose", given), PREFIX)
