"""From sound to a driving sequence of any length: the mouth from the sound, all else in the subject's own way.

Everything is made in chunks; only what each chunk needs is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gaussian_head.data.layout import SPEECH_HZ, VIDEO_FPS
from gaussian_head.data.subject import Subject
from gaussian_head.driving.hearing import hear, refuse_others
from gaussian_head.driving.ping_pong import ping_pong
from gaussian_head.driving.predictor import SpeechPredictor, load_predictor
from gaussian_head.driving.sequence import DrivingSequence, poses_between
from gaussian_head.driving.silence import loudness, speech_gate
from gaussian_head.driving.upper_face import (
    EYE_UNITS,
    Blinking,
    BrowDrift,
    Brows,
    Gaze,
    camera_direction,
    look_at_camera,
    made_up_blink,
    own_blink_rate,
    without_blinks,
)
from gaussian_head.driving.walk import Walk, find_loops, longest_run, torso_thumbnail
from gaussian_head.errors import UserError
from gaussian_head.geometry.landmarks import mouth_aperture
from gaussian_head.geometry.speech_points import speech_weights
from gaussian_head.media.audio import load_audio, warn_of_faults
from gaussian_head.model.audio_code import audio_windows

CHUNK = 250
"""Frames made at once: 10 s, of which the landmarks take 1.4 MB."""
HEARD_AROUND = 100
"""Frames of sound that a predictor hears on both sides of a chunk, so that seams cannot be seen: 4 s, more than the
reach of any of ours."""
CLOSED_QUANTILE = 0.05
"""The closed mouth is the mean of the footage's frames with a smaller opening than this quantile."""


Pose = Literal["walk", "still"] | Float[Tensor, "P 4 4"]


@dataclass(frozen=True)
class Manner:
    """How the head holds itself while it speaks."""

    seed: int = 0
    """Decides the walk, the blinks and the brows; the same seed gives the same motion."""
    pose: Pose = "walk"
    """Endless footage, one pose of it, or poses given (world to camera), played forth and back where they end."""
    blink_rate: float | int | None = None
    """Blinks a minute, 0..60; None: the subject's own."""
    mouth_gain: float | int = 1.0
    """How far the mouth opens from the closed one, 1 as predicted."""
    brow_gain: float | int = 1.0
    """How far the brows move, 1 as in the footage."""
    gaze: Gaze = "footage"
    """Eyes that look where they look in the footage, or that stay on the camera."""


MANNER = Manner()


class Heard(NamedTuple):
    """What a head is to say."""

    features: Float[np.ndarray, "T W C"]
    """Audio features, a row for each video frame."""
    speech: Float[np.ndarray, "S"] | None
    """The sound at 16 kHz, where there is one."""


