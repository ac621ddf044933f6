"""PIRender's generator (Ren et al. 2021), its parameter names (`net_G_ema` of its checkpoint).

A portrait and a window of 27 coefficient vectors become a picture in three steps: a descriptor of the window, a flow
that warps the portrait by it, and a network that repaints the warped portrait. Sides are multiples of 32 px, at least
64.
Source: specs/vico.md 7.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, grid_sample, instance_norm, interpolate, layer_norm, leaky_relu

from gaussian_head.networks.weights import find_weights, load_into

WINDOW = 27
"""Frames whose coefficients make one picture: 13 on each side of it."""
SLOPE = 0.1
"""Of every leaky ReLU."""


@dataclass(frozen=True)
class PIRenderWidths:
    """Channels of each part; the defaults are the published network's."""

    coefficients: int = 73
    """Numbers a frame is driven by: expression 64, angles 3, translation 3, crop 3."""
    descriptor: int = 256
    """Of a window."""
    modulation: int = 128
    """Hidden units of each layer that the descriptor steers."""
    flow: int = 32
    """Of the warping network's first layer; each of the five below has twice as many, up to `widest`."""
    editing: int = 64
    """Of the editing network's first layer; each of the three below has twice as many, up to `widest`."""
    widest: int = 256
    """No layer has more."""

    def at(self, first: int, depth: int) -> int:
        """Return the channels `depth` halvings below a layer of `first` channels."""
        return min(first * 2**depth, self.widest)


class SourceFeatures(NamedTuple):
    """What depends on the portrait alone, and need not be computed for every frame."""

    picture: Float[Tensor, "B 3 H W"]
    flow: Float[Tensor, "B F H W"]
    """The warping network's first layer."""
    editing: Float[Tensor, "B E H W"]
    """The portrait's share of the editing network's first convolution."""


class PIRenderOutput(NamedTuple):
    """What the generator makes, first to last."""

    descriptor: Float[Tensor, "B D"]
    flow: Float[Tensor, "B 2 H4 W4"]
    """Displacement in pixels of a picture of a quarter of the width: x, y."""
    warped: Float[Tensor, "B 3 H W"]
    """The portrait, warped: RGB in [-1, 1]."""
    picture: Float[Tensor, "B 3 H W"] | None
    """The same, repainted: RGB in [-1, 1]; None if only the warp was asked for."""


class PIRenderGenerator(nn.Module):
    """Portrait, window of coefficients -> the portrait as the window's middle frame has it."""

    def __init__(self, widths: PIRenderWidths | None = None) -> None:
        super().__init__()
        widths = widths or PIRenderWidths()
        self.mapping_net = MappingNet(widths)
        self.warpping_net = WarpingNet(widths)
        self.editing_net = EditingNet(widths)

    def forward(
        self, source: Float[Tensor, "B 3 H W"], windows: Float[Tensor, "B M 27"], *, warp_only: bool = False
    ) -> PIRenderOutput:
        """Draw a picture for each window.

        Args:
            source: Portraits, RGB in [-1, 1].
            windows: Coefficients of the frames around each picture.
            warp_only: Leave the editing network out (the first stage of training).
        """
        return self.draw(self.look_at(source, warp_only=warp_only), windows, warp_only=warp_only)

    def look_at(self, source: Float[Tensor, "B 3 H W"], *, warp_only: bool = False) -> SourceFeatures:
        """Compute what needs the portrait alone."""
        flow = self.warpping_net.hourglass.encoder.input_layer(source)
        editing = source.new_zeros(0) if warp_only else self.editing_net.encoder.first.first_half(source)
        return SourceFeatures(source, flow, editing)

    def draw(
        self,
        source: SourceFeatures,
        windows: Float[Tensor, "B M 27"],
        *,
        warp_only: bool = False,
        beyond: Literal["zeros", "border"] = "zeros",
    ) -> PIRenderOutput:
        """Draw a picture for each window, all of one portrait or each of its own (see `forward`, `warp`)."""
        count = len(windows)
        source = SourceFeatures(*(kept.expand(count, *kept.shape[1:]) if kept.numel() else kept for kept in source))
        descriptor = self.mapping_net(windows)
        flow = self.warpping_net(source.flow, descriptor)
        warped = warp(source.picture, flow, beyond)
        picture = None if warp_only else self.editing_net(source.editing, warped, descriptor)
        return PIRenderOutput(descriptor, flow, warped, picture)


