"""Command: new lips for a video or a picture.

python -m gaussian_head.oneshot.wav2lip --video V.mp4|P.png [--audio A.wav] [--out O.mp4] [--weights W.pth]
    [--pads TOP BOTTOM LEFT RIGHT] [--box TOP BOTTOM LEFT RIGHT] [--static] [--resize-factor N]
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from gaussian_head.device import choose_device
from gaussian_head.errors import UserError, configure_logging, run_command
from gaussian_head.media.audio import warn_of_faults
from gaussian_head.media.video import VideoWriter
from gaussian_head.oneshot.wav2lip.detectors import DetectorName
from gaussian_head.oneshot.wav2lip.footage import WHOLE, Crop, open_footage
from gaussian_head.oneshot.wav2lip.lip_sync import LipSync, LipSyncConfig
from gaussian_head.oneshot.wav2lip.loading import load_painter, speech_for_lips
from gaussian_head.progress import track


@dataclass(frozen=True, kw_only=True)
class Wav2LipOptions(LipSyncConfig):
    """Let the person in a video or a picture say what a sound says (Wav2Lip, Prajwal et al. 2020).

    Needs wav2lip_gan.pth or wav2lip.pth (scripts/prepare.sh says from where; for research only), or weights that
    `python -m gaussian_head.oneshot.train` made. The reference's own results: --smoothing ahead --cycle repeat --paste
    hard --rounding truncate --ending reference --detector s3fd --detector-px 0.
    """

    video: Path
    """A video, of any frame rate and length, or a picture."""
    audio: Path | None = None
    """Any file with sound; default: the video's own."""
    out: Path | None = None
    """Video to write (.mp4); default: output/wav2lip/<video>_<audio>.mp4."""
    weights: Path | None = None
    """The generator's; default: wav2lip_gan.pth, else wav2lip.pth."""
    static: bool = False
    """Use the first frame only."""
    fps: float = 25.0
    """Frame rate of the video that a picture becomes."""
    resize_factor: int = 1
    """Divide the video's sides by this first; Wav2Lip draws faces of 96 px, which large frames show."""
    turn_deg: Literal[0, 90, 180, 270] = 0
    """Then turn it clockwise."""
    crop: Crop = WHOLE
    """Then keep these rows and columns only: TOP BOTTOM LEFT RIGHT, -1 for the edge."""
    detector: DetectorName = "auto"
    """Finds the faces: s3fd (Wav2Lip's own, needs its weights) or mediapipe; auto: s3fd where its weights are."""
    device: str = "auto"
    """cpu, cuda or cuda:NUMBER; auto: a GPU where there is one."""
    debug: bool = False
    """Show the traceback of an error."""


def give_lips(options: Wav2LipOptions) -> None:
    """Draw and write; see `Wav2LipOptions`."""
    audio = options.audio or options.video
    out = options.out or Path("output") / "wav2lip" / f"{options.video.stem}_{audio.stem}.mp4"
    check(options, out)
    footage = open_footage(
        options.video, picture_fps=options.fps, static=options.static, resize_factor=options.resize_factor,
        turn_deg=options.turn_deg, crop=options.crop,
    )  # fmt: skip
    speech = speech_for_lips(audio)
    warn_of_faults(speech, audio)
    head = LipSync(footage, load_painter(options, options.weights, options.detector, choose_device(options.device)))
    frames = head.frames_for(speech)
    with VideoWriter(out, head.fps, footage.width, footage.height, audio=audio) as writer:
        for frame in track(head.speak(speech), frames, f"drawing lips into {options.video.name}"):
            writer.write(frame)
    print(f"{frames} frames of {footage.width} x {footage.height} px at {head.fps:g} a second: H.264 with sound")
    print(out)


def check(options: Wav2LipOptions, out: Path) -> None:
    """Refuse options that make no sense.

    Raises:
        UserError: They do not.
    """
    if out.suffix != ".mp4":
        raise UserError(f"--out must end in .mp4, got {out}.")
    if out.resolve() in {path.resolve() for path in (options.video, options.audio) if path is not None}:
        raise UserError(f"--out {out} is the input; give another name.")
    if not 1 <= options.fps <= 240:
        raise UserError(f"--fps must be 1..240, got {options.fps}.")
    if options.resize_factor < 1:
        raise UserError(f"--resize-factor must be 1 or more, got {options.resize_factor}.")


def main() -> None:
    """Parse the command line and run."""
    configure_logging()
    run_command(_run)


def _run() -> None:
    options = tyro.cli(Wav2LipOptions)  # inside, for options may refuse themselves
    run_command(lambda: give_lips(options), debug=options.debug)


if __name__ == "__main__":
    main()
