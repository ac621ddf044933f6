"""Stage `audio_features`: what the head hears of each frame, [frames, window, width], with its description beside it.

Also a command, for any sound: python -m data_utils.audio_features --wav speech.wav --model wavlm --out speech.npy
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from jaxtyping import Float32
from numpy import ndarray

from data_utils.stage import Progress, count_frames, no_progress
from gaussian_head.data.layout import SPEECH_HZ, VIDEO_FPS, SubjectLayout
from gaussian_head.errors import UserError, configure_logging, run_command
from gaussian_head.media import mel
from gaussian_head.media.audio import load_audio, warn_of_faults
from gaussian_head.media.files import replacing, write_bytes

Extractor = Literal["mel", "wavlm", "wavlm-base-plus", "hubert", "wav2vec2"]
Choice = Literal["auto", "mel", "wavlm", "wavlm-base-plus", "hubert", "wav2vec2"]
MEL = {
    "content": "log-mel bands relative to the clip's loud level: 1 there, -1 at 80 dB under it",
    "hop_samples": mel.HOP,
    "window_samples": mel.WINDOW,
    "low_hz": mel.LOW_HZ,
    "high_hz": mel.HIGH_HZ,
    "frame_window": "steps 4 i - 8 .. 4 i + 7 of 10 ms for frame i",
}


def choose_extractor(choice: Choice, layers: str = "last", weights: Path | None = None) -> Extractor:
    """Return what a choice means here: `auto` is WavLM where its weights are on disk, else mel.

    Args:
        choice: What the user asked for.
        layers: Of a speech encoder: which of its layers.
        weights: Of a speech encoder: its folder, given by the user.

    Raises:
        UserError: The weights of the one chosen are not on disk, or layers or weights are given of mel.
    """
    extractor = choice
    if choice != "mel":
        from gaussian_head.networks.pretrained_speech import find_encoder, preferred_encoder

        extractor = (preferred_encoder() or "mel") if choice == "auto" else choice
        if extractor != "mel":
            find_encoder(extractor, weights)
    if extractor == "mel" and (layers != "last" or weights is not None):
        raise UserError("mel features have neither layers nor weights; name the speech encoder that they are of.")
    return extractor


def extract_audio_features(
    layout: SubjectLayout, extractor: Extractor = "mel", layers: str = "last", progress: Progress = no_progress
) -> dict[str, Any]:
    """Write `aud_<extractor>.npy` and its `.json` for the folder's own sound.

    Args:
        layout: The folder, with `aud.wav` and `ori_imgs/`.
        extractor: Which features.
        layers: Of a speech encoder: which of its layers; see `write_audio_features`.
        progress: Wraps the one step.

    Returns:
        Facts: the description.
    """
    out = layout.audio_features(extractor)
    descriptions = [
        write_audio_features(wav, out, extractor, layers, frames=count_frames(layout))
        for wav in progress([layout.speech], 1, "audio_features")
    ]
    return descriptions[0]


def write_audio_features(
    wav: Path,
    out: Path,
    extractor: Extractor = "mel",
    layers: str = "last",
    *,
    weights: Path | None = None,
    frames: int | None = None,
) -> dict[str, Any]:
    """Extract the features of any sound.

    Args:
        wav: A sound or video file.
        out: The npy to write, [frames, window, width], float32 (mel) or float16; a `.json` beside it describes it.
        extractor: Which features.
        layers: Of a speech encoder: `last`, one of its layers (`9`), several with shares (`6:1,9:3`), or `mix`, the
            mean of all (`networks.speech_encoder.parse_layers`).
        weights: Of a speech encoder: its folder; default: where `networks.weights.find_weights` finds it.
        frames: Number of video frames; default: as many as the sound lasts, at 25 fps.

    Returns:
        The description: extractor, shape, fps, rate_hz, samples, sha256 of the sound file, the extractor's numbers.

    Raises:
        FileNotFoundError: No such sound.
        UserError: The sound cannot be read, or the encoder is not on disk or has no such layers.
    """
    if out.suffix != ".npy":
        raise UserError(f"--out must end in .npy, got {out}.")
    speech = load_audio(wav, SPEECH_HZ)
    warn_of_faults(speech, wav)
    if frames is None:
        frames = math.ceil(len(speech) * VIDEO_FPS / SPEECH_HZ)
    if extractor == "mel":
        told = _write_mel(out, speech, frames)
    else:
        told = _write_encoded(out, speech, frames, extractor, layers, weights)
    description = {
        "extractor": extractor,
        "fps": VIDEO_FPS,
        "rate_hz": SPEECH_HZ,
        "samples": len(speech),
        "sha256": _sha256(wav),
        **told,
    }
    write_bytes(out.with_suffix(".json"), (json.dumps(description, indent=1) + "\n").encode())
    return description


def _write_mel(out: Path, speech: Float32[ndarray, "S"], frames: int) -> dict[str, Any]:
    features = mel.mel_windows(mel.log_mel(speech), frames)
    with replacing(out) as temporary, temporary.open("wb") as file:
        np.save(file, features)
    return {"shape": list(features.shape), **MEL}


def _write_encoded(
    out: Path, speech: Float32[ndarray, "S"], frames: int, name: str, layers: str, weights: Path | None
) -> dict[str, Any]:
    """Write a speech encoder's features window by window: they never lie in memory as a whole."""
    from gaussian_head.networks import speech_encoder
    from gaussian_head.networks.pretrained_speech import find_encoder, load_encoder
    from gaussian_head.networks.weights import TABLE

    encoder = load_encoder(name, layers, weights)
    shape = (frames, speech_encoder.STEPS_PER_FRAME, encoder.width)
    with replacing(out) as temporary:
        features = np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
        encoder.fill(features, speech)
        features.flush()
    return {
        "extractor": name if encoder.layers == "last" else f"{name}/{encoder.layers}",
        "shape": list(shape),
        "model": TABLE[name].repository,
        "weights_sha256": _sha256(find_encoder(name, weights)),
        "layers": encoder.layers,
        "normalized": encoder.normalize,
        "steps_hz": SPEECH_HZ // speech_encoder.STEP,
        "window_s": speech_encoder.WINDOW * speech_encoder.STEP / SPEECH_HZ,
        "frame_window": "steps 2 i and 2 i + 1 of 20 ms for frame i",
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class AudioFeatureOptions:
    """Turn a sound into audio features."""

    wav: Path
    """A sound or video file."""
    out: Path | None = None
    """The npy to write, with a .json beside it; default: named like the sound."""
    model: Choice = "auto"
    """Which features: mel is built in, the others need weights on disk; auto: WavLM where its weights are, else mel."""
    layers: str = "last"
    """Of a speech encoder: last, one of its layers (9), several with shares (6:1,9:3), or mix, the mean of all."""
    weights: Path | None = None
    """Of a speech encoder: its folder, as downloaded (config.json, preprocessor_config.json, and the weights)."""
    debug: bool = False
    """Show the traceback of an error."""


def main() -> None:
    """Parse the command line and run."""
    options = tyro.cli(AudioFeatureOptions)
    configure_logging()

    def body() -> None:
        out = options.out or options.wav.with_suffix(".npy")
        extractor = choose_extractor(options.model, options.layers, options.weights)
        told = write_audio_features(options.wav, out, extractor, options.layers, weights=options.weights)
        print(f"{told['extractor']} features {told['shape']} of {told['samples'] / SPEECH_HZ:.2f} s")
        print(out)

    run_command(body, debug=options.debug)


if __name__ == "__main__":
    main()