def warp(
    source: Float[Tensor, "B 3 H W"], flow: Float[Tensor, "B 2 h w"], beyond: Literal["zeros", "border"] = "zeros"
) -> Float[Tensor, "B 3 H W"]:
    """Fetch every pixel from where the flow points.

    The grid has its corners at the centres of the corner pixels, yet is enlarged and read as if those were the corners
    of the picture: the published weights were trained so.

    Args:
        source: Pictures.
        flow: Displacement in px of its own size: x, y.
        beyond: What lies outside the picture: grey, as the published weights were trained, or the nearest pixel.
    """
    height, width = flow.shape[2:]
    y = torch.linspace(-1, 1, height, dtype=flow.dtype, device=flow.device)
    x = torch.linspace(-1, 1, width, dtype=flow.dtype, device=flow.device)
    still = torch.stack(torch.meshgrid(x, y, indexing="xy"))  # [2, h, w]
    pixel = 2 / (flow.new_tensor([width, height]) - 1)
    places = interpolate(still + flow * pixel[:, None, None], source.shape[2:], mode="bilinear", align_corners=False)
    return grid_sample(source, places.permute(0, 2, 3, 1), padding_mode=beyond, align_corners=False)


class MappingNet(nn.Module):
    """A window of coefficients -> what it says about its middle frame."""

    def __init__(self, widths: PIRenderWidths) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(widths.coefficients, widths.descriptor, 7))
        for i in range(3):
            layer = nn.Conv1d(widths.descriptor, widths.descriptor, 3, dilation=3)
            self.add_module(f"encoder{i}", nn.Sequential(nn.LeakyReLU(SLOPE), layer))

    def forward(self, windows: Float[Tensor, "B M 27"]) -> Float[Tensor, "B D"]:
        """Describe."""
        seen = self.first(windows)
        for layer in (self.encoder0, self.encoder1, self.encoder2):
            seen = layer(seen) + seen[:, :, 3:-3]
        return seen.mean(2)


class Modulation(nn.Module):
    """Instance normalisation whose scale and shift a descriptor says (adaptive instance normalisation)."""

    def __init__(self, channels: int, widths: PIRenderWidths) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Linear(widths.descriptor, widths.modulation), nn.ReLU())
        self.mlp_gamma = nn.Linear(widths.modulation, channels)
        self.mlp_beta = nn.Linear(widths.modulation, channels)

    def forward(self, x: Float[Tensor, "B C H W"], descriptor: Float[Tensor, "B D"]) -> Float[Tensor, "B C H W"]:
        """Normalise."""
        said = self.mlp_shared(descriptor)
        scale, shift = self.mlp_gamma(said)[:, :, None, None], self.mlp_beta(said)[:, :, None, None]
        return instance_norm(x) * (1 + scale) + shift


class LayerNorm(nn.Module):
    """Normalisation over channels, rows and columns together; scale and shift are one number a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Normalise."""
        return layer_norm(x, x.shape[1:]) * self.weight + self.bias


class WarpingNet(nn.Module):
    """The portrait's first features and a descriptor -> a flow of a quarter of the width."""

    def __init__(self, widths: PIRenderWidths) -> None:
        super().__init__()
        self.hourglass = nn.Module()
        self.hourglass.encoder = FlowEncoder(widths)
        self.hourglass.decoder = FlowDecoder(widths)
        channels = 2 * widths.at(widths.flow, 2)
        self.flow_out = nn.Sequential(
            LayerNorm(channels), nn.LeakyReLU(SLOPE), nn.Conv2d(channels, 2, kernel_size=7, padding=3)
        )

    def forward(self, features: Float[Tensor, "B F H W"], descriptor: Float[Tensor, "B D"]) -> Tensor:
        """Say where each pixel comes from."""
        return self.flow_out(self.hourglass.decoder(self.hourglass.encoder(features, descriptor), descriptor))


