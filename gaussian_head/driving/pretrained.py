"""A network trained on many people, in one file: what `train landmarks --init` begins with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from gaussian_head.config import from_json, to_json
from gaussian_head.driving.audio_landmarks import AudioLandmarkConfig, AudioLandmarkNet
from gaussian_head.errors import UserError
from gaussian_head.media.described_tensors import read_described, write_described

FORMAT = "audio-landmarks-1"


@dataclass(frozen=True)
class Pretrained:
    """The network, and the space that its codes are of."""

    net: AudioLandmarkNet
    extractor: str
    """Name of the audio features."""
    people: list[str]
    """Whom it was trained on."""
    basis: Float[Tensor, "K D"]
    """Components common to all, as from `speech_space.common_basis`."""
    spread: Float[Tensor, " K"]
    """Their standard deviations, in units of a person's amplitude."""

    @classmethod
    def load(cls, path: Path) -> Pretrained:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: No such file.
            UserError: It is no pretrained network.
        """
        remedy = f"make it with: python -m gaussian_head.pretrain_landmarks data/A data/B --out {path.parent}"
        told, tensors = read_described(path, FORMAT, remedy)
        basis, spread = tensors.pop("common.basis"), tensors.pop("common.spread")
        net = AudioLandmarkNet(from_json(AudioLandmarkConfig, json.loads(told["network"])))
        net.load_state_dict(tensors)
        return cls(net, told["extractor"], json.loads(told["people"]), basis, spread)

    def save(self, path: Path) -> None:
        """Write everything into one safetensors file, atomically."""
        told = {
            "extractor": self.extractor,
            "people": json.dumps(self.people),
            "network": json.dumps(to_json(self.net.config)),
        }
        tensors = self.net.state_dict() | {"common.basis": self.basis, "common.spread": self.spread}
        write_described(path, FORMAT, told, tensors)

    def check(self, extractor: str, feature_shape: tuple[int, int], look_ahead: int) -> None:
        """Refuse to begin a network of another kind.

        Raises:
            UserError: Other features, or another look-ahead.
        """
        config = self.net.config
        if (self.extractor, config.feature_shape) != (extractor, feature_shape):
            raise UserError(
                f"the pretrained network hears {self.extractor} features {list(config.feature_shape)}, the subject has "
                f"{extractor} features {list(feature_shape)}; extract {self.extractor}, or pretrain with {extractor}."
            )
        if config.look_ahead != look_ahead:
            raise UserError(
                f"the pretrained network looks {config.look_ahead} frames ahead, {look_ahead} were asked for; "
                f"give --look-ahead {config.look_ahead}, or pretrain with {look_ahead}."
            )
