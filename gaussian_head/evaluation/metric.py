"""What a metric is: a registry entry, a class fed one pair of pictures at a time, and figures.

A clip is measured in one pass, so that memory does not grow with its length: every metric sees each pair once and keeps
numbers only. What several metrics need of a picture (its mesh, its grey copy) is computed once, by `Look`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from gaussian_head.geometry.landmarks import MESH_TO_68

Rgb = UInt8[np.ndarray, "H W 3"]
Mesh = Float[np.ndarray, "478 3"]
Better = Literal["higher", "lower", "zero", "neither"]


class Unavailable(Exception):  # noqa: N818 -- no error: the report says why a figure is missing
    """A metric cannot be computed here; the message says what it needs, and is put into the report."""


@dataclass(frozen=True)
class Entry:
    """One figure of the registry: what it is called, what it needs, which way is better, and whose definition it is."""

    name: str
    """Key in reports and on the command line, as in `ssim_vico`."""
    title: str
    """Heading of its column."""
    unit: str
    """`dB`, `px`, `s`, `1/s`, ...; empty for plain numbers."""
    better: Better
    """`zero`: the smaller its absolute value; `neither`: to be compared with the true footage's."""
    needs: frozenset[str]
    """Of: truth, landmarks, audio, coefficients, action_units, transcript, camera, weights."""
    reference: str
    """Who defined it: paper or program, and the section of specs/metrics.md."""
    form: str = "{:.3f}"
    """How a value is written."""


@dataclass(frozen=True)
class Figure:
    """What came out for one entry and one region of the picture."""

    entry: str
    region: str
    """`full`, `head` or `mouth`; `full` where the region means nothing."""
    value: float | None
    """None where nothing could be measured; `reason` then says why."""
    counted: int
    """Frames (for clip-wide metrics: of the clip) that the value rests on."""
    excluded: int = 0
    """Frames left out, for example without a face."""
    reason: str = ""
    """Why frames were left out, or why there is no value."""
    trace: tuple[float | None, ...] = ()
    """The value frame by frame, where there is such a thing."""


@dataclass(frozen=True)
class Curve:
    """A figure over something that was varied, for a plot: the PSNR over the shift, the distance over the delay."""

    x_label: str
    """What was varied, and its unit."""
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    """One value for each of `x`, in the entry's unit or in `y_label`'s."""
    y_label: str = ""
    """What is drawn, where it is not the entry itself."""


class Look:
    """One picture, and what metrics ask of it, each computed at most once."""

    def __init__(self, rgb: Rgb, find_mesh: Callable[[Rgb], Mesh | None]) -> None:
        """Look at a picture; `find_mesh` is only called when somebody asks for the mesh."""
        self.rgb = rgb
        self._find_mesh = find_mesh

    @cached_property
    def gray(self) -> UInt8[np.ndarray, "H W"]:
        """Return round(0.299 R + 0.587 G + 0.114 B), OpenCV's."""
        return cv2.cvtColor(self.rgb, cv2.COLOR_RGB2GRAY)

    @cached_property
    def unit(self) -> Float[Tensor, "1 3 H W"]:
        """Return the picture in [0, 1]."""
        return torch.from_numpy(self.rgb).permute(2, 0, 1)[None] / 255

    @cached_property
    def mesh(self) -> Mesh | None:
        """Return the face mesh in px (pixel centres at + 0.5; z relative), or None where no face was found."""
        return self._find_mesh(self.rgb)

    @cached_property
    def landmarks68(self) -> Float[np.ndarray, "68 2"] | None:
        """Return the classic 68 points in px, material points of the mesh; None without a face."""
        return None if self.mesh is None else self.mesh[MESH_TO_68, :2]