class FlowEncoder(nn.Module):
    """Five halvings; `input_layer`, which sees the portrait alone, is called by the generator."""

    def __init__(self, widths: PIRenderWidths) -> None:
        super().__init__()
        self.input_layer = nn.Conv2d(3, widths.flow, kernel_size=7, padding=3)
        for i in range(5):
            self.add_module(f"encoder{i}", Halving(widths.at(widths.flow, i), widths.at(widths.flow, i + 1), widths))

    def forward(self, x: Float[Tensor, "B F H W"], descriptor: Float[Tensor, "B D"]) -> list[Tensor]:
        """Return the features of each depth, from 1/2 to 1/32."""
        seen = []
        for block in (self.encoder0, self.encoder1, self.encoder2, self.encoder3, self.encoder4):
            x = block(x, descriptor)
            seen.append(x)
        return seen


class FlowDecoder(nn.Module):
    """Three doublings, each with the encoder's features of its size beside it."""

    def __init__(self, widths: PIRenderWidths) -> None:
        super().__init__()
        inputs = widths.at(widths.flow, 5)
        for i in (4, 3, 2):
            outputs = widths.at(widths.flow, i)
            self.add_module(f"decoder{i}", Doubling(inputs, outputs, widths))
            inputs = 2 * outputs

    def forward(self, seen: list[Float[Tensor, "B _ _ _"]], descriptor: Float[Tensor, "B D"]) -> Tensor:
        """Return features of a quarter of the width."""
        x = seen[4]
        for block, beside in ((self.decoder4, seen[3]), (self.decoder3, seen[2]), (self.decoder2, seen[1])):
            x = torch.cat([block(x, descriptor), beside], 1)
        return x


class Halving(nn.Module):
    """Two modulated convolutions, the first of stride 2."""

    def __init__(self, inputs: int, outputs: int, widths: PIRenderWidths) -> None:
        super().__init__()
        self.conv_0 = nn.Conv2d(inputs, outputs, kernel_size=4, stride=2, padding=1)
        self.conv_1 = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1)
        self.norm_0, self.norm_1 = Modulation(inputs, widths), Modulation(outputs, widths)

    def forward(self, x: Float[Tensor, "B C H W"], descriptor: Float[Tensor, "B D"]) -> Tensor:
        """Halve the size."""
        x = self.conv_0(leaky_relu(self.norm_0(x, descriptor), SLOPE))
        return self.conv_1(leaky_relu(self.norm_1(x, descriptor), SLOPE))


class Doubling(nn.Module):
    """A modulated convolution and one that doubles the size, and a shortcut that doubles it at once."""

    def __init__(self, inputs: int, outputs: int, widths: PIRenderWidths) -> None:
        super().__init__()
        enlarging = {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1}
        self.conv_0 = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
        self.conv_1 = nn.ConvTranspose2d(outputs, outputs, **enlarging)
        self.conv_s = nn.ConvTranspose2d(inputs, outputs, **enlarging)
        self.norm_0, self.norm_1 = Modulation(inputs, widths), Modulation(outputs, widths)
        self.norm_s = Modulation(inputs, widths)

    def forward(self, x: Float[Tensor, "B C H W"], descriptor: Float[Tensor, "B D"]) -> Tensor:
        """Double the size."""
        shortcut = self.conv_s(leaky_relu(self.norm_s(x, descriptor), SLOPE))
        x = self.conv_0(leaky_relu(self.norm_0(x, descriptor), SLOPE))
        return shortcut + self.conv_1(leaky_relu(self.norm_1(x, descriptor), SLOPE))


class EditingNet(nn.Module):
    """Portrait, warped portrait and descriptor -> the finished picture."""

    def __init__(self, widths: PIRenderWidths) -> None:
        super().__init__()
        self.encoder = EditingEncoder(widths)
        self.decoder = EditingDecoder(widths)

    def forward(
        self, source: Float[Tensor, "B E H W"], warped: Float[Tensor, "B 3 H W"], descriptor: Float[Tensor, "B D"]
    ) -> Float[Tensor, "B 3 H W"]:
        """Repaint; `source` is the portrait's share of the first convolution."""
        return self.decoder(self.encoder(source, warped), descriptor)


