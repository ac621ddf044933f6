"""From sound to the landmarks that speech moves, by ridge regression (specs/gaussian_head.md i.4).

Input: the audio features of the frames around each frame. Output: principal components of the displacement of lips,
chin and lower cheeks. Pose, blinks and brows come from elsewhere.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.numpy import load_file, save_file
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from gaussian_head.data.subject import Subject
from gaussian_head.driving.hearing import refuse_others
from gaussian_head.driving.ridge import choose_penalty, solve
from gaussian_head.driving.speech_points import speech_weights
from gaussian_head.errors import UserError
from gaussian_head.geometry.landmarks import mouth_aperture
from gaussian_head.media.files import replacing, write_bytes
from gaussian_head.media.mel import SILENCE

FORMAT = 1
REACH = 5
"""Frames before and after the current one that are heard: mouths open up to 150 ms before their sound."""
PARTS = 2
"""Each frame's feature window is averaged in this many parts."""
COMPONENTS = 16
CLAMP_SIGMAS = 2.5
SMOOTHING_FRAMES = 0.7
MOOD_FRAMES = 50.0
"""Drifts of the face slower than this (standard deviation) cannot be heard; they are no target."""
SILENCE_SHARE = 0.02
"""Weight of each kind of silence, as a share of the training frames."""
CLOSED_QUANTILE = 0.05
"""Training frames with a smaller aperture than this quantile show the closed mouth."""
LIVELINESS = 0.75
"""Regression shrinks motion; it is amplified until the lips move this much of what they truly do."""
LARGEST_GAIN = 2.5
LEAST_SPREAD = 0.05


@dataclass(frozen=True)
class RegressionFacts:
    """What a regression was fitted on, and how well it does."""

    extractor: str
    """Name of the audio features."""
    feature_shape: tuple[int, int]
    """Window length and width of one frame's features."""
    subject: str
    penalty: float
    """Ridge penalty chosen on held-out blocks of the train split."""
    gain: float = 1.0
    """Amplification that makes up for what the penalty shrinks."""
    train_aperture_correlation: float = 0.0
    """Pearson correlation of predicted and true mouth opening over the training frames, each held out in turn."""
    val_aperture_correlation: float = 0.0
    """The same over the val frames."""


class SpeechRegression:
    """A fitted map from audio features to speech landmarks."""

    def __init__(self, facts: RegressionFacts, tensors: dict[str, np.ndarray]) -> None:
        """Take over the parts.

        Args:
            facts: Where it comes from.
            tensors: mean_landmarks [478, 3] m; weights [478]; input_mean, input_scale [D]; matrix [D, K] from
                standardised input to whitened components; spread [K] m; basis [K, 478 * 3], components of the
                weighted displacement.
        """
        self.facts = facts
        self._tensors = tensors

    @classmethod
    def load(cls, folder: Path) -> SpeechRegression:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: The run has none.
            UserError: Another version wrote it.
        """
        path = folder / "regression.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing; finish the training: python -m gaussian_head.train all "
                f"--data data/<ID> --out {folder.parent}"
            )
        document = json.loads(path.read_text())
        if document.pop("format", None) != FORMAT:
            raise UserError(f"{path} is not of format {FORMAT}, which this version reads; train again.")
        document["feature_shape"] = tuple(document["feature_shape"])
        return cls(RegressionFacts(**document), load_file(folder / "regression.safetensors"))

    def save(self, folder: Path) -> None:
        """Write `regression.safetensors` and, last, `regression.json` into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "regression.safetensors") as temporary:
            save_file({k: np.ascontiguousarray(v, np.float32) for k, v in self._tensors.items()}, temporary)
        document = {"format": FORMAT, **asdict(self.facts)}
        write_bytes(folder / "regression.json", (json.dumps(document, indent=1) + "\n").encode())

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
        self.check(audio_features)
        t = self._tensors
        inputs = (stack_context(audio_features) - t["input_mean"]) * t["input_scale"]
        codes = gaussian_filter1d(inputs @ t["matrix"], SMOOTHING_FRAMES, axis=0, mode="nearest")
        return decode(t, codes, rest)

    def check(self, audio_features: np.ndarray) -> None:
        """Refuse features of another kind than those fitted on.

        Raises:
            UserError: Wrong number of axes, window or width.
        """
        facts = self.facts
        if audio_features.ndim != 3 or audio_features.shape[1:] != facts.feature_shape:
            window, width = facts.feature_shape
            raise UserError(
                f"audio features must be [frames, {window}, {width}], as in the training ({facts.extractor}), "
                f"got {list(audio_features.shape)}; extract them with {facts.extractor}, or train anew."
            )


def decode(
    tensors: dict[str, np.ndarray], codes: Float[np.ndarray, "T K"], rest: Float[Tensor, "T 478 3"] | None
) -> Float[Tensor, "T 478 3"]:
    """Turn whitened components, clamped to what is usual, into landmarks; `rest` as in `SpeechRegression.predict`."""
    codes = np.clip(codes, -CLAMP_SIGMAS, CLAMP_SIGMAS)
    speech = ((codes * tensors["spread"]) @ tensors["basis"]).reshape(-1, 478, 3)
    mean, weights = tensors["mean_landmarks"], tensors["weights"][:, None]
    still = mean if rest is None else rest.numpy()
    return torch.from_numpy(((1 - weights) * still + weights * mean + speech).astype(np.float32))


