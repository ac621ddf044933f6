"""Command: videos of speakers for a ViCo challenge folder, in six steps.

python -m gaussian_head.oneshot.challenge DATA OUT [--step N] [--method 1|2]
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from gaussian_head.config import to_json
from gaussian_head.device import choose_device
from gaussian_head.errors import configure_logging, run_command
from gaussian_head.oneshot.challenge.pipeline import run_challenge
from gaussian_head.oneshot.challenge.workers import NetworkWorkers, WorkerOptions
from gaussian_head.progress import track


@dataclass(frozen=True, kw_only=True)
class ChallengeRunOptions(WorkerOptions):
    """Make the videos of a ViCo 2023 challenge folder (talking heads): 1 keypoints and coefficients of first frames,
    2 coefficients from audio, rendered, 3 Wav2Lip on these, 4 keypoints and coefficients of its videos, 5 the first
    frames rendered again with these expressions and with head motion, 6 sound. What is up to date is skipped."""  # noqa: D205, D209

    data: Annotated[Path, tyro.conf.Positional]
    """Folder with audios/<uuid>.wav and first_frames/<uuid>.speaker.png (or videos/<uuid>.speaker.mp4), perhaps
    data.csv."""
    out: Annotated[Path, tyro.conf.Positional]
    """Folder for what the steps hand over, and submissions/."""
    step: Literal[1, 2, 3, 4, 5, 6] | None = None
    """Run this one only; default: all."""
    method: Literal[1, 2] = 2
    """2: by way of Wav2Lip; 1: what the expression network says is rendered (steps 1, 2, 5 and 6)."""
    debug: bool = False
    """Show the traceback of an error."""


def run(options: ChallengeRunOptions) -> None:
    """Run the steps; see `ChallengeRunOptions`."""
    workers = NetworkWorkers(options, choose_device(options.device))
    told = {key: str(value) for key, value in to_json(options).items()}
    kept = {key: told[key] for key in ("renderer", "side_px", "expression", "pose")}
    for path in run_challenge(options.data, options.out, workers, options.method, options.step, track, kept):
        print(path)


def main() -> None:
    """Parse the command line and run."""
    options = tyro.cli(ChallengeRunOptions)
    configure_logging()
    run_command(lambda: run(options), debug=options.debug)


if __name__ == "__main__":
    main()
