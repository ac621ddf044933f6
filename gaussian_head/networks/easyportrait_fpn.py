"""EasyPortrait's feature pyramid (Lin et al. 2017; Kvanchiani et al. 2023) on a ResNet-50; mmsegmentation's names.

Source: specs/one_shot.md 10, gaussian_head.md b.10. Neither mmcv nor mmsegmentation is needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor, nn
from torch.nn.functional import interpolate

from gaussian_head.errors import UserError
from gaussian_head.networks.resnet import ResNet
from gaussian_head.networks.weights import find_weights, load_into, load_state_dict

CLASSES = {
    8: ("background", "skin", "left brow", "right brow", "left eye", "right eye", "lips", "teeth"),
    9: ("background", "person", "skin", "left brow", "right brow", "left eye", "right eye", "lips", "teeth"),
    2: ("background", "person"),
}
"""What is told apart, by the number of classes: face parsing, its first edition, and the person alone."""
MEAN, STD = (143.55267075, 132.96705975, 126.94924335), (60.2625333, 60.32740275, 59.30988645)
"""Of EasyPortrait's RGB in 0..255."""
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""The first edition (9 classes) was trained with ImageNet's."""
LARGEST_STRIDE = 32


class EasyPortraitFpn(nn.Module):
    """Standardised RGB -> scores of the classes, at a quarter of the size."""

    def __init__(self, classes: int = 8) -> None:
        super().__init__()
        self.backbone = ResNet(50, stem="three")
        self.neck = Pyramid((256, 512, 1024, 2048), 256)
        self.decode_head = Head(256, 128, classes)

    def forward(self, pictures: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C _ _"]:
        """Score; sides of the pictures should be multiples of 32."""
        return self.decode_head(self.neck(self.backbone(pictures)))


class Pyramid(nn.Module):
    """Carries what the deep pictures say up to the shallow ones."""

    def __init__(self, inputs: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList([Plain(count, width, 1) for count in inputs])
        self.fpn_convs = nn.ModuleList([Plain(width, width, 3) for _ in inputs])

    def forward(self, pictures: list[Float[Tensor, "B _ _ _"]]) -> list[Float[Tensor, "B D _ _"]]:
        """Return as many pictures of the same sizes, all with as many channels."""
        levels = [lateral(picture) for lateral, picture in zip(self.lateral_convs, pictures, strict=True)]
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + interpolate(levels[i], levels[i - 1].shape[2:])
        return [convolution(level) for convolution, level in zip(self.fpn_convs, levels, strict=True)]


class Plain(nn.Module):
    """A convolution with bias, under the name that mmcv gives it."""

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, padding=size // 2)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H W"]:
        """Convolve."""
        return self.conv(x)


class Normalised(nn.Module):
    """A 3 x 3 convolution, normalisation and ReLU, under the names that mmcv gives them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H W"]:
        """Convolve."""
        return self.bn(self.conv(x)).relu()


class Head(nn.Module):
    """Brings the pyramid's levels to the first one's size, doubling after each convolution, and adds them."""

    def __init__(self, inputs: int, width: int, classes: int) -> None:
        super().__init__()
        self.conv_seg = nn.Conv2d(width, classes, 1)
        self.scale_heads = nn.ModuleList([nn.Sequential(Normalised(inputs, width))])
        for doublings in (1, 2, 3):
            layers = []
            for j in range(doublings):
                layers.append(Normalised(width if j else inputs, width))
                layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            self.scale_heads.append(nn.Sequential(*layers))

    def forward(self, levels: list[Float[Tensor, "B D _ _"]]) -> Float[Tensor, "B C _ _"]:
        """Score."""
        total = self.scale_heads[0](levels[0])
        for head, level in zip(self.scale_heads[1:], levels[1:], strict=True):
            total = total + interpolate(head(level), total.shape[2:], mode="bilinear", align_corners=False)
        return self.conv_seg(total)


@dataclass(frozen=True)
class FaceLabeller:
    """The network with its classes and the size of picture it was trained on."""

    network: nn.Module
    """`EasyPortraitFpn`, or another of its names and shapes."""
    classes: tuple[str, ...]
    side: int

    @torch.inference_mode()
    def label(self, frame: UInt8[ndarray, "H W 3"]) -> UInt8[ndarray, "H W"]:
        """Return each pixel's class, an index of `classes`.

        Args:
            frame: RGB, 0..255; its longer side is brought to `side`, the shorter to the nearest multiple of 32.
        """
        height, width = frame.shape[:2]
        scale = self.side / max(height, width)
        size = tuple(max(round(n * scale / LARGEST_STRIDE), 1) * LARGEST_STRIDE for n in (width, height))
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if len(self.classes) == 9 else (MEAN, STD)
        small = np.float32(cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR))
        standard = (small - np.float32(mean)) / np.float32(std)
        scores = self.network(torch.from_numpy(standard).permute(2, 0, 1)[None])
        scores = interpolate(scores, (height, width), mode="bilinear", align_corners=False)
        return scores[0].argmax(0).to(torch.uint8).numpy()


def load_face_labeller(given: Path | None = None, build: Callable[[int], nn.Module] = EasyPortraitFpn) -> FaceLabeller:
    """Load public weights of face parsing; the picture's size is in their file's name (`fpn-fp-512.pth`), or 384.

    Args:
        given: The file; default: see `networks.weights.find_weights`.
        build: Makes the network for a number of classes; `easyportrait_mmseg.MmsegFpn` is mmsegmentation's own.

    Raises:
        UserError: The file is missing, damaged, another network's, or knows no teeth.
    """
    path = find_weights("easyportrait", given)
    scores = load_state_dict(path).get("decode_head.conv_seg.bias", torch.zeros(8))
    classes = CLASSES.get(len(scores), ())
    if "teeth" not in classes:
        raise UserError(
            f"{path} tells {len(scores)} classes apart, expected 8 (face parsing): "
            "fetch an fpn-fp file, not one of fpn-ps."
        )
    side = re.search(r"-(\d+)$", path.stem)
    return FaceLabeller(load_into(build(len(classes)), path), classes, int(side[1]) if side else 384)
