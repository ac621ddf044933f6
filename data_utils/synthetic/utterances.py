"""Command: make sound of many procedural voices, with what each sound does to the mouth; no pictures.

python -m data_utils.synthetic.utterances data/utterances [--count 48] [--seconds 40] [--seed 0]

What a network of `gaussian_head.oneshot.mesh.pretrain` learns from. The voices differ in pitch, length of the vocal
tract and pace, the recordings in room, microphone and noise.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from jaxtyping import Float
from numpy import ndarray
from scipy.signal import fftconvolve, lfilter

from data_utils.process import show_progress
from data_utils.synthetic.performance import articulate
from data_utils.synthetic.phonemes import SHAPE_FIELDS, Segment, compose
from data_utils.synthetic.voice import VOICE_HZ, speak
from gaussian_head.data.layout import SPEECH_HZ, VIDEO_FPS
from gaussian_head.errors import UserError, configure_logging, run_command
from gaussian_head.media.audio import fit_length, resample, write_wav
from gaussian_head.media.files import replacing, write_bytes

TRACT = (0.85, 1.28)
"""Resonances of a voice relative to the procedural subject's: long and short vocal tracts."""
PITCH = (0.75, 2.1)
PACE = (0.95, 1.6)
"""People speak faster than the procedural subject."""
NOISE_DB = (-60.0, -18.0)
"""Level of the noise relative to the speech."""
DESCRIPTION = "utterances.json"


@dataclass(frozen=True)
class UtteranceOptions:
    """Make sound of many procedural voices, with the mouth's shapes beside it."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Gets K.wav (16 kHz), K.npy (the shapes, 25 a second) and utterances.json."""
    count: int = 48
    """Number of utterances, each of a voice of its own."""
    seconds: float = 40.0
    """Length of each."""
    seed: int = 0
    """Which voices, utterances and rooms."""
    debug: bool = False
    """Show the traceback of an error."""

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        if self.count < 1 or not 1 <= self.seconds <= 600:
            raise UserError(f"--count must be 1 or more and --seconds 1..600, got {self.count} and {self.seconds}.")


def utter(seconds: float, rng: np.random.Generator) -> tuple[Float[ndarray, "S"], Float[ndarray, "T 6"]]:
    """Let one new voice say something in one new room.

    Args:
        seconds: How long.
        rng: Source of chance.

    Returns:
        Sound at 16 kHz in [-1, 1], and the mouth's shapes (`SHAPE_FIELDS`, cm) at 25 a second.
    """
    tract, pitch, pace = (float(np.exp(rng.uniform(*np.log(span)))) for span in (TRACT, PITCH, PACE))
    said = [_timed(s, 1 / pace) for s in compose(rng, seconds * pace)]
    # Played faster than spoken, a voice has a shorter tract; it is spoken as much slower and lower before.
    slow = [dataclasses.replace(_timed(s, tract), accent=s.accent * pitch / tract) for s in said]
    spoken = speak(slow, seconds * tract, rng)
    speech = resample(spoken, round(VOICE_HZ * tract), SPEECH_HZ)
    speech = fit_length(speech, round(seconds * SPEECH_HZ))
    return _recorded(speech, rng), articulate(said, round(seconds * VIDEO_FPS), VIDEO_FPS)


def _timed(segment: Segment, factor: float) -> Segment:
    return dataclasses.replace(segment, start_s=segment.start_s * factor, stop_s=segment.stop_s * factor)


def _recorded(speech: Float[ndarray, "S"], rng: np.random.Generator) -> Float[ndarray, "S"]:
    """Put a voice into a room and before a microphone."""
    decay_s = float(rng.uniform(0.01, 0.12))
    echo = rng.standard_normal(round(4 * decay_s * SPEECH_HZ))
    echo *= np.exp(-np.arange(len(echo)) / (decay_s * SPEECH_HZ))
    echo *= float(rng.uniform(0, 0.35)) / np.linalg.norm(echo)
    echo[0] += 1
    heard = fftconvolve(speech, echo)[: len(speech)]
    tilt = float(rng.uniform(-0.7, 0.7))  # a pole or zero near direct current: treble up or down
    heard = lfilter([1, -max(tilt, 0)], [1, min(tilt, 0)], heard)
    noise = lfilter([1], [1, -float(rng.uniform(0, 0.95))], rng.standard_normal(len(speech)))
    noise *= 10 ** (float(rng.uniform(*NOISE_DB)) / 20) * heard.std() / noise.std()
    heard = heard + noise
    return (0.7 * heard / np.abs(heard).max().clip(1e-9)).astype(np.float32)


def make_utterances(options: UtteranceOptions) -> None:
    """Write the folder; see `UtteranceOptions`."""
    for k in show_progress(range(options.count), total=options.count, label="utterances"):
        speech, shapes = utter(options.seconds, np.random.default_rng([options.seed, k]))
        write_wav(options.folder / f"{k}.wav", speech, SPEECH_HZ)
        with replacing(options.folder / f"{k}.npy") as temporary:
            np.save(temporary, shapes.astype(np.float32))
    told = {"schema": 1, "count": options.count, "seconds": options.seconds, "seed": options.seed,
            "rate_hz": SPEECH_HZ, "fps": VIDEO_FPS, "columns": list(SHAPE_FIELDS),
            "units": "aperture and jaw in cm of the procedural head; width relative; the others 0..1"}  # fmt: skip
    write_bytes(options.folder / DESCRIPTION, json.dumps(told, indent=1).encode())
    print(options.folder)


def main() -> None:
    """Parse the command line and run."""
    options = tyro.cli(UtteranceOptions)
    configure_logging()
    run_command(lambda: make_utterances(options), debug=options.debug)


if __name__ == "__main__":
    main()
