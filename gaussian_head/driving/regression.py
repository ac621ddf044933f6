"""From sound to the landmarks that speech moves, by ridge regression (specs/gaussian_head.md i.4).

Input: the audio features of the frames around each frame. Output: principal components of the displacement of lips,
chin and lower cheeks. Pose, blinks and brows come from elsewhere.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.numpy import load_file, save_file
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from gaussian_head.data.subject import Subject
from gaussian_head.driving.features import average_parts, check_features, load_features, silent_frames
from gaussian_head.driving.ridge import choose_penalty, solve
from gaussian_head.driving.speech_space import SpeechSpace
from gaussian_head.errors import UserError
from gaussian_head.geometry.landmarks import mouth_aperture
from gaussian_head.geometry.speech_points import lip_error_mm
from gaussian_head.media.files import replacing, write_bytes

FORMAT = 2
"""1 kept the speech space's tensors in its own file; it is still read."""
REACH = 5
"""Frames before and after the current one that are heard: mouths open up to 150 ms before their sound."""
SMOOTHING_FRAMES = 0.7
SMOOTHING_REACH = 3
"""Frames before and after that smoothing takes in: four standard deviations."""
SILENCE_SHARE = 0.02
"""Weight of each kind of silence, as a share of the training frames."""
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
    train_lip_error_mm: float = 0.0
    """Mean distance of predicted and true lip points over the training frames, each held out in turn."""
    val_lip_error_mm: float = 0.0
    """The same over the val frames."""


class SpeechRegression:
    """A fitted map from audio features to speech landmarks."""

    def __init__(self, facts: RegressionFacts, space: SpeechSpace, tensors: dict[str, np.ndarray]) -> None:
        """Take over the parts.

        Args:
            facts: Where it comes from.
            space: Of the subject's speech.
            tensors: input_mean, input_scale [D]; matrix [D, K] from standardised input to codes.
        """
        self.facts = facts
        self.space = space
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
        version = document.pop("format", None)
        if version not in (1, FORMAT):
            raise UserError(f"{path} is not of format {FORMAT}, which this version reads; train again.")
        document["feature_shape"] = tuple(document["feature_shape"])
        tensors = load_file(folder / "regression.safetensors")
        if version == 1:  # the explained variance was not recorded
            space = SpeechSpace(**{name: tensors.pop(name) for name in SpeechSpace.TENSORS}, explained=math.nan)
        else:
            space = SpeechSpace.load(folder)
        return cls(RegressionFacts(**document), space, tensors)

    def save(self, folder: Path) -> None:
        """Write the space, `regression.safetensors` and, last, `regression.json` into a folder."""
        self.space.save(folder)
        with replacing(folder / "regression.safetensors") as temporary:
            save_file({k: np.ascontiguousarray(v, np.float32) for k, v in self._tensors.items()}, temporary)
        document = {"format": FORMAT, **asdict(self.facts)}
        write_bytes(folder / "regression.json", (json.dumps(document, indent=1) + "\n").encode())

    def predict(
        self, audio_features: Float[np.ndarray, "T W C"], rest: Float[Tensor, "T 478 3"] | None = None
    ) -> Float[Tensor, "T 478 3"]:
        """Predict the face that speaks; see `SpeechPredictor.predict`."""
        self.check(audio_features)
        return self.space.decode(_smoothed(self.rough_codes(stack_context(audio_features))), rest)

    def rough_codes(self, context: Float[np.ndarray, "T D"]) -> Float[np.ndarray, "T K"]:
        """Predict codes of frames from what is heard around them (`stack_context`), not yet smoothed over time."""
        t = self._tensors
        # BLAS would wake its threads for each frame of a stream, which takes longer than the product.
        return np.einsum("td,dk->tk", (context - t["input_mean"]) * t["input_scale"], t["matrix"])

    @property
    def context(self) -> int:
        """Numbers that describe what is heard around one frame."""
        return len(self._tensors["matrix"])

    @property
    def look_ahead(self) -> int:
        """Frames after the current one that are heard."""
        return REACH + SMOOTHING_REACH

    def stream(self) -> RegressionStream:
        """Begin a new sound; see `StreamingPredictor.stream`."""
        return RegressionStream(self)

    def check(self, audio_features: np.ndarray) -> None:
        """Refuse features of another kind than those fitted on.

        Raises:
            UserError: Wrong number of axes, window or width.
        """
        check_features(audio_features, self.facts.extractor, self.facts.feature_shape)


