"""Face-vid2vid's generator (Wang et al. 2021) with a SPADE decoder (Park et al. 2019), names of the public checkpoints.

A picture becomes a volume of features, once; its key points before and after say how every voxel moves; the moved
volume is flattened, darkened where nothing was seen, and decoded. Source: specs/one_shot.md 4.4.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, grid_sample, instance_norm, interpolate, leaky_relu, pad

from gaussian_head.networks.vid2vid_blocks import PUBLISHED, Block, SpectralConvolution, Vid2VidSize, coordinates

VARIANCE = 0.01
"""Of the Gaussians that mark key points."""
LEAST_SHARE = 1e-3
"""A candidate motion that has less than this share in a voxel's motion has none."""
Beyond = Literal["zeros", "border"]
"""What lies outside the picture: nothing, as the networks were trained, or the picture's border again and again."""


class Source(NamedTuple):
    """What is known of a picture before anything moves."""

    volume: Float[Tensor, "B C D H W"]
    """Its features."""
    thin: Float[Tensor, "B c D H W"]
    """The same with few channels, by which motion is judged."""


class Rendered(NamedTuple):
    """What the generator gives."""

    pictures: Float[Tensor, "B 3 S T"]
    """RGB in [0, 1]."""
    shares: Float[Tensor, "B K D H W"]
    """How much each candidate motion (none, then one for each key point) has in each voxel's; they sum to 1."""
    flow: Float[Tensor, "B D H W 3"]
    """Where in the source each voxel comes from."""
    seen: Float[Tensor, "B 1 H W"]
    """1 where the source shows what is there, 0 where it is hidden."""


class Generator(nn.Module):
    """A picture and its key points before and after -> the picture after."""

    def __init__(self, size: Vid2VidSize = PUBLISHED) -> None:
        super().__init__()
        wide = size.picture
        self.first = Block(3, wide, 2)
        self.down_blocks = nn.ModuleList(Block(wide * k, wide * 2 * k, 2, "halve") for k in (1, 2))
        self.second = nn.Conv2d(4 * wide, size.volume * size.depth, 1)
        self.resblocks_3d = nn.Sequential(
            OrderedDict((f"3dr{i}", VolumeResidual(size.volume)) for i in range(size.residuals))
        )
        self.dense_motion_network = DenseMotion(size)
        self.third = Block(size.volume * size.depth, 4 * wide, 2, slope=0.01)
        self.fourth = nn.Conv2d(4 * wide, 4 * wide, 1)
        self.decoder = Decoder(wide, size.middle, size.modulation)
        self._depth = size.depth

    def encode(self, pictures: Float[Tensor, "B 3 S T"]) -> Source:
        """Read pictures, RGB in [0, 1]: needed once for a source."""
        x = self.first(pictures)
        for block in self.down_blocks:
            x = block(x)
        volume = self.resblocks_3d(self.second(x).unflatten(1, (-1, self._depth)))
        return Source(volume, self.dense_motion_network.squeeze(volume))

    def decode(
        self,
        source: Source,
        before: Float[Tensor, "#B points 3"],
        after: Float[Tensor, "B points 3"],
        beyond: Beyond = "zeros",
    ) -> Rendered:
        """Move what was read.

        Args:
            source: Of B pictures, or of one.
            before: Key points in the source.
            after: Key points that are wanted.
            beyond: What moves in from outside the picture.
        """
        shares, flow, seen = self.dense_motion_network(source.thin, before, after)
        volume = source.volume.expand(len(after), -1, -1, -1, -1)
        # coordinates call the centres of the outermost voxels -1 and 1, grid_sample their edges: so it was trained
        moved = grid_sample(volume, flow, padding_mode=beyond, align_corners=False)
        flat = self.fourth(self.third(moved.flatten(1, 2)))
        return Rendered(self.decoder(flat * seen), shares, flow, seen)

    def forward(
        self,
        pictures: Float[Tensor, "B 3 S T"],
        before: Float[Tensor, "B points 3"],
        after: Float[Tensor, "B points 3"],
    ) -> Rendered:
        """Read pictures and move them."""
        return self.decode(self.encode(pictures), before, after)


