"""Stage `audio_features`: what the head hears of each frame, [frames, window, width], with its description beside it.

Also a command, for any sound: python -m data_utils.audio_features --wav x.wav --out x.npy
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from jaxtyping import Float32
from numpy import ndarray

from data_utils.stage import Progress, count_frames, no_progress
from gaussian_head.data.layout import SPEECH_HZ, VIDEO_FPS, SubjectLayout
from gaussian_head.errors import configure_logging, run_command
from gaussian_head.media import mel
from gaussian_head.media.audio import load_audio
from gaussian_head.media.files import replacing, write_bytes

Extractor = Literal["mel"]


@dataclass(frozen=True)
class _Extraction:
    """How one extractor turns speech into features."""

    features: Callable[[Float32[ndarray, "S"], int], Float32[ndarray, "T W C"]]
    """(speech at 16 kHz, number of frames) -> features."""
    description: dict[str, Any]


EXTRACTIONS: dict[Extractor, _Extraction] = {
    "mel": _Extraction(
        lambda speech, frames: mel.mel_windows(mel.log_mel(speech), frames),
        {
            "content": "log-mel bands relative to the clip's loud level: 1 there, -1 at 80 dB under it",
            "hop_samples": mel.HOP,
            "window_samples": mel.WINDOW,
            "low_hz": mel.LOW_HZ,
            "high_hz": mel.HIGH_HZ,
            "frame_window": "steps 4 i - 8 .. 4 i + 7 of 10 ms for frame i",
        },
    ),
}


def extract_audio_features(
    layout: SubjectLayout, extractor: Extractor = "mel", progress: Progress = no_progress
) -> dict[str, Any]:
    """Write `aud_<extractor>.npy` and its `.json` for the folder's own sound.

    Args:
        layout: The folder, with `aud.wav` and `ori_imgs/`.
        extractor: Which features.
        progress: Wraps the one step.

    Returns:
        Facts: the description.
    """
    out = layout.audio_features(extractor)
    descriptions = [
        write_audio_features(wav, out, extractor, count_frames(layout))
        for wav in progress([layout.speech], 1, "audio_features")
    ]
    return descriptions[0]


def write_audio_features(
    wav: Path, out: Path, extractor: Extractor = "mel", frames: int | None = None
) -> dict[str, Any]:
    """Extract the features of any sound.

    Args:
        wav: A sound or video file.
        out: The npy to write, float32 [frames, window, width]; a `.json` beside it describes it.
        extractor: Which features.
        frames: Number of video frames; default: as many as the sound lasts, at 25 fps.

    Returns:
        The description: extractor, shape, fps, rate_hz, samples, sha256 of the sound file, the extractor's numbers.

    Raises:
        FileNotFoundError: No such sound.
        UserError: The sound cannot be read.
    """
    speech = load_audio(wav, SPEECH_HZ)
    if frames is None:
        frames = math.ceil(len(speech) * VIDEO_FPS / SPEECH_HZ)
    extraction = EXTRACTIONS[extractor]
    features = extraction.features(speech, frames)
    description = {
        "extractor": extractor,
        "shape": list(features.shape),
        "fps": VIDEO_FPS,
        "rate_hz": SPEECH_HZ,
        "samples": len(speech),
        "sha256": hashlib.sha256(wav.read_bytes()).hexdigest(),
        **extraction.description,
    }
    with replacing(out) as temporary, temporary.open("wb") as file:
        np.save(file, features)
    write_bytes(out.with_suffix(".json"), (json.dumps(description, indent=1) + "\n").encode())
    return description


@dataclass(frozen=True)
class AudioFeatureOptions:
    """Turn a sound into audio features."""

    wav: Path
    """A sound or video file."""
    out: Path
    """The npy to write."""
    extractor: Extractor = "mel"
    """Which features."""
    debug: bool = False
    """Show the traceback of an error."""


def main() -> None:
    """Parse the command line and run."""
    options = tyro.cli(AudioFeatureOptions)
    configure_logging()

    def body() -> None:
        description = write_audio_features(options.wav, options.out, options.extractor)
        print(f"{options.extractor} features {description['shape']} of {description['samples'] / SPEECH_HZ:.2f} s")
        print(options.out)

    run_command(body, debug=options.debug)


if __name__ == "__main__":
    main()
