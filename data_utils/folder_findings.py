"""What is found wrong with a subject folder, ours or another tool's: each fault a line, and facts for a summary.

An error is what training would fail at (`gaussian_head.data.subject` and `driving.features` refuse it); a warning is
what it gets over, but the figures suffer from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from data_utils.complete import ANEW
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.data.transforms import Poses, Split

SAMPLED = 12
"""Frames, evenly spaced, whose pictures are looked at."""
SLACK_FRAMES = 5
"""Features and sound may end this many frames before the clip, as `gaussian_head.driving.features` has it."""
LEAST_SHARE = 0.8
"""Of the frames that must show a face."""


@dataclass(frozen=True)
class Fault:
    """Something that is not as it should be."""

    severity: Literal["error", "warning"]
    file: str
    """Relative to the folder."""
    expected: str
    found: str
    remedy: str

    def __str__(self) -> str:
        """Return the one line."""
        text = f"{self.severity}: {self.file}: expected {self.expected}, found {self.found}; {self.remedy}"
        return " ".join(text.split())


@dataclass
class Findings:
    """What is known of a folder so far."""

    layout: SubjectLayout
    faults: list[Fault] = field(default_factory=list)
    summary: dict[str, str] = field(default_factory=dict)
    poses: dict[Split, Poses] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    """Width and height in px of most targets."""
    landmarks: Float[ndarray, "T 478 3"] | None = None

    @property
    def numbers(self) -> list[int]:
        """Frames of both splits."""
        return sorted({k for part in self.poses.values() for k in part.frames})

    @property
    def frames(self) -> int:
        """Frames that tables and features must cover."""
        return len(self.landmarks) if self.landmarks is not None else max(self.numbers, default=-1) + 1

    def error(self, path: Path | str, expected: str, found: str, remedy: str) -> None:
        """Note what training fails at."""
        self.faults.append(Fault("error", self._name(path), expected, found, remedy))

    def warning(self, path: Path | str, expected: str, found: str, remedy: str) -> None:
        """Note what training gets over."""
        self.faults.append(Fault("warning", self._name(path), expected, found, remedy))

    def _name(self, path: Path | str) -> str:
        return path if isinstance(path, str) else path.relative_to(self.layout.root).as_posix()

    @property
    def is_ours(self) -> bool:
        """Whether `data_utils.process` made the folder."""
        return self.layout.manifest.is_file()

    def made_by(self, stage: str) -> str:
        """Say how a file is made that other tools do not make."""
        if self.is_ours:
            return f"run: python -m data_utils.process {self.layout.video} --only {stage} --force"
        return f"delete it if it is there, then run: python -m data_utils.complete {self.layout.root}"

    def made_anew(self, stage: str) -> str:
        """Say how a file is made that every tool makes."""
        return self.made_by(stage) if self.is_ours else ANEW


def frames_of(found: Findings, split: Split) -> list[int]:
    """Return the frames of one split, none where its file is damaged."""
    return found.poses[split].frames if split in found.poses else []


def among(numbers: list[int]) -> str:
    """Say how many frames share the fault that is told of the first."""
    return f" ({len(numbers)} frames are so)" if len(numbers) > 1 else ""


def spread(count: int) -> list[int]:
    """Choose SAMPLED indices out of `count`, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, SAMPLED).round().astype(int)).tolist() if count else []


def open_array(found: Findings, path: Path, form: str, stage: str, *, fatal: bool = True) -> ndarray | None:
    """Open an npy without reading all of it; note a damaged one."""
    try:
        return _open_array(path)
    except (ValueError, EOFError) as error:
        note = found.error if fatal else found.warning
        note(path, form, f"a damaged file ({str(error).splitlines()[0]})", found.made_by(stage))
        return None


def shape_of(found: Findings, path: Path, form: str, stage: str) -> tuple[int, ...] | None:
    """Return the shape of an npy and close it again; note a damaged one."""
    array = open_array(found, path, form, stage)
    return None if array is None else array.shape


def _open_array(path: Path) -> ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:  # an empty array cannot be mapped; anything else fails again
        return np.load(path, allow_pickle=False)


def said(error: Exception) -> str:
    """Return what an error found, without the file's name in front and the remedy behind."""
    cause = str(error.__cause__ or error)
    return cause.split("; ")[0].rpartition(": ")[2] if error.__cause__ is None else cause
