"""From audio features to the face that speaks: one protocol, and which predictor a run uses.

`driving/` of a run folder holds the speech space, every predictor that was fitted, and `predictor.json`, which names
the one in use with what was measured of each.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from gaussian_head.config import from_json, to_json
from gaussian_head.driving.audio_landmarks import AudioLandmarkConfig, AudioLandmarkNet, Stream
from gaussian_head.driving.features import check_features
from gaussian_head.driving.regression import RegressionFacts, SpeechRegression
from gaussian_head.driving.speech_space import SpeechSpace
from gaussian_head.errors import UserError
from gaussian_head.media.files import replacing, write_bytes

FORMAT = 1
CHOICE = "predictor.json"
PredictorName = Literal["ridge", "network"]


@runtime_checkable
class PredictorFacts(Protocol):
    """What every predictor tells of itself."""

    extractor: str
    """Name of the audio features."""
    feature_shape: tuple[int, int]
    """Window length and width of one frame's features."""


@runtime_checkable
class SpeechPredictor(Protocol):
    """Predicts the face that speaks."""

    @property
    def facts(self) -> PredictorFacts:
        """What it hears."""
        ...

    def predict(
        self, audio_features: Float[np.ndarray, "T W C"], rest: Float[Tensor, "T 478 3"] | None = None
    ) -> Float[Tensor, "T 478 3"]:
        """Predict the face that speaks.

        Args:
            audio_features: Of the extractor `facts.extractor`, one window a frame.
            rest: Landmarks (metres) that supply what speech does not move; the subject's mean face without.

        Returns:
            Landmarks, head frame, metres.

        Raises:
            UserError: The features are not of the shape of the training's.
        """
        ...

    def check(self, audio_features: np.ndarray) -> None:
        """Refuse features of another kind than the training's.

        Raises:
            UserError: Wrong number of axes, window or width.
        """
        ...


@runtime_checkable
class CodeStream(Protocol):
    """Speech codes of a sound that is still going on, equal to those of the whole sound."""

    def push(self, features: Float[np.ndarray, "T W C"]) -> Float[Tensor, "R K"]:
        """Take some more frames.

        Returns:
            Codes of the frames that can be told now, none at first: the r-th code that ever comes out is frame r's.
        """
        ...

    def flush(self) -> Float[Tensor, "R K"]:
        """End the sound, and return the codes that are still due."""
        ...


@runtime_checkable
class StreamingPredictor(SpeechPredictor, Protocol):
    """A predictor that can also hear a sound frame by frame."""

    space: SpeechSpace
    """Of the codes: `decode` makes them the landmarks that `predict` would give."""

    @property
    def look_ahead(self) -> int:
        """Frames after the current one that are heard: what a stream is late."""
        ...

    def stream(self) -> CodeStream:
        """Begin a new sound."""
        ...


@dataclass(frozen=True)
class NetworkFacts:
    """What a network was trained on, and how well it does."""

    extractor: str
    feature_shape: tuple[int, int]
    subject: str
    convolutions: float
    """Share of what the convolutions have learned that is taken: 0 leaves the linear path alone."""
    gain: float
    """Amplification that makes up for what training shrinks."""
    steps: int
    pretrained: bool
    """Whether it began from a network of other people."""
    train_aperture_correlation: float
    """Pearson correlation of predicted and true mouth opening over the training frames, each held out in turn."""
    val_aperture_correlation: float
    """The same over the val frames, by all members."""
    train_lip_error_mm: float
    """Mean distance of predicted and true lip points over the training frames, each held out in turn."""
    val_lip_error_mm: float
    """The same over the val frames, by all members."""


