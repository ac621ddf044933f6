"""FAN with adaptive wing loss (Wang et al. 2019): a face -> 98 points; `alignment_WFLW_4HG.pth` loads as it is.

Source: specs/one_shot.md 1.1. The public file's key `state_dict` is unwrapped on loading.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor, nn
from torch.nn import functional as F

from gaussian_head.media.image import resize
from gaussian_head.networks.weights import find_weights, load_into

SIDE, MAP_SIDE = 256, 64
"""Width and height of the picture shown and of the heat maps, px."""
POINTS = 98
STACKS, DEPTH = 4, 4
EDGE = 0.05
"""Where the map of the face's contours is above this, a place lies on one."""

_BROWS = [33, (34, 41), (35, 40), (36, 39), (37, 38), (42, 50), (43, 49), (44, 48), (45, 47), 46]
_EYES = [60, 61, 63, 64, 65, 67, 68, 69, 71, 72, 73, 75]
_PAIRS = [*range(0, 33, 2), *_BROWS, *range(51, 60), *_EYES, *range(76, 96)]
WFLW_TO_68 = np.array([entry if isinstance(entry, tuple) else (entry, entry) for entry in _PAIRS])
"""The two of the 98 points whose mean stands for each of the 68."""


class Fan(nn.Module):
    """Four hourglasses, each of which sees what the one before said."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = Placed(3 + 3, 64, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2, self.conv3, self.conv4 = Block(64, 128), Block(128, 128), Block(128, 256)
        maps = POINTS + 1
        for i in range(STACKS):
            self.add_module(f"m{i}", Hourglass(places=3 if i == 0 else 5))
            self.add_module(f"top_m_{i}", Block(256, 256))
            self.add_module(f"conv_last{i}", nn.Conv2d(256, 256, 1))
            self.add_module(f"bn_end{i}", nn.BatchNorm2d(256))
            self.add_module(f"l{i}", nn.Conv2d(256, maps, 1))
            if i < STACKS - 1:
                self.add_module(f"bl{i}", nn.Conv2d(256, 256, 1))
                self.add_module(f"al{i}", nn.Conv2d(maps, 256, 1))

    def forward(self, faces: Float[Tensor, "B 3 256 256"]) -> list[Float[Tensor, "B 99 64 64"]]:
        """Return each hourglass's heat maps of the 98 points and, last, of the contours; the last are the answer.

        Args:
            faces: RGB in [0, 1].
        """
        x = self.bn1(self.conv1(torch.cat([faces, coordinates(faces)], 1))).relu()
        x = self.conv4(self.conv3(F.avg_pool2d(self.conv2(x), 2)))
        answers: list[Tensor] = []
        for i in range(STACKS):
            part = {name: getattr(self, f"{name}{i}", None) for name in ("m", "top_m_", "conv_last", "bn_end", "l")}
            places = coordinates(x)
            if answers:
                places = torch.cat([places, on_contours(places[:, :2], answers[-1][:, -1:])], 1)
            y = part["top_m_"](part["m"](torch.cat([x, places], 1)))
            y = part["bn_end"](part["conv_last"](y)).relu()
            answers.append(part["l"](y))
            if i < STACKS - 1:
                x = x + getattr(self, f"bl{i}")(y) + getattr(self, f"al{i}")(answers[-1])
        return answers

    @torch.inference_mode()
    def find(self, rgb: UInt8[ndarray, "H W 3"], box: Float[ndarray, "4"]) -> Float[ndarray, "98 2"]:
        """Find the points of one face.

        The network wants RGB; SadTalker shows it BGR by mistake, which is not repeated here.

        Args:
            rgb: The picture, 0..255.
            box: (left, top, right, bottom) of the face, px; what reaches beyond the picture is cut off.

        Returns:
            x, y in px of the picture, pixel centres at + 0.5.

        Raises:
            ValueError: The box lies outside of the picture.
        """
        height, width = rgb.shape[:2]
        left, top = np.maximum(np.floor(box[:2]), 0).astype(int)
        right, bottom = np.minimum(np.ceil(box[2:]), (width, height)).astype(int)
        if right <= left or bottom <= top:
            raise ValueError(f"the box {np.round(box).tolist()} lies outside of the picture of {width} x {height} px.")
        face = resize(np.ascontiguousarray(rgb[top:bottom, left:right]), SIDE, SIDE)
        maps = self(torch.from_numpy(face).permute(2, 0, 1)[None].float() / 255)[-1]
        points = points_of(maps[:, :POINTS].numpy())[0]
        return points * (right - left, bottom - top) / MAP_SIDE + (left, top)


class Hourglass(nn.Module):
    """Looks at a picture at five sizes and adds what it sees."""

    def __init__(self, places: int) -> None:
        super().__init__()
        self.coordconv = Placed(256 + places, 256, 1)
        for level in range(DEPTH, 0, -1):
            self.add_module(f"b1_{level}", Block(256, 256))
            self.add_module(f"b2_{level}", Block(256, 256))
            self.add_module(f"b3_{level}", Block(256, 256))
        self.b2_plus_1 = Block(256, 256)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 256 H W"]:
        """Look."""
        return self._level(DEPTH, self.coordconv(x))

    def _level(self, level: int, x: Tensor) -> Tensor:
        if level == 0:
            return self.b2_plus_1(x)
        small = getattr(self, f"b2_{level}")(F.avg_pool2d(x, 2))
        small = getattr(self, f"b3_{level}")(self._level(level - 1, small))
        return getattr(self, f"b1_{level}")(x) + F.interpolate(small, scale_factor=2)


class Placed(nn.Module):
    """A convolution of a picture with its coordinates."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D I J"]:
        """Convolve."""
        return self.conv(x)


