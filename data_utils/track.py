"""Command: track the person in a video, without making a subject folder: poses, landmarks, action units in one file.

python -m data_utils.track VIDEO [--out FILE.safetensors] [--size 512] [--crop auto|none]
"""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from data_utils.frames import Crop, extract_frames
from data_utils.process import show_progress
from data_utils.stage import Progress, digest, no_progress
from data_utils.stages import build_stages
from gaussian_head.data.layout import VIDEO_FPS, SubjectLayout
from gaussian_head.errors import UserError, configure_logging, run_command
from gaussian_head.geometry.cameras import intrinsics
from gaussian_head.geometry.landmarks import EXPRESSION_ACTION_UNITS
from gaussian_head.geometry.rotations import matrix_from_euler
from gaussian_head.media.files import replacing
from gaussian_head.media.image import read_rgb

logger = logging.getLogger(__name__)

FORMAT = "driving-sequence-1"
"""What `gaussian_head.driving.sequence` reads; this side of the disk writes it."""
STAGES = ("landmarks", "tracking")
"""The stages that are run; a track made by other versions of them is made anew."""
DECIMETRE_M = 0.1
OPENCV_FROM_OPENGL = torch.tensor([1.0, -1.0, -1.0])


@dataclass(frozen=True)
class TrackOptions:
    """Track the person in a video (format: docs/formats.md)."""

    video: Annotated[Path, tyro.conf.Positional]
    """Any video of one face; of several, the largest is followed."""
    out: Path | None = None
    """File to write; default: beside the video, with the suffix .safetensors."""
    size: int = 512
    """Longer side of the pictures that are looked at, px."""
    crop: Crop = "auto"
    """auto: a square around the head is cut out of a picture that is not square; none: all of it is looked at."""
    debug: bool = False
    """Show the traceback of an error."""


def track(options: TrackOptions, progress: Progress = no_progress) -> Path:
    """Track the video, unless the file is there and was made of the same video in the same way.

    Returns:
        The file.

    Raises:
        FileNotFoundError: No such video.
        UserError: It is no video, too short, or shows no face in a fifth of its frames or more.
    """
    out = options.out or options.video.with_suffix(".safetensors")
    if out.suffix != ".safetensors":
        raise UserError(f"--out must end in .safetensors, got {out}.")
    if not 64 <= options.size <= 2048 or options.size % 2:
        raise UserError(f"--size must be an even number from 64 to 2048, got {options.size}.")
    with tempfile.TemporaryDirectory(prefix="gaussian_head_") as scratch:
        layout = SubjectLayout(Path(scratch) / "somebody")
        stages = build_stages(layout, size=options.size, crop=options.crop, extractor="mel")
        made = json.dumps({
            "video_sha256": digest(options.video), "size": options.size, "crop": options.crop,
            **{name: stages[name].version for name in ("frames", *STAGES)},
        })  # fmt: skip
        if _made(out) == made:
            print(f"{options.video}: tracked already")
            return out
        extract_frames(options.video, layout, options.size, options.crop, progress)
        for name in STAGES:
            facts = stages[name].run(progress)
        tensors, (width, height) = _tensors(layout), _size(layout)
    lost = len(facts["invalid_frames"])
    if lost:
        logger.warning("%s: no face in %d of %d frames; they are interpolated.", options.video, lost, facts["frames"])
    scalars = {"format": FORMAT, "width": str(width), "height": str(height), "fps": str(VIDEO_FPS), "made": made}
    with replacing(out) as temporary:
        save_file(tensors, temporary, metadata=scalars)
    return out


def _tensors(layout: SubjectLayout) -> dict[str, torch.Tensor]:
    """Read what the stages wrote, as a driving sequence's parts."""
    from data_utils.action_units import measure_action_units

    landmarks = np.load(layout.landmarks_3d)
    frames = len(landmarks)
    params = torch.load(layout.track_params, weights_only=True)
    poses = torch.eye(4).repeat(frames, 1, 1)
    poses[:, :3, :3] = matrix_from_euler(params["euler"])
    poses[:, :3, 3] = params["trans"] * DECIMETRE_M
    poses[:, :3] *= OPENCV_FROM_OPENGL[:, None]
    units = measure_action_units(landmarks)
    return {
        "viewmats": poses,
        "K": torch.from_numpy(intrinsics(float(params["focal"]), *_size(layout))).float(),
        "landmarks": torch.from_numpy(landmarks),
        "action_units": torch.from_numpy(np.stack([units[unit] for unit in EXPRESSION_ACTION_UNITS], 1)).float(),
        "hair": torch.zeros(frames, 0, 3),
        "frame_index": torch.arange(frames),
    }


def _size(layout: SubjectLayout) -> tuple[int, int]:
    height, width = read_rgb(layout.frame(0)).shape[:2]
    return width, height


def _made(out: Path) -> str | None:
    """Return what an earlier file was made of; None where there is none that can be read."""
    try:
        with safe_open(str(out), framework="pt") as file:
            return (file.metadata() or {}).get("made")
    except (FileNotFoundError, SafetensorError):
        return None


def main() -> None:
    """Parse the command line and run."""
    options = tyro.cli(TrackOptions)
    configure_logging()
    run_command(lambda: print(track(options, show_progress)), debug=options.debug)


if __name__ == "__main__":
    main()
