"""Audio features as predictors take them: read, checked, averaged within a frame, and what silence looks like."""

from __future__ import annotations

import logging

import numpy as np
from jaxtyping import Float

from gaussian_head.data.subject import Subject
from gaussian_head.driving.hearing import refuse_others
from gaussian_head.errors import UserError
from gaussian_head.media.mel import SILENCE

PARTS = 2
"""Each frame's feature window is averaged in this many parts."""
MISSING_ROWS = 5
"""Other tools' arrays may end this many frames (0.2 s) before the clip: their last row is repeated, as the field's
readers do."""

logger = logging.getLogger(__name__)


def load_features(subject: Subject, extractor: str) -> Float[np.ndarray, "T W C"]:
    """Read a subject's audio features, one row for each frame.

    Raises:
        FileNotFoundError: They have not been extracted.
        UserError: The file is damaged, has another form, clearly fewer rows than frames, numbers that are none, or
            features of another extractor.
    """
    path = subject.layout.audio_features(extractor)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; run: python -m data_utils.process {subject.layout.video}")
    refuse_others(path, extractor)
    try:
        features = np.load(path, allow_pickle=False)
    except (EOFError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); extract it again.") from error
    short = subject.frames - len(features) if features.ndim == 3 else 0
    if features.ndim != 3 or short > MISSING_ROWS or not len(features):
        raise UserError(
            f"{path} must be [{subject.frames} or more, window, width], got {list(features.shape)}; extract it again."
        )
    features = features[: subject.frames].astype(np.float32)
    if not np.isfinite(features).all():
        raise UserError(f"{path} holds numbers that are not finite; extract it again.")
    if short > 0:
        logger.warning("%s ends %d frames before the clip; its last row is repeated.", path, short)
        features = np.concatenate([features, np.repeat(features[-1:], short, 0)])
    return features


def check_features(audio_features: np.ndarray, extractor: str, feature_shape: tuple[int, int]) -> None:
    """Refuse features of another kind than those a predictor was fitted on.

    Args:
        audio_features: What came.
        extractor: Name of the features of the training.
        feature_shape: Their window length and width.

    Raises:
        UserError: Wrong number of axes, window or width.
    """
    if audio_features.ndim != 3 or audio_features.shape[1:] != feature_shape:
        window, width = feature_shape
        raise UserError(
            f"audio features must be [frames, {window}, {width}], as in the training ({extractor}), "
            f"got {list(audio_features.shape)}; extract them with {extractor}, or train anew."
        )


def average_parts(audio_features: Float[np.ndarray, "T W C"]) -> Float[np.ndarray, "T D"]:
    """Average each frame's window in PARTS equal parts, laid side by side."""
    parts = np.array_split(audio_features, min(PARTS, audio_features.shape[1]), axis=1)
    return np.concatenate([part.mean(1) for part in parts], 1)


def silent_frames(audio_features: Float[np.ndarray, "T W C"], extractor: str) -> Float[np.ndarray, "S W C"]:
    """Make one frame of each kind of silence: the recording's quietest spectrum, and for mel true silence."""
    levels = [np.quantile(audio_features, 0.02, axis=(0, 1))]
    if extractor == "mel":
        levels.append(np.full(audio_features.shape[2], SILENCE))
    return np.stack([np.broadcast_to(level, audio_features.shape[1:]) for level in levels]).astype(np.float32)
