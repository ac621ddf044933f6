"""FID: the Frechet distance between Inception's features of the pictures and of the true footage."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from gaussian_head.errors import UserError
from gaussian_head.evaluation.frechet import frechet_figure
from gaussian_head.evaluation.metric import ClipFacts, Entry, Figure, Look, Metric, Pair, Unavailable
from gaussian_head.networks.inception import load_inception, tensorflow_input, torch_input

NEEDS = frozenset({"truth", "weights"})


class Fid(Metric):
    """Whole pictures, one feature vector each. A clip has far fewer than 2048 of them: compare equal lengths only.

    Memory grows by 32 KB a frame: the features are kept, because a table's FID is that of all clips' features together.
    """

    entries: ClassVar[tuple[Entry, ...]] = (
        Entry(
            "fid", "FID", "", "lower", NEEDS,
            "ViCo's compute_fid.py and Wav2Lip's pytorch-fid: torch's bilinear resize to 299, pool3 of TensorFlow's "
            "Inception-v3; the square root exact, where ViCo's reads about 0.03 higher (specs/metrics.md, 3.1, 3.2)",
            "{:.2f}",
        ),
        Entry(
            "fid_diffused", "FID (Diffused Heads)", "", "lower", NEEDS,
            "Diffused Heads, by torchmetrics and torch-fidelity: the same network behind TensorFlow 1's bilinear "
            "resize (specs/metrics.md, 3.2)",
            "{:.2f}",
        ),
    )  # fmt: skip

    def __init__(self, clip: ClipFacts) -> None:
        super().__init__(clip)
        try:
            self._network = load_inception(clip.device)
        except UserError as error:
            raise Unavailable(str(error)) from error
        names = [f"{entry.name}.{side}" for entry in self.entries for side in ("picture", "truth")]
        self._features: dict[str, list[Float[np.ndarray, " D"]]] = {name: [] for name in names}

    def update(self, pair: Pair) -> None:
        """Extract both pictures' features, behind both resizes."""
        found = extract(self._network, [pair.picture, pair.truth], self.clip.device)
        for held, feature in zip(self._features.values(), found, strict=True):
            held.append(feature)

    def finish(self) -> list[Figure]:
        """Return the distances of this clip."""
        features = self.features()
        frames = len(next(iter(self._features.values())))
        return [frechet_figure(entry, features, frames) for entry in self.entries]

    def features(self) -> dict[str, Float[np.ndarray, "M D"]]:
        """Return `fid.picture`, `fid.truth`, `fid_diffused.picture`, `fid_diffused.truth`; nothing without frames."""
        return {name: np.stack(rows) for name, rows in self._features.items() if rows}


@torch.no_grad()
def extract(network: nn.Module, looks: list[Look], device: torch.device) -> Float[np.ndarray, "N D"]:
    """Return the features of each picture behind torch's resize, then of each behind TensorFlow's."""
    inputs = [torch_input(look.unit.to(device)) for look in looks]
    inputs += [tensorflow_input(_bytes(look).to(device)) for look in looks]
    return network(torch.cat(inputs)).cpu().numpy()


def _bytes(look: Look) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(look.rgb)).permute(2, 0, 1)[None]
