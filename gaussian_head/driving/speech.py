"""From sound to a driving sequence: the mouth from the sound, pose, eyes and brows from tracked footage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from gaussian_head.data.layout import SPEECH_HZ, VIDEO_FPS
from gaussian_head.driving.hearing import hear, refuse_others
from gaussian_head.driving.ping_pong import ping_pong
from gaussian_head.driving.predictor import SpeechPredictor
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.errors import UserError
from gaussian_head.media.audio import load_audio, warn_of_faults


@dataclass(frozen=True)
class SpeechDriver:
    """Lets a person's tracked motion speak any sound."""

    predictor: SpeechPredictor
    motion: DrivingSequence
    """Supplies pose, torso, eyes and brows; played forth and back for as long as the sound lasts."""

    def hear(self, speech: Float[np.ndarray, "S"]) -> Float[np.ndarray, "T W C"]:
        """Turn speech (16 kHz) into the audio features of the predictor, 25 rows a second.

        Raises:
            UserError: The predictor hears features that cannot be computed here.
        """
        return hear(self.predictor.facts.extractor, speech)

    def read(self, path: Path) -> Float[np.ndarray, "T W C"]:
        """Read sound (any file with sound) or ready audio features (`.npy`).

        Raises:
            FileNotFoundError: No such file.
            UserError: It is neither, or of another extractor or width than the head was trained with, or is empty.
        """
        if path.suffix != ".npy":
            speech = load_audio(path, SPEECH_HZ)
            warn_of_faults(speech, path)
            features = self.hear(speech)
        elif path.is_file():
            refuse_others(path, self.predictor.facts.extractor)
            features = _read_array(path)
        else:
            raise FileNotFoundError(f"{path} does not exist; give a sound file or an array of audio features.")
        self.predictor.check(features)
        if not len(features):
            raise UserError(f"{path} is empty; give a sound of at least one frame ({1 / VIDEO_FPS} s).")
        return features

    def drive(self, features: Float[np.ndarray, "T W C"]) -> DrivingSequence:
        """Return as many frames of motion as there are features."""
        motion = self.motion.stretched(ping_pong(len(self.motion), len(features)))
        return motion.with_landmarks(self.predictor.predict(features, rest=motion.landmarks))


def _read_array(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False).astype(np.float32)
    except (ValueError, EOFError) as error:
        raise UserError(
            f"{path} is no array of numbers in numpy's format ({error}); write it with numpy.save."
        ) from error
