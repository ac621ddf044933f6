"""A sound that is still going on, frame by frame: `SpeechDriver.perform` without knowing what comes.

Sound of chunks of any length is cut anew into steps of 10 ms, and every part takes one step or one frame at a time: how
it came in chunks can change nothing. Of what `perform` measures over a whole clip - the loud level and the noise of
silence - a stream has estimates (`LiveLevel`, `LiveGate`), unless they were measured on an earlier recording.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gaussian_head.data.layout import SPEECH_HZ, VIDEO_FPS
from gaussian_head.driving.predictor import SpeechPredictor, StreamingPredictor
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.driving.silence import STEP_HZ, GateLevels, LiveGate, gate_levels
from gaussian_head.driving.speech import SpeechDriver, Surroundings
from gaussian_head.errors import UserError
from gaussian_head.media.mel import HEARS_AHEAD, MelStream, loud_level

STEP = SPEECH_HZ // STEP_HZ


class Voice(NamedTuple):
    """How loud somebody speaks into a microphone, and how loud the room is."""

    mel_db: float
    """Of the mel features; `media.mel.loud_level`."""
    gate: GateLevels

    @classmethod
    def measure(cls, speech: Float[np.ndarray, "S"]) -> Voice:
        """Measure a recording, some seconds of speech at 16 kHz with a pause.

        Raises:
            UserError: It holds no speech.
        """
        found = cls(loud_level(speech), gate_levels(speech))
        if not np.isfinite(found.gate.threshold):
            raise UserError("the recording of the voice is silent; give some seconds of speech with a pause.")
        return found


class Delay(NamedTuple):
    """Seconds between a moment of a sound and that at which its picture can be told, without chunks and computing."""

    look_ahead_s: float
    """Frames that the predictor hears ahead."""
    window_s: float
    """What the mel window of the last of them hears ahead. The gate makes do with what was heard until then."""

    @property
    def total_s(self) -> float:
        """Both."""
        return self.look_ahead_s + self.window_s


def stream_delay(predictor: SpeechPredictor) -> Delay:
    """Declare how far a stream is behind its sound.

    Raises:
        UserError: The predictor cannot stream; see `require_streaming`.
    """
    return Delay(require_streaming(predictor).look_ahead / VIDEO_FPS, HEARS_AHEAD / SPEECH_HZ)


def require_streaming(predictor: SpeechPredictor) -> StreamingPredictor:
    """Refuse a predictor that cannot hear a sound while it goes on.

    Raises:
        UserError: It hears features that need the whole sound, or cannot hear frame by frame.
    """
    extractor = predictor.facts.extractor
    if extractor != "mel":
        raise UserError(
            f"a stream hears mel features alone, but this head was trained with {extractor}, which needs whole "
            "sentences; train stage landmarks where mel is the subject's only features, or use synthesize --audio."
        )
    if not isinstance(predictor, StreamingPredictor):
        raise UserError(
            "this head's predictor cannot hear frame by frame; train one that can: "
            "python -m gaussian_head.train landmarks --predictor network"
        )
    return predictor


class LiveDriver:
    """Lets a person speak a sound while it goes on."""

    def __init__(self, driver: SpeechDriver, voice: Voice | None = None) -> None:
        """Prepare everything that a first frame would otherwise wait for.

        Args:
            driver: What moves the person.
            voice: Levels of the voice and the room, where they are known: then the motion is that of the whole sound,
                if that has these levels. None: they are estimated from what was heard so far.

        Raises:
            UserError: The head listens itself, or the predictor cannot stream (`require_streaming`).
        """
        if driver.head_hears is not None:
            raise UserError(
                "this head listens itself (--condition audio or both), which needs whole sentences; "
                "train one with --condition landmarks, or use synthesize --audio."
            )
        self.predictor = require_streaming(driver.predictor)
        self.driver = driver
        self._voice = voice
        self._surroundings = Surroundings(driver)

    def perform(self, chunks: Iterable[np.ndarray]) -> Iterator[DrivingSequence]:
        """Make motion of a sound while it goes on; a driver performs once.

        Args:
            chunks: Samples at 16 kHz in [-1, 1], in pieces of any length, empty ones too, that follow each other.

        Yields:
            Frames, one at a time, each as soon as it can be told; as many as it takes to cover the sound.

        Raises:
            UserError: A chunk is no sound.
        """
        mel = MelStream(None if self._voice is None else self._voice.mel_db)
        gate = LiveGate(None if self._voice is None else self._voice.gate)
        codes = self.predictor.stream()
        for step in in_steps(chunks):
            gate.hear(step)
            windows = mel.push(step)
            if len(windows):
                yield from self._frames(codes.push(windows).numpy(), gate)
        yield from self._frames(codes.push(mel.flush()).numpy(), gate)
        yield from self._frames(codes.flush().numpy(), gate)

    def _frames(self, codes: Float[np.ndarray, "R K"], gate: LiveGate) -> Iterator[DrivingSequence]:
        for code in codes:
            believed, loudness = gate.take()
            around = self._surroundings.take(np.array([loudness]))
            spoken = self.predictor.space.decode(code[None], around.landmarks)
            yield self.driver.with_mouth(around, spoken, np.array([believed]))


def in_steps(chunks: Iterable[np.ndarray]) -> Iterator[Float[np.ndarray, "S"]]:
    """Cut a sound that comes in chunks into steps of 160 samples; the last one may be shorter.

    Raises:
        UserError: A chunk is no row of finite floating-point numbers.
    """
    held = np.zeros(0, np.float32)
    for chunk in chunks:
        if chunk.ndim != 1 or chunk.dtype.kind != "f":
            raise UserError(
                "chunks of sound must be rows of floating-point samples in [-1, 1], mixed to one channel, "
                f"got {chunk.dtype} {list(chunk.shape)}; convert them first."
            )
        if not np.isfinite(chunk).all():
            raise UserError("a chunk of sound holds samples that are no finite numbers; leave it out, or give zeros.")
        held = np.concatenate([held, chunk.astype(np.float32)])
        whole = len(held) // STEP * STEP
        yield from held[:whole].reshape(-1, STEP)
        held = held[whole:]
    if len(held):
        yield held
