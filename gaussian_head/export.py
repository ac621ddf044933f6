"""Command: write a trained head's Gaussians as PLY files that viewers of the field read.

python -m gaussian_head.export -S data/<ID> -M output/<name> --out DIR [--frames A:B | --canonical]
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor

from gaussian_head.data.subject import Subject
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.errors import UserError, configure_logging, run_command
from gaussian_head.media.files import replacing_folder
from gaussian_head.model.gaussians import Gaussians
from gaussian_head.model.head import Branch, Deformed, Head
from gaussian_head.model.ply import write_ply
from gaussian_head.progress import track
from gaussian_head.render.trained import load_trained

WRITTEN = ("*.ply", "cameras.json")


@dataclass(frozen=True)
class ExportOptions:
    """Write the Gaussians of a trained head, face and mouth together, as PLY files (3D Gaussian Splatting's layout)."""

    source: Annotated[Path, tyro.conf.arg(aliases=["-S"])]
    """Subject folder the head was trained on; read for --frames."""
    model: Annotated[Path, tyro.conf.arg(aliases=["-M"])]
    """Run folder of the training."""
    out: Path
    """Folder to write, in place of an earlier one."""
    frames: str | None = None
    """Frames A:B (B not included) of the clip of the val split, each deformed and written to a file; `:` is all."""
    canonical: bool = False
    """Write the head without expression (what happens without any choice)."""
    debug: bool = False
    """Show the traceback of an error."""


def export(options: ExportOptions) -> None:
    """Load, deform and write; see `ExportOptions`.

    Raises:
        UserError: The options contradict each other, or name frames that there are not.
    """
    if options.canonical and options.frames is not None:
        raise UserError("--canonical and --frames name two things to write; give one.")
    trained = load_trained(options.model)
    branches = (trained.head.face, trained.head.mouth)
    if options.frames is None:
        with replacing_folder(options.out, WRITTEN) as folder:
            write_ply(folder / "canonical.ply", joined(*(branch.gaussians.state_dict() for branch in branches)))
        print(options.out / "canonical.ply")
        return
    subject = Subject(options.source, trained.size)
    motion = DrivingSequence.from_subject(subject, subject.val, trained.head.config.audio_features)
    chosen = parse_frames(options.frames, len(motion))
    with replacing_folder(options.out, WRITTEN) as folder:
        sets = deformed(trained.head, motion, chosen)
        for i, gaussians in zip(chosen, track(sets, len(chosen), "exporting"), strict=True):
            write_ply(folder / f"{i:06d}.ply", gaussians)
        (folder / "cameras.json").write_text(json.dumps([camera(motion, i) for i in chosen], indent=1))
    print(options.out)


def parse_frames(text: str, length: int) -> range:
    """Turn A:B, A: or :B into the frames' numbers.

    Raises:
        UserError: It is not of that form, or leaves the clip's `length` frames.
    """
    match = re.fullmatch(r"(\d*):(\d*)", text)
    if match is not None:
        first, last = int(match[1] or 0), int(match[2] or length)
        if first < last <= length:
            return range(first, last)
    raise UserError(f"--frames must be A:B with 0 <= A < B <= {length}, the frames of the val split, got {text}.")


@torch.no_grad()
def deformed(head: Head, motion: DrivingSequence, frames: range) -> Iterator[dict[str, Tensor]]:
    """Yield the Gaussians of the whole head in some frames of a clip, in the head frame, as they would be stored."""
    prepared = [(branch, branch.prepare()) for branch in (head.face, head.mouth)]
    for i in frames:
        condition = head.space.condition(*motion.frame(i))
        yield joined(*(stored(branch, branch.deform(part, condition)) for branch, part in prepared))


def stored(branch: Branch, moved: Deformed) -> dict[str, Tensor]:
    """Undo the activations of deformed Gaussians; their opacities are the canonical ones."""
    return {
        "means": moved.means,
        "quats": moved.quats,
        "log_scales": moved.scales.log(),
        "opacity_logits": branch.gaussians.opacity_logits,
        "sh0": moved.sh[:, :1],
        "shN": moved.sh[:, 1:],
    }


def joined(*sets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put sets of Gaussians one after the other."""
    return {name: torch.cat([each[name] for each in sets]) for name in Gaussians.NAMES}


def camera(motion: DrivingSequence, i: int) -> dict[str, object]:
    """Describe frame i's camera as an entry of cameras.json (docs/formats.md)."""
    pose = torch.linalg.inv(motion.viewmats[i].double())
    return {
        "id": i,
        "img_name": f"{i:06d}",
        "width": motion.width,
        "height": motion.height,
        "position": pose[:3, 3].tolist(),
        "rotation": pose[:3, :3].tolist(),
        "fx": float(motion.K[0, 0]),
        "fy": float(motion.K[1, 1]),
    }


def main() -> None:
    """Parse the command line and run."""
    configure_logging()
    options = tyro.cli(ExportOptions)
    run_command(lambda: export(options), debug=options.debug)


if __name__ == "__main__":
    main()