class VolumeResidual(nn.Module):
    """Two convolutions beside a short cut, normalised and ReLU before each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv3d(channels, channels, 3, padding=1) for _ in range(2))
        self.norm1, self.norm2 = (nn.BatchNorm3d(channels) for _ in range(2))

    def forward(self, x: Float[Tensor, "B C D H W"]) -> Float[Tensor, "B C D H W"]:
        """Add what the convolutions say to the input."""
        y = self.conv1(self.norm1(x).relu())
        return x + self.conv2(self.norm2(y).relu())


class DenseMotion(nn.Module):
    """Key points before and after -> where every voxel comes from, and whether it was seen."""

    def __init__(self, size: Vid2VidSize) -> None:
        super().__init__()
        candidates = size.points + 1
        inputs = candidates * (1 + size.squeezed)
        self.hourglass = Hourglass(inputs, size)
        width = size.width + inputs
        self.mask = nn.Conv3d(width, candidates, 7, padding=3)
        self.compress = nn.Conv3d(size.volume, size.squeezed, 1)
        self.norm = nn.BatchNorm3d(size.squeezed)
        self.occlusion = nn.Conv2d(width * size.depth, 1, 7, padding=3)

    def squeeze(self, volume: Float[Tensor, "B C D H W"]) -> Float[Tensor, "B c D H W"]:
        """Return the few channels by which motion is judged."""
        return self.norm(self.compress(volume)).relu()

    def forward(
        self,
        thin: Float[Tensor, "#B c D H W"],
        before: Float[Tensor, "#B points 3"],
        after: Float[Tensor, "B points 3"],
    ) -> tuple[Float[Tensor, "B K D H W"], Float[Tensor, "B D H W 3"], Float[Tensor, "B 1 H W"]]:
        """Return `shares`, `flow` and `seen` of `Rendered`.

        Args:
            thin: What `squeeze` gives.
            before: Key points in the source.
            after: Key points that are wanted.
        """
        grid = coordinates(thin)
        shifts = before - after
        x = self.hourglass(
            torch.cat([self._marks(thin, before, after), self._moved(thin, grid, shifts)], 2).flatten(1, 2)
        )
        shares = self.mask(x).softmax(1)
        counted = torch.where(shares < LEAST_SHARE, 0, shares)
        # the sum over candidates k of share_k (grid + shift_k), without a grid for each; the first has no shift
        flow = counted.sum(1)[..., None] * grid + torch.einsum("bkdhw,bkc->bdhwc", counted[:, 1:], shifts)
        return shares, flow, self.occlusion(x.flatten(1, 2)).sigmoid()

    @staticmethod
    def _marks(thin: Tensor, before: Tensor, after: Tensor) -> Float[Tensor, "B K 1 D H W"]:
        """Mark each key point's new place by a Gaussian and its old one by a negative one; candidate 0 has none."""
        marks = _gaussians(after, thin) - _gaussians(before, thin)
        return torch.cat([torch.zeros_like(marks[:, :1]), marks], 1)[:, :, None]

    @staticmethod
    def _moved(thin: Tensor, grid: Tensor, shifts: Tensor) -> Float[Tensor, "B K c D H W"]:
        """Return the thin volume moved as each candidate says; the first does not move it."""
        batch, points = shifts.shape[:2]
        still = grid_sample(thin, grid.expand(len(thin), -1, -1, -1, -1), align_corners=False)
        many = thin[:, None].expand(batch, points, -1, -1, -1, -1).flatten(0, 1)
        moved = grid_sample(many, grid + shifts.flatten(0, 1)[:, None, None, None], align_corners=False)
        return torch.cat([still.expand(batch, -1, -1, -1, -1)[:, None], moved.unflatten(0, (batch, points))], 1)


def _gaussians(points: Float[Tensor, "B P 3"], like: Float[Tensor, "_ _ D H W"]) -> Float[Tensor, "B P D H W"]:
    """Return a bell around each point, as the product of one along each axis."""
    x, y, z = (
        (-((torch.linspace(-1, 1, size, device=points.device, dtype=points.dtype) - points[..., i, None]) ** 2)
         / (2 * VARIANCE)).exp()
        for i, size in enumerate(reversed(like.shape[2:]))
    )  # fmt: skip
    return z[..., :, None, None] * y[..., None, :, None] * x[..., None, None, :]


class Hourglass(nn.Module):
    """A volume, ever smaller and then larger again, each size beside what it was."""

    def __init__(self, inputs: int, size: Vid2VidSize) -> None:
        super().__init__()
        self.encoder = nn.Module()
        self.decoder = nn.Module()
        down = [inputs, *size.hourglass()]
        self.encoder.down_blocks = nn.ModuleList(Block(down[i], down[i + 1], 3, "halve") for i in range(size.halvings))
        grown = [size.width, *size.hourglass()]
        self.decoder.up_blocks = nn.ModuleList(
            Block(grown[i + 1] * (1 if i == size.halvings - 1 else 2), grown[i], 3, "double")
            for i in reversed(range(size.halvings))
        )
        self.decoder.conv = nn.Conv3d(size.width + inputs, size.width + inputs, 3, padding=1)
        self.decoder.norm = nn.BatchNorm3d(size.width + inputs)

    def forward(self, x: Float[Tensor, "B C D H W"]) -> Float[Tensor, "B E D H W"]:
        """Return features of the same size."""
        sizes = [x]
        for block in self.encoder.down_blocks:
            sizes.append(block(sizes[-1]))
        x = sizes.pop()
        for block in self.decoder.up_blocks:
            x = torch.cat([block(x), sizes.pop()], 1)
        return self.decoder.norm(self.decoder.conv(x)).relu()