class Block(nn.Module):
    """Three convolutions, each of what the one before gave, side by side and beside a short cut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half, quarter = outputs // 2, outputs // 4
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), _convolution(inputs, half)
        self.bn2, self.conv2 = nn.BatchNorm2d(half), _convolution(half, quarter)
        self.bn3, self.conv3 = nn.BatchNorm2d(quarter), _convolution(quarter, quarter)
        self.downsample = nn.Identity()
        if inputs != outputs:
            layers = nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False)
            self.downsample = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H W"]:
        """Convolve."""
        near = self.conv1(self.bn1(x).relu())
        wider = self.conv2(self.bn2(near).relu())
        widest = self.conv3(self.bn3(wider).relu())
        return torch.cat([near, wider, widest], 1) + self.downsample(x)


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


def coordinates(pictures: Float[Tensor, "B C S S"]) -> Float[Tensor, "B 3 S S"]:
    """Return what the network is told of each place: row and column in [-1, 1], distance from the centre in [0, 1]."""
    side = torch.linspace(-1, 1, pictures.shape[-1], dtype=pictures.dtype, device=pictures.device)
    row, column = torch.meshgrid(side, side, indexing="ij")
    places = torch.stack([row, column, torch.hypot(row, column) / 2**0.5])
    return places.expand(len(pictures), -1, -1, -1)


def on_contours(places: Float[Tensor, "B 2 H W"], contours: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 2 H W"]:
    """Return row and column where a contour of the face was seen, 0 elsewhere."""
    return torch.where(contours > EDGE, places, 0)


def points_of(maps: Float[ndarray, "B N H W"], *, reference: bool = False) -> Float[ndarray, "B N 2"]:
    """Read places from heat maps: the greatest value, a quarter of a pixel towards its greater neighbour.

    Args:
        maps: Of N points.
        reference: Take the neighbours as SadTalker does: those of a flat array, so that rows run on into each other,
            and the array's last (first) value for every point as soon as one point lies in the last row (or first).
            By default a point at the edge, which has one neighbour, stays in the middle of its pixel.

    Returns:
        x, y in px of the map, pixel centres at + 0.5.
    """
    batch, count, height, width = maps.shape
    flat = maps.reshape(batch * count, height * width)
    peak = flat.argmax(1)
    y, x = np.divmod(peak, width)

    def value(places: ndarray) -> ndarray:
        return np.take_along_axis(flat, places[:, None], 1)[:, 0]

    if reference:
        below = np.full_like(peak, flat.shape[1] - 1) if (peak + width >= flat.shape[1]).any() else peak + width
        above = np.zeros_like(peak) if (peak - width <= 0).any() else peak - width
        slopes = [value(peak + 1) - value(peak - 1), value(below) - value(above)]
    else:
        inner_x, inner_y = (x > 0) & (x < width - 1), (y > 0) & (y < height - 1)
        slopes = [
            value(np.where(inner, peak + step, peak)) - value(np.where(inner, peak - step, peak))
            for step, inner in ((1, inner_x), (width, inner_y))
        ]
    return (np.stack([x, y], 1) + 0.5 + 0.25 * np.sign(np.stack(slopes, 1))).reshape(batch, count, 2)


def to_68(points: Float[ndarray, "*B 98 2"]) -> Float[ndarray, "*B 68 2"]:
    """Return the classic 68 of WFLW's 98 points; brows are the middle of their two edges."""
    return points[..., WFLW_TO_68, :].mean(-2)


def load_fan(given: Path | None = None) -> Fan:
    """Load the public weights.

    Args:
        given: The file; default: see `networks.weights.find_weights`.

    Raises:
        UserError: The file is missing, damaged, or another network's.
    """
    return load_into(Fan(), find_weights("fan", given))
