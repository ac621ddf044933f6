"""LPIPS (Zhang et al. 2018), v0.1 on AlexNet: how different two pictures look (specs/metrics.md section 2.4)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gaussian_head.errors import UserError
from gaussian_head.evaluation.metric import ClipFacts, Entry, FrameMetric, Pair, Unavailable
from gaussian_head.networks.alexnet import AlexNet, load_alexnet
from gaussian_head.networks.weights import WeightsMissingError, find_weights, load_state_dict

MEAN = (-0.030, -0.088, -0.188)
DEVIATION = (0.458, 0.448, 0.450)
"""ImageNet's, for pictures in [-1, 1]."""
HEAD_CHANNELS = (64, 192, 384, 256, 256)
SMALLEST_PX = 64
"""Smaller pictures and boxes are not judged: the deep layers would see little but their own padding."""

Heads = list[Float[Tensor, "1 _ 1 1"]]


class Lpips(FrameMetric):
    """LPIPS of the picture, and of the boxes around its regions."""

    entries: ClassVar[tuple[Entry, ...]] = (
        Entry(
            "lpips", "LPIPS", "", "lower", frozenset({"truth", "weights"}),
            "TalkingGaussian and ER-NeRF: lpips 0.1.4, net alex, normalize=True; specs/metrics.md section 2.4",
            "{:.4f}",
        ),
    )  # fmt: skip
    regions: ClassVar[tuple[str, ...]] = ("full", "head", "mouth")

    def __init__(self, clip: ClipFacts) -> None:
        super().__init__(clip)
        try:
            self._network = load_alexnet().to(clip.device)
            self._heads = [head.to(clip.device) for head in load_heads()]
        except WeightsMissingError as error:
            raise Unavailable(str(error)) from error

    def measure(self, pair: Pair) -> dict[tuple[str, str], float | None]:
        """Return the distance; None where a picture or box is too small."""
        boxes = {name: region.box for name, region in pair.regions.items() if region.mask.any()}
        boxes["full"] = (slice(None), slice(None))
        pictures = [look.unit.to(self.clip.device) for look in (pair.picture, pair.truth)]
        values = {}
        for name, box in boxes.items():
            cut, true_cut = (picture[..., *box] for picture in pictures)
            if min(cut.shape[2:]) >= SMALLEST_PX:
                values["lpips", name] = float(perceptual_distance(self._network, self._heads, cut, true_cut))
        return values

    def why_excluded(self, region: str) -> str:
        """Say why a frame may have no value."""
        if region == "full":
            return f"a side of the picture is under {SMALLEST_PX} px"
        return f"no face found, or a side of its box is under {SMALLEST_PX} px"


@torch.inference_mode()
def perceptual_distance(
    network: AlexNet, heads: Heads, pictures: Float[Tensor, "B 3 H W"], truths: Float[Tensor, "B 3 H W"]
) -> Float[Tensor, " B"]:
    """Return how far apart the features are, weighted and averaged over places; 0 for equal pictures.

    Args:
        network: AlexNet, with its published weights.
        heads: Weights >= 0 of the channels of its five layers.
        pictures: RGB in [0, 1] (mapped to [-1, 1] here).
        truths: What they should be.

    Raises:
        ValueError: The pictures differ in size.
    """
    if pictures.shape != truths.shape:
        raise ValueError(
            f"LPIPS needs pictures of one size, got {list(pictures.shape)} and {list(truths.shape)}; resize one."
        )
    mean, deviation = (pictures.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    seen, true_seen = (network((2 * image - 1 - mean) / deviation) for image in (pictures, truths))
    layers = zip(heads, seen, true_seen, strict=True)
    apart = [(head * (_directions(x) - _directions(y)).square()).sum(1).mean((1, 2)) for head, x, y in layers]
    return torch.stack(apart).sum(0)


def load_heads(given: Path | None = None) -> Heads:
    """Load the linear heads, v0.1, of AlexNet.

    Looked for as `networks.weights.find_weights` does, then inside an installed `lpips` package, which is not imported
    (that would need torchvision).

    Args:
        given: The file.

    Raises:
        WeightsMissingError: They are nowhere.
        UserError: The file is damaged, or something else.
    """
    path = _find_heads(given)
    held = load_state_dict(path)
    heads = []
    for layer, channels in enumerate(HEAD_CHANNELS):
        name, shape = f"lin{layer}.model.1.weight", (1, channels, 1, 1)
        if name not in held or held[name].shape != shape or (held[name] < 0).any():
            raise UserError(f"{path} is not LPIPS v0.1 for AlexNet: {name} must be {list(shape)} and >= 0.")
        heads.append(held[name].float())
    return heads


def _find_heads(given: Path | None) -> Path:
    try:
        return find_weights("lpips_heads", given)
    except WeightsMissingError:
        package = importlib.util.find_spec("lpips")
        bundled = Path(package.origin).parent / "weights" / "v0.1" / "alex.pth" if package and package.origin else None
        if given is None and bundled is not None and bundled.is_file():
            return bundled
        raise


def _directions(features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)
