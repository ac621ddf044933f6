"""Command: a portrait and a voice become a video.

python -m gaussian_head.oneshot --portrait P --audio A [--out V.mp4] [--renderer auto|vid2vid|pirender|mesh]
    [--size 512] [--seed 0] [--motion X] [--mouth-gain X] [--blink-rate N]
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import tyro

from gaussian_head.data.layout import SPEECH_HZ
from gaussian_head.errors import UserError, configure_logging, run_command
from gaussian_head.media.audio import load_audio, warn_of_faults
from gaussian_head.media.video import VideoWriter
from gaussian_head.oneshot.pipelines import PipelineOptions, choose_pipeline
from gaussian_head.oneshot.source.source import WHITE, over
from gaussian_head.progress import track


@dataclass(frozen=True)
class OneShotOptions:
    """Let a portrait speak; no training, and with the built-in renderer no weights to download."""

    portrait: Path
    """Picture of a face; of several the largest speaks. The video has the picture's size, if it is not too small."""
    audio: Path
    """Any file with sound; the video gets its length."""
    out: Path | None = None
    """Video to write; default: output/PORTRAIT_AUDIO.mp4."""
    renderer: str = "auto"
    """auto: the best one whose weights are there; vid2vid and pirender: SadTalker's motion, drawn by a published
    network; mesh: the built-in baseline, which needs no weights."""
    size: int = 512
    """Px of the part around the head: pictures where it is smaller are enlarged, up to four times."""
    seed: int = 0
    """Decides the head's motion and the blinks."""
    motion: float = 1.0
    """How much the head moves, 0..2; 0: not at all."""
    mouth_gain: float = 1.0
    """How far the mouth opens, 0..2; 1 is as heard."""
    blink_rate: float = 15.0
    """Blinks a minute, 0..60."""
    debug: bool = False
    """Show the traceback of an error."""


def check(options: OneShotOptions) -> None:
    """Refuse numbers and names that make no sense.

    Raises:
        UserError: There is one.
    """
    if not 64 <= options.size <= 2048:
        raise UserError(f"--size must be 64..2048 px, got {options.size}.")
    if options.seed < 0:
        raise UserError(f"--seed must be 0 or more, got {options.seed}.")
    for flag, value, largest in (
        ("--motion", options.motion, 2), ("--mouth-gain", options.mouth_gain, 2),
        ("--blink-rate", options.blink_rate, 60),
    ):  # fmt: skip
        if not 0 <= value <= largest:
            raise UserError(f"{flag} must be 0..{largest}, got {value}.")
    if options.out is not None and options.out.suffix != ".mp4":
        raise UserError(f"--out must end in .mp4, got {options.out}.")


def speak(options: OneShotOptions) -> None:
    """Make the video; see `OneShotOptions`."""
    check(options)
    speech = load_audio(options.audio, SPEECH_HZ)
    warn_of_faults(speech, options.audio)
    name, pipeline = choose_pipeline(options.renderer)
    print(f"renderer {name}: {pipeline.told}")
    head = pipeline.open(
        PipelineOptions(
            options.portrait, options.size, options.seed, options.motion, options.mouth_gain, options.blink_rate
        )
    )
    out = options.out or Path("output") / f"{options.portrait.stem}_{options.audio.stem}.mp4"
    total = math.ceil(len(speech) * head.fps / SPEECH_HZ)
    started = time.perf_counter()
    frames = track(head.speak(speech), total, f"rendering {out.stem}")
    first = next(frames, None)
    if first is None:
        raise UserError(f"{options.audio} holds no sound long enough for a frame ({1 / head.fps:.2f} s).")
    (height, width), written = first.shape[:2], 0
    with VideoWriter(out, head.fps, width, height, audio=options.audio) as writer:
        for frame in chain([first], frames):
            writer.write(frame if frame.shape[2] == 3 else over(frame[..., :3], frame[..., 3], WHITE))
            written += 1
    seconds = time.perf_counter() - started
    print(f"{written} frames of {width} x {height} px: H.264 with sound")
    print(f"rendering and encoding: {written / seconds:.1f} frames/s")
    print(out)


def main() -> None:
    """Parse the command line and run."""
    configure_logging()
    options = tyro.cli(OneShotOptions)
    run_command(lambda: speak(options), debug=options.debug)


if __name__ == "__main__":
    main()
