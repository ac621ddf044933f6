"""A finished run, ready to render."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gaussian_head.data.layout import SubjectLayout
from gaussian_head.errors import UserError
from gaussian_head.model.checkpoint import find_checkpoint
from gaussian_head.model.head import Head
from gaussian_head.model.torso import Torso


@dataclass(frozen=True)
class TrainedHead:
    """The head of a run folder's last stage, and how it was trained."""

    head: Head
    subject: str
    preset: str
    size: int
    """Longer side of the training pictures, px."""


def load_trained(run: Path) -> TrainedHead:
    """Load the head that a training has finished.

    Raises:
        FileNotFoundError: No such run.
        UserError: Its last stage has no checkpoint, or one of another format.
    """
    if not run.is_dir():
        raise FileNotFoundError(f"{run} is no run folder; train one with: python -m gaussian_head.train all "
                                f"--data data/<ID> --out {run}")  # fmt: skip
    checkpoint = find_checkpoint(run / "fuse")
    if checkpoint is None:
        raise UserError(f"{run} holds no finished head (stage fuse); continue the training: "
                        f"python -m gaussian_head.train all --data data/<ID> --out {run}")  # fmt: skip
    told = checkpoint.document
    return TrainedHead(checkpoint.load_head(), told["subject"], told["preset"], int(told["config"]["size"]))


def has_torso(run: Path) -> bool:
    """Tell whether a run folder has a checkpoint of the stage `torso`."""
    return find_checkpoint(run / "torso") is not None


def load_torso(run: Path, subject: SubjectLayout) -> Torso:
    """Load the torso of a run folder.

    Args:
        run: The run folder.
        subject: The person the torso must be of, since its camera is theirs.

    Raises:
        UserError: The run has no stage `torso`, one of another format, or one of another person.
    """
    checkpoint = find_checkpoint(run / "torso")
    if checkpoint is None:
        raise UserError(f"{run} has no torso of its own (stage torso); train it: python -m gaussian_head.train torso "
                        f"--data {subject.root} --out {run}")  # fmt: skip
    trained_on = checkpoint.document["subject"]
    if trained_on != subject.subject:
        raise UserError(f"{run} has the torso of {trained_on}, got subject folder {subject.root}; give {trained_on}'s.")
    return checkpoint.load_torso()
