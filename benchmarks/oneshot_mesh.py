"""How well and how fast the one-shot mesh renderer does on given portraits and voices.

python benchmarks/oneshot_mesh.py --portraits FOLDER --audio FOLDER [--seconds 3] [--markdown docs/oneshot.md]

Each portrait says the beginning of each sound. Measured on the frames before encoding: the correlation of the mouth's
opening as driven with the opening that MediaPipe finds in the frames, how the opening follows the sound, the share of
the picture that moves, how much the rest differs from the picture, and frames a second. A slow minute of the machine
slows some pairs: of the speeds, the fastest pair's says what the machine can do.
"""

from __future__ import annotations

import platform
import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from jaxtyping import Float
from numpy import ndarray

from gaussian_head.data.layout import SPEECH_HZ
from gaussian_head.driving.silence import loudness, speech_gate
from gaussian_head.errors import configure_logging, run_command
from gaussian_head.geometry.landmarks import mouth_aperture
from gaussian_head.media.audio import load_audio
from gaussian_head.media.files import write_bytes
from gaussian_head.networks.face_mesh import FaceMeshDetector
from gaussian_head.oneshot.mesh.acting import Actor, Manner
from gaussian_head.oneshot.mesh.head import MeshHead, read_portrait

SECTION = "<!-- benchmarks/oneshot_mesh.py: begin -->\n{}\n<!-- end -->"


@dataclass(frozen=True)
class MeshOptions:
    """Measure the one-shot mesh renderer."""

    portraits: Path
    """Folder of pictures."""
    audio: Path
    """Folder of sounds."""
    seconds: float = 3.0
    """Of each sound."""
    markdown: Path | None = None
    """Page whose table is replaced."""
    debug: bool = False
    """Show the traceback of an error."""


def measure(options: MeshOptions) -> None:
    """Measure all pairs; see `MeshOptions`."""
    rows, fastest = [], 0.0
    for picture in sorted(options.portraits.iterdir()):
        portrait = read_portrait(picture)
        actor = Actor(manner=Manner())
        head = MeshHead(portrait, actor)
        for sound in sorted(options.audio.iterdir()):
            row, speed = measure_pair(head, portrait.rgb, actor, sound, options.seconds)
            rows.append(f"| {picture.stem} | {sound.stem} | {row} |")
            fastest = max(fastest, speed)
            print(rows[-1])
    page = "\n".join([
        "| portrait | sound | opening found ~ driven | driven ~ loudness | opening in silence | still part | "
        "differs by | fps |", "|---|---|---|---|---|---|---|---|", *rows, "",
        f"{options.seconds:g} s each. Opening in silence: the widest, face heights. Still part: share of the picture. "
        f"Differs by: levels of 255 at most. Fastest pair: {fastest:.0f} frames/s ({platform.processor() or 'CPU'}, "
        "drawing alone, two frames at once).",
    ])  # fmt: skip
    if options.markdown is None:
        print(page)
        return
    begin, end = SECTION.split("{}")
    text = options.markdown.read_text()
    text = re.sub(re.escape(begin) + ".*?" + re.escape(end), lambda _: SECTION.format(page), text, flags=re.DOTALL)
    write_bytes(options.markdown, text.encode())
    print(options.markdown)


def measure_pair(head: MeshHead, picture: ndarray, actor: Actor, sound: Path, seconds: float) -> tuple[str, float]:
    """Return a row's numbers, and the frames a second."""
    speech = load_audio(sound)[: round(seconds * SPEECH_HZ)]
    poses = list(actor.act(speech))
    started = time.perf_counter()
    frames = list(head.show(poses))
    speed = len(frames) / (time.perf_counter() - started)
    driven = np.array([mouth_aperture(head.landmarks(pose)) for pose in poses])
    found = openings_found(frames)
    seen = np.isfinite(found)
    wanted = np.array([pose.aperture for pose in poses])
    quiet = wanted[speech_gate(speech, len(poses)) == 0]
    with_sound = _correlation(wanted, loudness(speech, len(poses)))
    still = ~head.moving_part
    differs = max(int(np.abs(frame[still].astype(int) - picture[still]).max(initial=0)) for frame in frames)
    row = f"{_correlation(found[seen], driven[seen]):.3f} | {with_sound:.2f} | {quiet.max(initial=0):.4f} | "
    return row + f"{still.mean():.2f} | {differs} | {speed:.0f}", speed


def openings_found(frames: list[ndarray]) -> Float[ndarray, " T"]:
    """Find the mouth's opening in frames, px; NaN where there is no face."""
    found = []
    with FaceMeshDetector() as detector:
        for frame in frames:
            points = detector.detect(frame)
            found.append(np.nan if points is None else mouth_aperture(points[:, :2]))
    return np.array(found)


def _correlation(a: ndarray, b: ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def main() -> None:
    """Parse the command line and run."""
    options = tyro.cli(MeshOptions)
    configure_logging()
    run_command(lambda: measure(options), debug=options.debug)


if __name__ == "__main__":
    main()
