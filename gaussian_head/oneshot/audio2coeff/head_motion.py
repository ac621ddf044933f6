"""Head motion of any length from SadTalker's pose network, which decodes 32 frames at once (specs/one_shot.md 3.4)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Float32
from numpy import ndarray
from torch import Tensor

from gaussian_head.networks.sadtalker_pose import FRAMES, LATENT, POSE, PoseNetwork
from gaussian_head.oneshot.audio2coeff.hearing import Hearing
from gaussian_head.oneshot.audio2coeff.streams import cross_faded

OVERLAP = FRAMES // 2
Motion = Float32[ndarray, "6"]


def latents(seed: int) -> Iterator[Float32[ndarray, "64"]]:
    """Return latents without end: the same for the same seed on every machine."""
    draw = np.random.default_rng(seed)
    while True:
        yield draw.standard_normal(LATENT, np.float32)


class HeadMotion:
    """Decodes the motion of one head in one style; every motion is relative to the portrait's pose."""

    def __init__(self, network: PoseNetwork, hearing: Hearing, first: Float[ndarray, "6"], style: int) -> None:
        """Prepare.

        Args:
            network: Ready to use.
            hearing: What is said, at 25 frames/s.
            first: The portrait's angles (rad) and translation.
            style: 0..45.
        """
        self._network, self._hearing = network, hearing
        self._device = next(network.parameters()).device
        self._first = torch.from_numpy(np.float32(first))[None].to(self._device)
        self._style = torch.tensor([style], device=self._device)
        self._heard, self._heard_from = torch.zeros(0, 512, device=self._device), 0

    def faded(self, drawn: Iterator[Float32[ndarray, "64"]]) -> Iterator[Motion]:
        """Return the motion of every frame, without jumps.

        Frame 0 is the portrait's pose; from there the first chunk comes in, and every chunk goes out as the next, which
        overlaps it by half, comes in.
        """

        def predict(first: int, last: int, _: object) -> Float32[ndarray, "n 6"]:
            return self._decode(self._features(first + 1, first + 1 + FRAMES), next(drawn))[: last - first]

        yield np.zeros(POSE, np.float32)
        still = np.zeros((OVERLAP, POSE), np.float32)
        yield from cross_faded(predict, self._hearing.frames - 1, FRAMES, OVERLAP, still)

    def independent(self, drawn: Iterator[Float32[ndarray, "64"]]) -> Iterator[Motion]:
        """Return the motion of every frame as the reference does: chunks side by side, which jump at their borders.

        What is left after whole chunks is the end of a chunk that ends with the sound.
        """
        frames = self._hearing.frames
        yield np.zeros(POSE, np.float32)
        for first in range(1, frames, FRAMES):
            last = min(first + FRAMES, frames)
            start = last - FRAMES
            features = self._features(max(start, 1), last)
            features = torch.cat([features[:1].expand(max(0, 1 - start), -1), features])
            yield from self._decode(features, next(drawn))[first - last :]

    @torch.inference_mode()
    def _features(self, first: int, last: int) -> Float[Tensor, "n 512"]:
        """Return what is heard in frames 1 and later; what the call before returned is not computed again."""
        kept = self._heard[max(0, first - self._heard_from) :]
        begin = first + len(kept)
        if begin < last:
            windows = torch.from_numpy(self._hearing.windows(begin, last))[:, None].to(self._device)
            kept = torch.cat([kept, self._network.features(windows)])
        self._heard, self._heard_from = kept, first
        return kept

    @torch.inference_mode()
    def _decode(self, features: Float[Tensor, "32 512"], latent: Float32[ndarray, "64"]) -> Float32[ndarray, "32 6"]:
        drawn = torch.from_numpy(latent)[None].to(self._device)
        return self._network.decode(drawn, self._first, self._style, features[None])[0].cpu().numpy()
