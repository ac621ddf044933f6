"""CSIM: does ArcFace see the same person?"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from gaussian_head.errors import UserError
from gaussian_head.evaluation.metric import ClipFacts, Entry, FrameMetric, Pair, Unavailable
from gaussian_head.networks.arcface import load_arcface, whole_frame_input


class Csim(FrameMetric):
    """The cosine between the embeddings of each picture and of the true one, -1..1; 1 for equal pictures."""

    entries: ClassVar[tuple[Entry, ...]] = (
        Entry(
            "csim", "CSIM", "", "higher", frozenset({"truth", "weights"}),
            "ViCo's compute_csim.py: whole frames squeezed to 112 px without finding the face, ArcFace IResNet-100 "
            "ms1mv3, mean over frames (specs/metrics.md, 4.1)",
        ),
    )  # fmt: skip

    def __init__(self, clip: ClipFacts) -> None:
        super().__init__(clip)
        try:
            self._network = load_arcface(clip.device)
        except UserError as error:
            raise Unavailable(str(error)) from error

    @torch.no_grad()
    def measure(self, pair: Pair) -> dict[tuple[str, str], float | None]:
        """Compare one frame with the true one."""
        faces = torch.cat([whole_frame_input(look.rgb) for look in (pair.picture, pair.truth)])
        embedded = self._network(faces.to(self.clip.device))
        return {("csim", "full"): float(measure_csim(embedded[:1], embedded[1:])[0])}


def measure_csim(embedded: Float[Tensor, "T D"], truths: Float[Tensor, "_ _"]) -> Float[Tensor, "T"]:
    """Return the cosine of the angle between the embeddings of each frame (0 where one has no length).

    Raises:
        ValueError: Different numbers of frames or dimensions.
    """
    if embedded.shape != truths.shape:
        raise ValueError(f"both clips need as many embeddings, got {tuple(embedded.shape)} and {tuple(truths.shape)}.")
    return cosine_similarity(embedded, truths, dim=1, eps=1e-8)
