"""Command: a portrait and a voice become a video.

python -m gaussian_head.oneshot --portrait P --audio A [--out V.mp4] [--renderer auto|mesh|vid2vid|pirender] [--seed 0]
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
from gaussian_head.oneshot.audio2coeff.sadtalker import SadTalkerOptions
from gaussian_head.oneshot.coefficient_head import CoefficientOptions
from gaussian_head.oneshot.face_renderer.vid2vid import Vid2VidOptions
from gaussian_head.oneshot.pipelines import PipelineOptions, choose_pipeline
from gaussian_head.oneshot.source.crop import Mode
from gaussian_head.oneshot.source.paste import PasteMethod
from gaussian_head.oneshot.source.source import SourceOptions
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
    """auto: the best one whose weights are there, of vid2vid (SadTalker), pirender, and mesh, the built-in baseline,
    which needs none."""
    size: int = 512
    """mesh: px of the part around the head; pictures where it is smaller are enlarged, up to four times. vid2vid: from
    512 on its network of 512 px, if that is there, else the one of 256."""
    seed: int = 0
    """Decides the head's motion and the blinks."""
    motion: float = 1.0
    """mesh: how much the head moves, 0..2; 0: not at all."""
    mouth_gain: float = 1.0
    """mesh: how far the mouth opens, 0..2; 1 is as heard."""
    blink_rate: float = 15.0
    """mesh: blinks a minute, 0..60."""
    mode: Mode = "crop"
    """vid2vid, pirender: crop, the face alone; extcrop, with a margin; resize, the whole picture squeezed; full and
    extfull, the whole picture, the crop pasted back in."""
    paste: PasteMethod = "box"
    """vid2vid, pirender, of full and extfull: the whole crop, fading out; face, the face alone; or seamless."""
    style: int = 0
    """vid2vid, pirender: whom of 46 people the head moves like."""
    still: bool = False
    """vid2vid, pirender: the head keeps its pose."""
    expression_scale: float = 1.0
    """vid2vid, pirender: above 1 for a livelier face."""
    pose_video: Path | None = None
    """vid2vid, pirender: a video whose head motion comes on top."""
    blink_video: Path | None = None
    """vid2vid, pirender: a video whose blinks are borrowed."""
    coefficients: Path | None = None
    """vid2vid, pirender: what the portrait shows (.mat); default: regressed from the picture."""
    yaw_deg: tuple[float, ...] = ()
    """vid2vid: angles that the head turns through."""
    enhancer: str | None = None
    """vid2vid, pirender: sharpens each frame; gfpgan, or a plug-in of your own."""
    batch: int = 2
    """vid2vid, pirender: frames drawn at once."""
    device: str = "auto"
    """vid2vid, pirender: cpu, cuda or cuda:NUMBER; auto: a GPU where there is one."""
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
    if options.batch < 1:
        raise UserError(f"--batch must be 1 or more, got {options.batch}.")
    if options.out is not None and options.out.suffix != ".mp4":
        raise UserError(f"--out must end in .mp4, got {options.out}.")


def pipeline_options(options: OneShotOptions) -> PipelineOptions:
    """Return what a pipeline is told."""
    motion = SadTalkerOptions(style=options.style, expression_scale=options.expression_scale, still=options.still)
    by_coefficients = CoefficientOptions(
        SourceOptions(options.mode, paste=options.paste), motion, options.coefficients, options.pose_video,
        options.blink_video, options.enhancer,
    )  # fmt: skip
    return PipelineOptions(
        options.portrait, options.size, options.seed, options.motion, options.mouth_gain, options.blink_rate,
        by_coefficients, Vid2VidOptions(batch=options.batch, yaw_deg=options.yaw_deg), options.device,
    )  # fmt: skip


def speak(options: OneShotOptions) -> None:
    """Make the video; see `OneShotOptions`."""
    check(options)
    speech = load_audio(options.audio, SPEECH_HZ)
    warn_of_faults(speech, options.audio)
    name, pipeline = choose_pipeline(options.renderer)
    print(f"renderer {name}: {pipeline.told}")
    head = pipeline.open(pipeline_options(options))
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
            writer.write(frame)
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
