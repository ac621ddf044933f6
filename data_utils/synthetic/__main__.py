"""Command: make the procedural subject.

python -m data_utils.synthetic data/demo [--seconds 12] [--size 512] [--seed 0]
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from data_utils.process import show_progress
from data_utils.synthetic.subject import make_subject
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.errors import configure_logging, run_command


@dataclass(frozen=True)
class SyntheticOptions:
    """Make a licence-free talking person: a video with sound, and its truth beside it."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Subject folder; the video is named like it, for example data/demo/demo.mp4."""
    seconds: float = 12.0
    """Length of the video."""
    size: int = 512
    """Side of the square picture, px."""
    seed: int = 0
    """Which utterance, movement and small print of the skin."""
    debug: bool = False
    """Show the traceback of an error."""


def _make(options: SyntheticOptions) -> None:
    layout = SubjectLayout(options.folder)
    made = make_subject(layout, seconds=options.seconds, size=options.size, seed=options.seed, progress=show_progress)
    if not made:
        print("synthetic: up to date")
    print(layout.video)


def main() -> None:
    """Parse the command line and run."""
    options = tyro.cli(SyntheticOptions)
    configure_logging()
    run_command(lambda: _make(options), debug=options.debug)


if __name__ == "__main__":
    main()