@dataclass(frozen=True)
class Region:
    """A part of the picture: its pixels, and the box around them for metrics that need a rectangle."""

    mask: Bool[np.ndarray, "H W"]

    @cached_property
    def box(self) -> tuple[slice, slice]:
        """Return rows and columns of the smallest rectangle; the mask must not be empty."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


@dataclass(frozen=True)
class Pair:
    """One frame: what is judged, and what it should be (None where there is no ground truth)."""

    index: int
    picture: Look
    truth: Look | None = None
    regions: dict[str, Region] = field(default_factory=dict)
    """`head` and `mouth` of the true picture, where they were found. The whole picture is not listed."""


@dataclass(frozen=True)
class Side:
    """What is known of one of the two clips beside its pictures. Arrays are indexed by frame."""

    sound: Path | None = None
    """A file whose sound belongs to the pictures."""
    coefficients: Float[np.ndarray, "T 257"] | None = None
    """Deep3DFaceRecon's (identity 80, expression 80:144, texture, angle 224:227, light, translation 254:257)."""
    action_units: Float[np.ndarray, "T 17"] | None = None
    """OpenFace's intensities 0..5, in the order of `geometry.landmarks.OPENFACE_ACTION_UNITS`."""
    transcript: str | None = None
    """What is said, or was read from the lips."""
    viewmats: Float[np.ndarray, "T 4 4"] | None = None
    """World to camera (head frame, OpenCV axes), where the head's pose is known without looking."""


@dataclass(frozen=True)
class ClipFacts:
    """What a metric may know before it sees the first pair."""

    fps: float
    width: int
    height: int
    has_truth: bool
    picture: Side = field(default_factory=Side)
    truth: Side = field(default_factory=Side)
    device: torch.device = torch.device("cpu")


class Metric(ABC):
    """One computation over one clip; it may give several entries."""

    entries: ClassVar[tuple[Entry, ...]]

    def __init__(self, clip: ClipFacts) -> None:
        """Get ready.

        Raises:
            Unavailable: What it needs is not there (weights, sound, a library); says what is needed.
        """
        self.clip = clip

    @abstractmethod
    def update(self, pair: Pair) -> None:
        """See one pair, in order of time. With `needs` truth, `pair.truth` is never None."""

    @abstractmethod
    def finish(self) -> list[Figure]:
        """Return the figures, after the last pair."""

    def curves(self) -> dict[str, Curve]:
        """Return what the page plots beside the traces, by entry; asked after `finish`; nothing for most metrics."""
        return {}

    def features(self) -> dict[str, Float[np.ndarray, "M D"]]:
        """Return what a pooled figure over several clips needs (FID, FVD); nothing for most metrics."""
        return {}


class Trace:
    """The values of one entry in one region, frame by frame."""

    def __init__(self) -> None:
        self.values: list[float | None] = []
        self.reason = ""

    def add(self, value: float | None, reason: str = "") -> None:
        """Append a frame's value; None or a value that is not finite counts as excluded, for `reason`."""
        finite = value is not None and math.isfinite(value)
        self.values.append(float(value) if finite else None)
        if not finite and reason:
            self.reason = reason

    def mean(self, entry: Entry, region: str = "full") -> Figure:
        """Return the mean over the frames that have a value."""
        held = [value for value in self.values if value is not None]
        excluded = len(self.values) - len(held)
        value = float(np.mean(held)) if held else None
        reason = self.reason if excluded or not held else ""
        return Figure(entry.name, region, value, len(held), excluded, reason, tuple(self.values))


class FrameMetric(Metric):
    """A metric with one value a frame and region; the figure is the mean over frames."""

    regions: ClassVar[tuple[str, ...]] = ("full",)
    """Which of `full`, `head` and `mouth` it measures."""

    def __init__(self, clip: ClipFacts) -> None:
        super().__init__(clip)
        self._traces = {(entry.name, region): Trace() for entry in self.entries for region in self.regions}

    @abstractmethod
    def measure(self, pair: Pair) -> dict[tuple[str, str], float | None]:
        """Return the values by (entry's name, region); leave out, or give None for, what this frame does not have."""

    def update(self, pair: Pair) -> None:
        """Measure one frame."""
        values = self.measure(pair)
        for key, trace in self._traces.items():
            trace.add(values.get(key), self.why_excluded(key[1]))

    def why_excluded(self, region: str) -> str:
        """Say why a frame may have no value."""
        return "no face found" if region != "full" or "landmarks" in self.entries[0].needs else "not finite"

    def finish(self) -> list[Figure]:
        """Return the means."""
        return [trace.mean(self._entry(name), region) for (name, region), trace in self._traces.items()]

    def _entry(self, name: str) -> Entry:
        return next(entry for entry in self.entries if entry.name == name)