@dataclass(frozen=True)
class SpeechDriver:
    """Lets a person speak any sound."""

    predictor: SpeechPredictor
    """Predicts the landmarks of a speaking face from audio features."""
    motion: DrivingSequence
    """Footage of the person; supplies pose, torso, hair, and the ways of eyes and brows."""
    manner: Manner = MANNER
    torso: Callable[[int], Float[np.ndarray, "h w 4"]] | None = None
    """Small pictures of the footage's torso (`walk.torso_thumbnail`), for jumps that it survives unseen."""
    head_hears: str | None = None
    """Extractor of the audio features that the head itself takes (`HeadConfig.audio_features`); None: it takes none."""

    def __post_init__(self) -> None:
        """Refuse a head that hears otherwise than the predictor.

        Raises:
            UserError: It does.
        """
        predicts_from = self.predictor.facts.extractor
        if self.head_hears not in (None, predicts_from):
            raise UserError(
                f"the head hears {self.head_hears} features, but its landmarks are predicted from {predicts_from}; "
                f"train stage landmarks on {self.head_hears} features, or the head anew, into another --out."
            )

    @classmethod
    def load(
        cls, run: Path, subject: Subject, frames: list[int], manner: Manner = MANNER, head_hears: str | None = None
    ) -> SpeechDriver:
        """Take a run folder's predictor, and some of its subject's frames for all that sound does not give.

        Raises:
            FileNotFoundError: The run has no predictor.
            UserError: A file is damaged or of another version.
        """
        footage = DrivingSequence.from_subject(subject, frames)
        thumbnail = partial(torso_thumbnail, subject.layout)
        return cls(load_predictor(run / "driving"), footage, manner, thumbnail, head_hears)

    def hear(self, speech: Float[np.ndarray, "S"]) -> Float[np.ndarray, "T W C"]:
        """Turn speech (16 kHz) into the audio features of the predictor, 25 rows a second.

        Raises:
            UserError: The predictor hears features that cannot be computed here.
        """
        return hear(self.predictor.facts.extractor, speech)

    def read(self, path: Path) -> Heard:
        """Read sound (any file with sound) or ready audio features (`.npy`, the sound beside it as `.wav`).

        Raises:
            FileNotFoundError: No such file.
            UserError: It is neither, or of another extractor or width than the head was trained with, or is shorter
                than a frame.
        """
        if path.suffix != ".npy":
            speech = load_speech(path)
            features = self.hear(speech)
        elif path.is_file():
            refuse_others(path, self.predictor.facts.extractor)
            features, sound = _read_array(path), path.with_suffix(".wav")
            speech = load_speech(sound) if sound.is_file() else None
        else:
            raise FileNotFoundError(f"{path} does not exist; give a sound file or an array of audio features.")
        self.predictor.check(features)
        if not len(features):
            raise UserError(f"{path} is empty; give a sound of at least one frame ({1 / VIDEO_FPS} s).")
        return Heard(features, speech)

    def perform(
        self, features: Float[np.ndarray, "T W C"], speech: Float[np.ndarray, "S"] | None = None, chunk: int = CHUNK
    ) -> Iterator[DrivingSequence]:
        """Make as many frames of motion as there are features, a chunk at a time.

        Args:
            features: What the predictor hears.
            speech: The sound itself, 16 kHz: silence closes the mouth, loudness lifts the brows. None: neither.
            chunk: Frames of each piece; changes nothing else.

        Yields:
            Pieces that follow each other.
        """
        frames = len(features)
        gate, loud = self._gate(speech, frames), np.zeros(frames) if speech is None else loudness(speech, frames)
        surroundings = Surroundings(self)
        for start in range(0, frames, chunk):
            stop = min(start + chunk, frames)
            around = surroundings.take(loud[start:stop])
            spoken = self._spoken(features, start, stop, around.landmarks)
            heard = None if self.head_hears is None else audio_windows(features, start, stop)
            yield replace(self.with_mouth(around, spoken, gate[start:stop]), audio=heard)

    def articulate(
        self, features: Float[np.ndarray, "T W C"], speech: Float[np.ndarray, "S"] | None, motion: DrivingSequence
    ) -> DrivingSequence:
        """Let motion that is given say what is heard, as `perform` does: all but the mouth is its own."""
        spoken = self._spoken(features, 0, len(features), motion.landmarks)
        return self.with_mouth(motion, spoken, self._gate(speech, len(features)))

    def drive(
        self, features: Float[np.ndarray, "T W C"], speech: Float[np.ndarray, "S"] | None = None
    ) -> DrivingSequence:
        """Return as many frames of motion as there are features, in one piece; see `perform`."""
        return DrivingSequence.join(list(self.perform(features, speech)))

    def with_mouth(
        self, around: DrivingSequence, spoken: Float[Tensor, "T 478 3"], gate: Float[np.ndarray, " T"]
    ) -> DrivingSequence:
        """Give motion the mouth that was predicted, opened from the closed one.

        Args:
            around: The rest of the motion.
            spoken: Predicted landmarks, metres.
            gate: How much of them is to be believed (`silence.speech_gate`).
        """
        closed = self.closed_mouth(around.landmarks)
        open_by = torch.from_numpy(self.manner.mouth_gain * gate).float()[:, None, None]
        return around.with_landmarks(closed + open_by * (spoken - closed))

    def closed_mouth(self, landmarks: Float[Tensor, "T 478 3"]) -> Float[Tensor, "T 478 3"]:
        """Close the mouth of faces (metres), as the subject does: lips and chin, fading out over the cheeks."""
        closed, weights = self._closed
        return torch.lerp(landmarks, closed.expand_as(landmarks), weights[:, None].expand_as(landmarks))

    def _gate(self, speech: Float[np.ndarray, "S"] | None, frames: int) -> Float[np.ndarray, " T"]:
        return np.ones(frames) if speech is None else speech_gate(speech, frames)

    def _spoken(
        self, features: Float[np.ndarray, "T W C"], start: int, stop: int, rest: Float[Tensor, "R 478 3"]
    ) -> Float[Tensor, "R 478 3"]:
        """Predict the landmarks of frames start..stop, having heard what is around them."""
        first, last = max(0, start - HEARD_AROUND), min(len(features), stop + HEARD_AROUND)
        before, behind = rest[:1].expand(start - first, -1, -1), rest[-1:].expand(last - stop, -1, -1)
        heard = self.predictor.predict(features[first:last], rest=torch.cat([before, rest, behind]))
        return heard[start - first : stop - first]

    @cached_property
    def _closed(self) -> tuple[Float[Tensor, "478 3"], Float[Tensor, " 478"]]:
        landmarks = self.motion.landmarks
        opening = mouth_aperture(landmarks.numpy())
        resting = torch.from_numpy(opening <= np.quantile(opening, CLOSED_QUANTILE))
        return landmarks[resting].mean(0), torch.from_numpy(speech_weights(landmarks.mean(0).numpy()))