class RegressionStream:
    """Feeds a regression frame by frame; what comes out is `look_ahead` frames late and equal to the whole file's."""

    def __init__(self, regression: SpeechRegression) -> None:
        """Begin a new sound."""
        self._regression = regression
        self._heard = Around(REACH, regression.context // (2 * REACH + 1))
        self._rough = Around(SMOOTHING_REACH, regression.space.basis.shape[0])
        impulse = np.eye(1, 2 * SMOOTHING_REACH + 1, SMOOTHING_REACH)[0]
        self._weights = gaussian_filter1d(impulse, SMOOTHING_FRAMES, mode="constant", radius=SMOOTHING_REACH)

    def push(self, features: Float[np.ndarray, "T W C"]) -> Float[Tensor, "R K"]:
        """Take some more frames; see `CodeStream.push`."""
        return self._smoothed(self._rough.push(self._codes(self._heard.push(average_parts(features)))))

    def flush(self) -> Float[Tensor, "R K"]:
        """End the sound; see `CodeStream.flush`."""
        due = self._rough.push(self._codes(self._heard.flush()))
        return self._smoothed(np.concatenate([due, self._rough.flush()]))

    def _codes(self, around: Float[np.ndarray, "R N D"]) -> Float[np.ndarray, "R K"]:
        return self._regression.rough_codes(around.reshape(len(around), self._regression.context).astype(np.float64))

    def _smoothed(self, around: Float[np.ndarray, "R N K"]) -> Float[Tensor, "R K"]:
        return torch.from_numpy(np.einsum("rnk,n->rk", around, self._weights))


class Around:
    """Gives each row with those around it, as soon as they are known; beyond the ends, the last row is repeated."""

    def __init__(self, reach: int, columns: int) -> None:
        """Begin, to give 2 reach + 1 rows of some columns at a time."""
        self._reach = reach
        self._held: Float[np.ndarray, "N D"] = np.zeros((0, columns))

    def push(self, rows: Float[np.ndarray, "T D"]) -> Float[np.ndarray, "R N D"]:
        """Take some more rows, and return those that can be told now, each with its neighbours."""
        if not len(self._held):
            self._held = np.repeat(rows[:1], self._reach, axis=0)
        held = np.concatenate([self._held, rows])
        told = max(0, len(held) - 2 * self._reach)
        self._held = held[told:]
        around = np.arange(told)[:, None] + np.arange(2 * self._reach + 1)
        return held[around]

    def flush(self) -> Float[np.ndarray, "R N D"]:
        """End: return the rows that are still due."""
        return self.push(np.repeat(self._held[-1:], self._reach, axis=0))


def stack_context(audio_features: Float[np.ndarray, "T W C"]) -> Float[np.ndarray, "T D"]:
    """Lay the features of frames i - REACH .. i + REACH side by side; the ends are repeated."""
    frames = average_parts(audio_features)
    around = np.arange(len(frames))[:, None] + np.arange(-REACH, REACH + 1)
    return frames[around.clip(0, len(frames) - 1)].reshape(len(frames), -1).astype(np.float64)


def fit_speech_regression(subject: Subject, extractor: str = "mel") -> SpeechRegression:
    """Fit on the train split; measure on the val split; see `fit_and_hold_out`."""
    return fit_and_hold_out(subject, extractor)[0]


def fit_and_hold_out(subject: Subject, extractor: str = "mel") -> tuple[SpeechRegression, Float[np.ndarray, "N K"]]:
    """Fit on the train split; measure on the val split.

    Args:
        subject: The person.
        extractor: Audio features to hear with, a key of AUDIO_FEATURE_FILES.

    Returns:
        The regression, and the codes of the training frames, each predicted by a fit that has not seen it; smoothed
        and amplified like every other prediction.

    Raises:
        FileNotFoundError: The features are missing.
        UserError: They do not fit the subject.
    """
    features = load_features(subject, extractor)
    train, val = np.array(subject.train), np.array(subject.val)
    landmarks = subject.landmarks.numpy().astype(np.float64)
    opening = mouth_aperture(landmarks)
    space = SpeechSpace.fit(landmarks[train])
    target, closed = space.targets(landmarks[train])

    silences = silent_frames(features[train], extractor)
    silent = np.concatenate([stack_context(frame[None]) for frame in silences])
    inputs = stack_context(features)[train]
    input_mean = inputs.mean(0)
    input_scale = 1 / (np.maximum(inputs.std(0), LEAST_SPREAD) * np.sqrt(inputs.shape[1]))
    x = (np.concatenate([inputs, silent]) - input_mean) * input_scale
    y = np.concatenate([target, np.tile(closed, (len(silent), 1))])
    importance = np.concatenate([np.ones(len(train)), np.full(len(silent), SILENCE_SHARE * len(train))])

    def opening_of(codes: Float[np.ndarray, "T K"]) -> Float[np.ndarray, " T"]:
        return mouth_aperture(space.decode(codes).numpy())

    penalty, held_out = choose_penalty(
        x, y, importance, len(train), lambda codes: correlation(opening_of(codes), opening[train])
    )
    heard = opening_of(held_out)
    gain = gain_for(heard, opening[train])
    tensors = {"input_mean": input_mean, "input_scale": input_scale, "matrix": gain * solve(x, y, importance, penalty)}
    facts = RegressionFacts(
        extractor, features.shape[1:], subject.layout.subject, penalty, gain,
        train_aperture_correlation=correlation(heard, opening[train]),
        train_lip_error_mm=lip_error_mm(space.decode(gain * held_out).numpy(), landmarks[train]),
    )  # fmt: skip
    predicted = SpeechRegression(facts, space, tensors).predict(features).numpy()[val]
    measured = replace(
        facts,
        val_aperture_correlation=correlation(mouth_aperture(predicted), opening[val]),
        val_lip_error_mm=lip_error_mm(predicted, landmarks[val]),
    )
    return SpeechRegression(measured, space, tensors), _smoothed(gain * held_out)


def _smoothed(codes: Float[np.ndarray, "T K"]) -> Float[np.ndarray, "T K"]:
    return gaussian_filter1d(codes, SMOOTHING_FRAMES, axis=0, mode="nearest", radius=SMOOTHING_REACH)


def gain_for(heard: Float[np.ndarray, " T"], true: Float[np.ndarray, " T"]) -> float:
    """Return the amplification that makes a held-out mouth opening as lively as LIVELINESS asks."""
    return float(np.clip(LIVELINESS * true.std() / max(heard.std(), 1e-6), 1, LARGEST_GAIN))


def correlation(a: Float[np.ndarray, " T"], b: Float[np.ndarray, " T"]) -> float:
    """Pearson correlation; 0 where one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm > 1e-12 else 0.0