class SpeechNetwork:
    """A trained network with its subject's speech space."""

    def __init__(self, facts: NetworkFacts, space: SpeechSpace, net: AudioLandmarkNet) -> None:
        """Take over the parts."""
        self.facts = facts
        self.space = space
        self.net = net

    @classmethod
    def load(cls, folder: Path) -> SpeechNetwork:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: The run has none.
            UserError: Another version wrote it.
        """
        path = folder / "network.json"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; run: python -m gaussian_head.train landmarks "
                                    f"--data data/<ID> --out {folder.parent}")  # fmt: skip
        document = json.loads(path.read_text())
        if document.get("format") != FORMAT:
            raise UserError(f"{path} is not of format {FORMAT}, which this version reads; train again.")
        net = AudioLandmarkNet(from_json(AudioLandmarkConfig, document["network"]))
        net.load_state_dict(load_file(folder / "network.safetensors"))
        return cls(from_json(NetworkFacts, document["facts"]), SpeechSpace.load(folder), net)

    def save(self, folder: Path) -> None:
        """Write the space, `network.safetensors` and, last, `network.json` into a folder."""
        self.space.save(folder)
        with replacing(folder / "network.safetensors") as temporary:
            save_file({k: v.detach().contiguous() for k, v in self.net.state_dict().items()}, temporary)
        document = {"format": FORMAT, "network": to_json(self.net.config), "facts": to_json(self.facts)}
        write_bytes(folder / "network.json", (json.dumps(document, indent=1) + "\n").encode())

    @torch.no_grad()
    def predict(
        self, audio_features: Float[np.ndarray, "T W C"], rest: Float[Tensor, "T 478 3"] | None = None
    ) -> Float[Tensor, "T 478 3"]:
        """Predict the face that speaks; see `SpeechPredictor.predict`."""
        self.check(audio_features)
        return self.space.decode(self.net(audio_features).numpy(), rest)

    def check(self, audio_features: np.ndarray) -> None:
        """Refuse features of another kind than the training's; see `SpeechPredictor.check`."""
        check_features(audio_features, self.facts.extractor, self.facts.feature_shape)

    @property
    def look_ahead(self) -> int:
        """Frames after the current one that are heard."""
        return self.net.look_ahead

    def stream(self) -> Stream:
        """Begin a new sound; see `StreamingPredictor.stream`."""
        return Stream(self.net)


def better(ridge: RegressionFacts, network: NetworkFacts) -> PredictorName:
    """Name the predictor whose mouth opening correlates better on training frames held out; the ridge if alike."""
    wins = network.train_aperture_correlation > ridge.train_aperture_correlation
    return "network" if wins else "ridge"


def record_choice(
    folder: Path, used: PredictorName, asked: str, space: SpeechSpace, ridge: RegressionFacts, network: NetworkFacts
) -> None:
    """Write which predictor a run uses, what was asked for, what the speech space holds, and the figures of both."""
    figures = {
        f"{name}_{key}": round(value, 4)
        for name, facts in (("ridge", ridge), ("network", network))
        for key, value in asdict(facts).items()
        if key.startswith(("train_", "val_"))
    }
    held = {"components": len(space.basis), "explained_variance": round(space.explained, 6)}
    document = {"format": FORMAT, "used": used, "asked": asked, "figures": held | figures}
    write_bytes(folder / CHOICE, (json.dumps(document, indent=1) + "\n").encode())


def speech_figures(folder: Path) -> dict[str, str | float | int]:
    """Return what a run's predictors were measured to do, by name, and which is used; empty where none was chosen.

    `explained_variance` is the share of the lips' motion that the speech space holds; aperture correlations and lip
    errors are of frames held out: each training frame predicted by what has not seen it (`train_`), and the val frames.

    Raises:
        UserError: The file is damaged or of another version.
    """
    path = folder / CHOICE
    if not path.is_file():
        return {}
    document = _read(path)
    return {"predictor": document["used"], **document["figures"]}


def asked_for(folder: Path) -> str | None:
    """Return what was asked for when a run's predictor was chosen; None where none was."""
    path = folder / CHOICE
    return _read(path).get("asked") if path.is_file() else None


def load_predictor(folder: Path) -> SpeechPredictor:
    """Load the predictor that a run uses: the ridge regression in runs of before there was a choice.

    Args:
        folder: `driving/` of the run folder.

    Raises:
        FileNotFoundError: The run has none.
        UserError: A file is damaged or of another version.
    """
    path = folder / CHOICE
    used = _read(path)["used"] if path.is_file() else "ridge"
    return SpeechNetwork.load(folder) if used == "network" else SpeechRegression.load(folder)


def _read(path: Path) -> dict:
    try:
        document = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is damaged ({error}); delete it and train again.") from error
    if document.get("format") != FORMAT or document.get("used") not in ("ridge", "network"):
        raise UserError(f"{path} is not of format {FORMAT}, which this version reads; delete it and train again.")
    return document