class Surroundings:
    """Everything of a speaking head's motion that its sound does not give, for as many frames as are asked for."""

    def __init__(self, driver: SpeechDriver) -> None:
        """Start at the first frame; the same driver always starts the same."""
        manner, motion = driver.manner, driver.motion
        walk, blinking, drift = (int(seed) for seed in np.random.SeedSequence(manner.seed).generate_state(3))
        run = longest_run(motion.frame_index)
        motion = replace(motion, **{name: part[run] for name, part in motion.parts().items()})
        self.footage, blinks = without_blinks(motion)
        rate = manner.blink_rate
        if rate is None:
            rate = own_blink_rate(blinks, len(motion) / float(motion.fps))
        self._manner = manner
        self._walk = Walk(len(motion), find_loops(motion, driver.torso), walk)
        self._blinking = Blinking(blinks or [made_up_blink(motion)], rate, motion.fps, blinking)
        self._brows = Brows(self.footage)
        self._drift = BrowDrift(self._brows, motion.fps, drift)
        self._mean_face = self.footage.landmarks.mean(0)
        self._mean_eye = camera_direction(motion.viewmats).mean(0)
        self._still = _usual_frame(motion)
        self._frames = 0

    def take(self, loudness: Float[np.ndarray, " R"]) -> DrivingSequence:
        """Return the next frames, their mouths as in the footage.

        Args:
            loudness: Of those frames (`silence.loudness`).
        """
        frames = len(loudness)
        motion = self._posed(self.footage.blended(*self._walk.take(frames)))
        if self._manner.gaze == "camera":
            motion = motion.with_landmarks(look_at_camera(motion, self._mean_face, self._mean_eye))
        codes = self._manner.brow_gain * self._drift.take(loudness)
        landmarks, units = self._brows.placed(motion.landmarks, motion.action_units, codes)
        lids, change = self._blinking.take(frames)
        units[:, EYE_UNITS] = (units[:, EYE_UNITS] + change).clamp(0, 5)
        self._frames += frames
        return replace(motion, landmarks=landmarks + lids, action_units=units)

    def _posed(self, motion: DrivingSequence) -> DrivingSequence:
        """Hold the head as wanted. Poses other than the footage's stand before the torso of its most usual one."""
        pose = self._manner.pose
        if isinstance(pose, str) and pose == "walk":
            return motion
        held = torch.full((len(motion),), self._still)
        still = replace(
            motion,
            viewmats=self.footage.viewmats[held],
            hair=self.footage.hair[held],
            frame_index=self.footage.frame_index[held],
            fade_index=None,
            fade=None,
        )
        if isinstance(pose, str):
            return still
        positions = ping_pong(len(pose), len(motion), self._frames)
        low = positions.floor().long()
        high = (low + 1).clamp_max(len(pose) - 1)
        return replace(still, viewmats=poses_between(pose[low], pose[high], positions - low))


def _usual_frame(motion: DrivingSequence) -> int:
    """Return the frame whose pose is nearest to the mean."""
    places = motion.viewmats.flatten(1)
    return int((places - places.mean(0)).square().sum(1).argmin())


def load_speech(path: Path) -> Float[np.ndarray, "S"]:
    """Read sound to be spoken, 16 kHz, and warn of what makes the mouth move less well.

    Raises:
        FileNotFoundError: No such file.
        UserError: It is no sound, is shorter than a video frame, or holds numbers that are none.
    """
    speech = load_audio(path, SPEECH_HZ)
    if len(speech) < SPEECH_HZ // VIDEO_FPS:
        raise UserError(
            f"{path} lasts {1000 * len(speech) / SPEECH_HZ:.1f} ms; give a sound of at least one frame "
            f"({1000 // VIDEO_FPS} ms)."
        )
    if not np.isfinite(speech).all():
        raise UserError(f"{path} holds samples that are no finite numbers; export it again as 16-bit wav.")
    warn_of_faults(speech, path)
    return speech


def _read_array(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False).astype(np.float32)
    except (ValueError, EOFError) as error:
        raise UserError(
            f"{path} is no array of numbers in numpy's format ({error}); write it with numpy.save."
        ) from error