class Decoder(nn.Module):
    """Flat features -> a picture four times as large; the features also steer every normalisation."""

    def __init__(self, wide: int, middle: int, modulation: int) -> None:
        super().__init__()
        labels = 4 * wide
        self.fc = nn.Conv2d(labels, 8 * wide, 3, padding=1)
        for i in range(middle):
            self.add_module(f"G_middle_{i}", SpadeResidual(8 * wide, 8 * wide, labels, modulation))
        self.up_0 = SpadeResidual(8 * wide, 4 * wide, labels, modulation)
        self.up_1 = SpadeResidual(4 * wide, wide, labels, modulation)
        self.conv_img = nn.Conv2d(wide, 3, 3, padding=1)
        self._middle = middle

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 3 S T"]:
        """Return RGB in [0, 1]."""
        x = self.fc(features)
        for i in range(self._middle):
            x = getattr(self, f"G_middle_{i}")(x, features)
        x = self.up_0(interpolate(x, scale_factor=2.0), features)
        x = self.up_1(interpolate(x, scale_factor=2.0), features)
        return self.conv_img(leaky_relu(x, 0.2)).sigmoid()


class SpadeResidual(nn.Module):
    """Two convolutions beside a short cut, each after a steered normalisation."""

    def __init__(self, inputs: int, outputs: int, labels: int, modulation: int) -> None:
        super().__init__()
        narrow = min(inputs, outputs)
        self.conv_0 = SpectralConvolution(inputs, narrow, 3)
        self.conv_1 = SpectralConvolution(narrow, outputs, 3)
        self.norm_0 = Spade(inputs, labels, modulation)
        self.norm_1 = Spade(narrow, labels, modulation)
        if inputs != outputs:
            self.conv_s = SpectralConvolution(inputs, outputs, 1, bias=False)
            self.norm_s = Spade(inputs, labels, modulation)

    def forward(self, x: Float[Tensor, "B C H W"], features: Float[Tensor, "B L h w"]) -> Float[Tensor, "B D H W"]:
        """Add what the convolutions say to the input."""
        plain = instance_norm(x)
        y = self.conv_0(leaky_relu(self.norm_0(plain, features), 0.2))
        y = self.conv_1(leaky_relu(self.norm_1(instance_norm(y), features), 0.2))
        return y + (self.conv_s(self.norm_s(plain, features)) if hasattr(self, "conv_s") else x)


class Spade(nn.Module):
    """Scale and shift of normalised features, read at each pixel from others."""

    def __init__(self, channels: int, labels: int, modulation: int) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Conv2d(labels, modulation, 3, padding=1), nn.ReLU())
        self.mlp_gamma, self.mlp_beta = (nn.Conv2d(modulation, channels, 3, padding=1) for _ in range(2))

    def forward(self, plain: Float[Tensor, "B C H W"], features: Float[Tensor, "B L h w"]) -> Float[Tensor, "B C H W"]:
        """Scale by 1 + gamma and shift by beta, read from features enlarged to the size of what is scaled."""
        shared = convolve_enlarged(self.mlp_shared[0], features, plain.shape[2] // features.shape[2]).relu()
        return torch.addcmul(plain + self.mlp_beta(shared), plain, self.mlp_gamma(shared))


def convolve_enlarged(convolution: nn.Conv2d, x: Float[Tensor, "B C h w"], factor: int) -> Float[Tensor, "B D H W"]:
    """Return what a convolution of 3 x 3 makes of a picture whose pixels are repeated, at a fraction of the cost.

    Of the `factor` copies of a pixel along an axis, the first sees the pixel before and twice itself, the last itself
    twice and the pixel after, all others only themselves: their taps are added up beforehand.

    Args:
        convolution: With padding 1.
        x: Before it is enlarged.
        factor: How often each pixel is repeated in either direction.
    """
    if factor == 1:
        return convolution(x)
    (height, width), padded = x.shape[2:], pad(x, (1, 1, 1, 1))
    first, last, inner = (slice(0, 1), 0), (slice(factor - 1, factor), 1), (slice(1, factor - 1), 1)
    copies = [(first, ((0,), (1, 2))), (last, ((0, 1), (2,)))] + [(inner, ((0, 1, 2),))] * (factor > 2)
    enlarged = x.new_empty(len(x), convolution.out_channels, height, factor, width, factor)
    for (rows, top), down in copies:
        weight = torch.stack([convolution.weight[:, :, list(taps)].sum(2) for taps in down], 2)
        for (columns, left), right in copies:
            merged = torch.stack([weight[..., list(taps)].sum(3) for taps in right], 3)
            seen = padded[:, :, top : top + height + len(down) - 1, left : left + width + len(right) - 1]
            enlarged[:, :, :, rows, :, columns] = conv2d(seen, merged, convolution.bias)[:, :, :, None, :, None]
    return enlarged.flatten(4).flatten(2, 3)