def stack_context(audio_features: Float[np.ndarray, "T W C"]) -> Float[np.ndarray, "T D"]:
    """Lay the features of frames i - REACH .. i + REACH side by side; the ends are repeated."""
    parts = np.array_split(audio_features, min(PARTS, audio_features.shape[1]), axis=1)
    frames = np.concatenate([part.mean(1) for part in parts], 1)
    around = np.arange(len(frames))[:, None] + np.arange(-REACH, REACH + 1)
    return frames[around.clip(0, len(frames) - 1)].reshape(len(frames), -1).astype(np.float64)


def load_features(subject: Subject, extractor: str) -> Float[np.ndarray, "T W C"]:
    """Read a subject's audio features, one row for each frame.

    Raises:
        FileNotFoundError: They have not been extracted.
        UserError: The file has another form, fewer rows than frames, or features of another extractor.
    """
    path = subject.layout.audio_features(extractor)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; run: python -m data_utils.process {subject.layout.video}")
    refuse_others(path, extractor)
    features = np.load(path, allow_pickle=False)
    if features.ndim != 3 or len(features) < subject.frames:
        raise UserError(
            f"{path} must be [{subject.frames} or more, window, width], got {list(features.shape)}; extract it again."
        )
    return features[: subject.frames].astype(np.float32)


def fit_speech_regression(subject: Subject, extractor: str = "mel") -> SpeechRegression:
    """Fit on the train split; measure on the val split.

    Args:
        subject: The person.
        extractor: Audio features to hear with, a key of AUDIO_FEATURE_FILES.

    Raises:
        FileNotFoundError: The features are missing.
        UserError: They do not fit the subject.
    """
    features = load_features(subject, extractor)
    train, val = np.array(subject.train), np.array(subject.val)
    landmarks = subject.landmarks.numpy().astype(np.float64)
    opening = mouth_aperture(landmarks)
    mean = landmarks[train].mean(0)
    weights = speech_weights(mean)
    basis, spread, codes = _components(((landmarks[train] - mean) * weights[:, None]).reshape(len(train), -1))

    inputs, silent = stack_context(features)[train], _silences(features[train], extractor)
    input_mean = inputs.mean(0)
    input_scale = 1 / (np.maximum(inputs.std(0), LEAST_SPREAD) * np.sqrt(inputs.shape[1]))
    x = (np.concatenate([inputs, silent]) - input_mean) * input_scale
    mood = gaussian_filter1d(codes, min(MOOD_FRAMES, len(train) / 4), axis=0, mode="reflect")
    closed = codes[opening[train] <= np.quantile(opening[train], CLOSED_QUANTILE)].mean(0)
    y = np.concatenate([codes - mood, np.tile(closed, (len(silent), 1))])
    importance = np.concatenate([np.ones(len(train)), np.full(len(silent), SILENCE_SHARE * len(train))])
    tensors = {"mean_landmarks": mean, "weights": weights, "input_mean": input_mean, "input_scale": input_scale,
               "spread": spread, "basis": basis}  # fmt: skip

    def opening_of(codes: Float[np.ndarray, "T K"]) -> Float[np.ndarray, " T"]:
        return mouth_aperture(decode(tensors, codes, None).numpy())

    penalty, held_out = choose_penalty(
        x, y, importance, len(train), lambda codes: correlation(opening_of(codes), opening[train])
    )
    heard = opening_of(held_out)
    gain = float(np.clip(LIVELINESS * opening[train].std() / max(heard.std(), 1e-6), 1, LARGEST_GAIN))
    tensors["matrix"] = gain * solve(x, y, importance, penalty)
    facts = RegressionFacts(
        extractor, features.shape[1:], subject.layout.subject, penalty, gain, correlation(heard, opening[train])
    )
    predicted = mouth_aperture(SpeechRegression(facts, tensors).predict(features).numpy())
    measured = replace(facts, val_aperture_correlation=correlation(predicted[val], opening[val]))
    return SpeechRegression(measured, tensors)


def correlation(a: Float[np.ndarray, " T"], b: Float[np.ndarray, " T"]) -> float:
    """Pearson correlation; 0 where one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm > 1e-12 else 0.0


def _components(
    moved: Float[np.ndarray, "T D"],
) -> tuple[Float[np.ndarray, "K D"], Float[np.ndarray, " K"], Float[np.ndarray, "T K"]]:
    """Find the principal components of centred data: basis, standard deviations, whitened codes."""
    _, singular, vh = np.linalg.svd(moved, full_matrices=False)
    basis, spread = np.zeros((COMPONENTS, moved.shape[1])), np.zeros(COMPONENTS)
    held = min(COMPONENTS, len(vh))
    basis[:held], spread[:held] = vh[:held], singular[:held] / np.sqrt(len(moved))
    spread = np.maximum(spread, 1e-6)
    return basis, spread, moved @ basis.T / spread


def _silences(features: Float[np.ndarray, "T W C"], extractor: str) -> Float[np.ndarray, "S D"]:
    """Make the inputs of silence: the recording's quietest spectrum, and for mel true silence."""
    levels = [np.quantile(features, 0.02, axis=(0, 1))]
    if extractor == "mel":
        levels.append(np.full(features.shape[2], SILENCE))
    still = [np.broadcast_to(level, (1, *features.shape[1:])) for level in levels]
    return np.concatenate([stack_context(window) for window in still])