class Convolution(nn.Module):
    """Convolution, layer normalisation, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int = 3) -> None:
        super().__init__()
        layer = nn.Conv2d(inputs, outputs, size, padding=size // 2)
        self.model = nn.Sequential(layer, LayerNorm(outputs), nn.LeakyReLU(SLOPE))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H W"]:
        """Convolve."""
        return self.model(x)


class FirstConvolution(Convolution):
    """One whose input is portrait and warped portrait, six channels, so that the portrait's half is computed once."""

    def first_half(self, source: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D H W"]:
        """Return what the first three channels and the bias add."""
        layer = self.model[0]
        return nn.functional.conv2d(source, layer.weight[:, :3], layer.bias, padding=layer.padding)

    def forward(self, half: Float[Tensor, "B D H W"], warped: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D H W"]:
        """Add the other three channels, normalise and bend."""
        layer, norm, bend = self.model
        return bend(norm(half + nn.functional.conv2d(warped, layer.weight[:, 3:], padding=layer.padding)))


class EditingEncoder(nn.Module):
    """Three halvings."""

    def __init__(self, widths: PIRenderWidths) -> None:
        super().__init__()
        self.first = FirstConvolution(6, widths.editing, 7)
        for i in range(3):
            self.add_module(f"down{i}", Convolution(widths.at(widths.editing, i), widths.at(widths.editing, i + 1)))

    def forward(self, source: Float[Tensor, "B E H W"], warped: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Return the features of each depth, from 1 to 1/8."""
        seen = [self.first(source, warped)]
        for block in (self.down0, self.down1, self.down2):
            seen.append(avg_pool2d(block(seen[-1]), 2))
        return seen


class EditingDecoder(nn.Module):
    """Three doublings, to each of which the encoder's features are added."""

    def __init__(self, widths: PIRenderWidths) -> None:
        super().__init__()
        for i in (2, 1, 0):
            inputs, outputs = widths.at(widths.editing, i + 1), widths.at(widths.editing, i)
            self.add_module(f"res{i}", ResidualBlocks(inputs, widths))
            self.add_module(f"up{i}", Convolution(inputs, outputs))
            self.add_module(f"jump{i}", Convolution(outputs, outputs))
        self.final = nn.Module()
        self.final.model = nn.Sequential(nn.Conv2d(widths.editing, 3, kernel_size=7, padding=3), nn.Tanh())

    def forward(self, seen: list[Float[Tensor, "B _ _ _"]], descriptor: Float[Tensor, "B D"]) -> Tensor:
        """Return the picture, RGB in [-1, 1]."""
        x = seen[3]
        for i in (2, 1, 0):
            x = getattr(self, f"res{i}")(x, descriptor)
            x = getattr(self, f"up{i}")(interpolate(x, scale_factor=2)) + getattr(self, f"jump{i}")(seen[i])
        return self.final.model(x)


class ResidualBlocks(nn.Module):
    """Two modulated residual blocks."""

    def __init__(self, channels: int, widths: PIRenderWidths) -> None:
        super().__init__()
        self.res0, self.res1 = ResidualBlock(channels, widths), ResidualBlock(channels, widths)

    def forward(self, x: Float[Tensor, "B C H W"], descriptor: Float[Tensor, "B D"]) -> Float[Tensor, "B C H W"]:
        """Apply both."""
        return self.res1(self.res0(x, descriptor), descriptor)


class ResidualBlock(nn.Module):
    """A modulated residual block, of whose two convolutions only the second is used.

    The reference hands the block's input to both; the published weights were trained so, and hold the idle ones.
    """

    def __init__(self, channels: int, widths: PIRenderWidths) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, kernel_size=3, padding=1) for _ in range(2))
        self.norm1, self.norm2 = (Modulation(channels, widths) for _ in range(2))

    def forward(self, x: Float[Tensor, "B C H W"], descriptor: Float[Tensor, "B D"]) -> Float[Tensor, "B C H W"]:
        """Add the second convolution's modulated answer."""
        return x + self.norm2(self.conv2(x), descriptor)


def load_pirender(given: Path | None = None, widths: PIRenderWidths | None = None) -> PIRenderGenerator:
    """Load the public weights, the averaged generator of PIRender's checkpoint, or a file of one's own training.

    Args:
        given: The file; default: see `networks.weights.find_weights`.
        widths: Of a network of one's own; default: the published ones.

    Raises:
        UserError: The file is missing, damaged, or another network's.
    """
    return load_into(PIRenderGenerator(widths), find_weights("pirender", given))
