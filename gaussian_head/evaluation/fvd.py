"""FVD: the Frechet distance between a video network's features of short stretches of the clip and of the true one."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8

from gaussian_head.errors import UserError
from gaussian_head.evaluation.frechet import frechet_figure
from gaussian_head.evaluation.metric import ClipFacts, Entry, Figure, Metric, Pair, Unavailable
from gaussian_head.networks.weights import load_program

STRETCH = 16
"""Frames of one feature vector; the next stretch begins where it ends, and a shorter rest is left out."""


class Fvd(Metric):
    """Whole pictures at the clip's own frame rate, 400 numbers for every stretch of 16 frames.

    Eight seconds have twelve stretches, so that one clip's figure says little: pool the features of many.
    """

    entries: ClassVar[tuple[Entry, ...]] = (
        Entry(
            "fvd", "FVD", "", "lower", frozenset({"truth", "weights"}),
            "Diffused Heads, by Laughing-Matters: I3D (Kinetics-400), its logits; clip length, stride and rate are not "
            f"published: ours are {STRETCH} frames, not overlapping, at the clip's own rate (specs/metrics.md, 3.3)",
            "{:.1f}",
        ),
    )  # fmt: skip

    def __init__(self, clip: ClipFacts) -> None:
        super().__init__(clip)
        try:
            self._network = load_program("i3d").to(clip.device)
        except UserError as error:
            raise Unavailable(str(error)) from error
        self._stretches: dict[str, list[UInt8[np.ndarray, "H W 3"]]] = {"fvd.picture": [], "fvd.truth": []}
        self._features: dict[str, list[Float[np.ndarray, " D"]]] = {"fvd.picture": [], "fvd.truth": []}
        self._frames = 0

    def update(self, pair: Pair) -> None:
        """Collect a stretch; when it is whole, keep its features and forget its pictures."""
        self._frames += 1
        for (name, stretch), look in zip(self._stretches.items(), (pair.picture, pair.truth), strict=True):
            stretch.append(look.rgb)
            if len(stretch) == STRETCH:
                self._features[name].append(extract(self._network, np.stack(stretch), self.clip.device))
                stretch.clear()

    def finish(self) -> list[Figure]:
        """Return the distance of this clip; frames of an unfinished stretch count as excluded."""
        rest = self._frames % STRETCH
        figure = frechet_figure(self.entries[0], self.features(), self._frames - rest)
        reason = figure.reason or (f"the last {rest} frames fill no stretch of {STRETCH}" if rest else "")
        return [replace(figure, excluded=rest, reason=reason)]

    def features(self) -> dict[str, Float[np.ndarray, "M D"]]:
        """Return `fvd.picture` and `fvd.truth`, a row for each stretch; nothing where the clip is shorter than one."""
        return {name: np.stack(rows) for name, rows in self._features.items() if rows}


@torch.no_grad()
def extract(
    network: torch.nn.Module, frames: UInt8[np.ndarray, "T H W 3"], device: torch.device
) -> Float[np.ndarray, " D"]:
    """Return the features of some consecutive pictures; the network resizes them and maps 0..255 to its own range."""
    video = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float().to(device)  # a copy: the network may write to it
    return network(video, rescale=True, resize=True, return_features=True)[0].double().cpu().numpy()
