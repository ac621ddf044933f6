"""What a mouth does while it speaks, six numbers a frame, and the network that hears them.

The network is the one of `driving.audio_landmarks`, fed with the loudness-normalised mel; it knows no person. The one
that is shipped learned from procedural voices alone (`python -m gaussian_head.oneshot.mesh.pretrain`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from gaussian_head.config import from_json, to_json
from gaussian_head.driving.audio_landmarks import AudioLandmarkConfig, AudioLandmarkNet, Stream
from gaussian_head.media.described_tensors import read_described, write_described
from gaussian_head.media.mel import MelStream

FORMAT = "mouth-shapes-1"
FIELDS = ("aperture", "jaw", "width", "protrusion", "tuck", "tongue")
"""Gap of the lips and lowering of the jaw (face heights), width relative to rest, and rounding, tuck of the lower lip
and tip of the tongue (0..1)."""
CLOSED = np.array([0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
SHIPPED = Path(__file__).with_name("mouth_shapes.safetensors")


@dataclass(frozen=True)
class MouthShapes:
    """From sound to mouth shapes; its codes are the shapes, of zero mean and unit variance over the training."""

    net: AudioLandmarkNet
    mean: Float[Tensor, " 6"]
    scale: Float[Tensor, " 6"]
    """Of the shapes (`FIELDS`) over the training."""
    made: dict[str, object]
    """How it was made."""

    @classmethod
    def load(cls, path: Path = SHIPPED) -> MouthShapes:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: No such file.
            UserError: It is no such network.
        """
        remedy = (
            f"install the package again, or: python -m gaussian_head.oneshot.mesh.pretrain data/utterances --out {path}"
        )
        told, tensors = read_described(path, FORMAT, remedy)
        mean, scale = tensors.pop("shapes.mean"), tensors.pop("shapes.scale")
        net = AudioLandmarkNet(from_json(AudioLandmarkConfig, json.loads(told["network"])))
        net.load_state_dict(tensors)
        return cls(net.eval(), mean, scale, json.loads(told["made"]))

    def save(self, path: Path) -> None:
        """Write everything into one safetensors file, atomically."""
        told = {"network": json.dumps(to_json(self.net.config)), "made": json.dumps(self.made)}
        tensors = self.net.state_dict() | {"shapes.mean": self.mean, "shapes.scale": self.scale}
        write_described(path, FORMAT, told, tensors)

    def hear(
        self, speech: Float[ndarray, "S"], loud_db: float | None = None, block: int = 16_000
    ) -> Iterator[Float[ndarray, "T 6"]]:
        """Tell the shapes of a sound, piece by piece, 25 a second; memory does not grow.

        Args:
            speech: Samples at 16 kHz.
            loud_db: Its loud level (`media.mel.loud_level`); None: estimated from what was heard so far.
            block: Samples of each piece; changes nothing else.
        """
        mel, stream = MelStream(loud_db), Stream(self.net)
        for start in range(0, len(speech), block):
            yield self._shapes(stream.push(mel.push(speech[start : start + block])))
        yield self._shapes(torch.cat([stream.push(mel.flush()), stream.flush()]))

    def _shapes(self, codes: Float[Tensor, "T 6"]) -> Float[ndarray, "T 6"]:
        return (codes * self.scale + self.mean).numpy().astype(np.float64)
