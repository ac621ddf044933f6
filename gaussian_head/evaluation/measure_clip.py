"""Measures one clip on disk: opens it, lays the true footage beside it, finds the face, runs the metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float

from gaussian_head.errors import UserError
from gaussian_head.evaluation import registry
from gaussian_head.evaluation.clip import Align, Aligned, align, open_clip
from gaussian_head.evaluation.measure import Measured, measure, measure_beside_truth
from gaussian_head.evaluation.metric import ClipFacts, Figure, Look, Mesh, Metric, Pair, Region, Rgb, Side
from gaussian_head.evaluation.side import read_side, take_frames
from gaussian_head.geometry.landmarks import FACE_OVAL, OUTER_LIPS
from gaussian_head.media.image import fill_polygon
from gaussian_head.networks.face_mesh import FaceMeshDetector

FindMesh = Callable[[Rgb], Mesh | None]

ONE_LOOK = ((0.0, 1.0),)
"""The bare face mesh: figures of the field come from single looks too, and it is four times faster."""
HEAD_SCALE = 1.25
"""The head region is the face's outline, grown by this about its centre: hair and ears, little background."""
MOUTH_MARGIN = 0.2
"""The mouth region is the box around the lips, widened on each side by this share of their width."""


@dataclass(frozen=True)
class MeasuredClip(Measured):
    """What came out of one clip, what was compared, and some of its pictures."""

    compared: dict[str, Any] = field(default_factory=dict)
    """JSON values: both clips, how they were aligned and decoded; see `clip.Aligned`."""
    pictures: dict[int, Rgb] = field(default_factory=dict)
    """The frames asked for, by number."""
    truths: dict[int, Rgb] = field(default_factory=dict)
    """The true frames beside them, where there are any."""
    truth: Measured | None = None
    """What came out of the true footage alone."""


def measure_clip(
    picture: Path,
    truth: Path | None,
    align_how: Align = "strict",
    entries: Sequence[str] | None = None,
    *,
    sound: Path | None = None,
    fps: float | int | None = None,
    device: torch.device | None = None,
    metrics: Sequence[type[Metric]] | None = None,
    shown: int = 0,
) -> MeasuredClip:
    """Measure one clip.

    Args:
        picture: What is judged: a video or a folder of frames.
        truth: What it should be, if there is such a thing.
        align_how: What to do where the two differ in frame count, size or rate; see `clip.align`.
        entries: Which figures; by default all there are.
        sound: The picture's sound, where it is neither in the file nor beside it.
        fps: Rate of folders of frames.
        device: Where networks run; by default the CPU.
        metrics: What can be measured; by default `registry.METRICS`.
        shown: How many frames to keep, evenly over the clip.

    Raises:
        FileNotFoundError: A file is missing.
        UserError: A clip or what lies beside it cannot be read, or the two do not fit each other.
    """
    known = registry.METRICS if metrics is None else metrics
    wanted = {entry.name for metric in known for entry in metric.entries} if entries is None else set(entries)
    chosen = [metric for metric in known if wanted & {entry.name for entry in metric.entries}]
    opened = align(open_clip(picture, fps), None if truth is None else open_clip(truth, fps), align_how)
    facts = _facts(opened, sound, device or torch.device("cpu"))
    kept: tuple[dict[int, Rgb], dict[int, Rgb]] = ({}, {})
    wanted_frames = set(np.linspace(0, opened.frames - 1, min(shown, opened.frames)).round().astype(int).tolist())

    def pairs(*finders: FindMesh) -> Iterator[Pair]:
        for pair in _pairs(opened, finders):
            if pair.index in wanted_frames:
                kept[0][pair.index] = pair.picture.rgb
                kept[1].update({} if pair.truth is None else {pair.index: pair.truth.rgb})
            yield pair

    result, truth = measure_with_faces(pairs, facts, chosen)
    measurable = {entry.name for metric in chosen for entry in metric.entries}
    unavailable = {name: reason for name, reason in result.unavailable.items() if name in wanted}
    unavailable |= {name: "no metric of this name is registered" for name in sorted(wanted - measurable)}
    figures = tuple(_finite(figure) for figure in result.figures if figure.entry in wanted)
    return MeasuredClip(figures, unavailable, result.features, result.curves, opened.compared, *kept, truth)


def find_regions(mesh: Mesh | None, width: int, height: int) -> dict[str, Region]:
    """Return `head` and `mouth` of a picture, as far as they lie in it; nothing without a face.

    Head: the convex hull of the face's outline, scaled by HEAD_SCALE about the outline's mean. Mouth: the box around
    the outer lips, widened on each side by MOUTH_MARGIN of its width, to whole pixels.
    """
    if mesh is None:
        return {}
    outline = mesh[FACE_OVAL, :2].astype(np.float32)
    centre = outline.mean(0)
    hull = cv2.convexHull(centre + HEAD_SCALE * (outline - centre))[:, 0]
    masks = {"head": fill_polygon(hull, width, height), "mouth": mouth_mask(mesh, width, height)}
    return {name: Region(mask) for name, mask in masks.items() if mask.any()}


def mouth_mask(mesh: Float[np.ndarray, "478 D"], width: int, height: int) -> Bool[np.ndarray, "H W"]:
    """Mark the box around the outer lips, widened on each side by MOUTH_MARGIN of its width, to whole pixels."""
    lips = mesh[OUTER_LIPS, :2]
    margin = MOUTH_MARGIN * np.ptp(lips[:, 0])
    left, top = np.floor(lips.min(0) - margin).astype(int).clip(0)
    right, bottom = np.ceil(lips.max(0) + margin).astype(int).clip(0)
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return mask


def _facts(opened: Aligned, sound: Path | None, device: torch.device) -> ClipFacts:
    clip = opened.picture
    return ClipFacts(
        fps=clip.fps,
        width=clip.width,
        height=clip.height,
        has_truth=opened.truth is not None,
        picture=take_frames(read_side(clip, sound), slice(opened.frames)),
        truth=Side() if opened.truth is None else take_frames(read_side(opened.truth), opened.truth_index),
        device=device,
    )


def _pairs(opened: Aligned, finders: tuple[FindMesh, ...]) -> Iterator[Pair]:
    for index, (rgb, true_rgb) in enumerate(opened.pairs()):
        picture = Look(rgb, finders[0])
        truth = None if true_rgb is None else Look(true_rgb, finders[1])
        mesh = picture.mesh if truth is None or truth.mesh is None else truth.mesh
        yield Pair(index, picture, truth, find_regions(mesh, opened.picture.width, opened.picture.height))


def measure_with_faces(
    pairs: Callable[[FindMesh, FindMesh], Iterator[Pair]], facts: ClipFacts, metrics: Sequence[type[Metric]]
) -> tuple[Measured, Measured | None]:
    """Measure pairs whose faces are found by one look of MediaPipe's mesh a frame.

    Without mediapipe, what needs no face is measured, and of the rest the reason is told.

    Args:
        pairs: Gives the pairs; called with what finds the face of the clip, and of the true footage.
        facts: What is known beforehand.
        metrics: What to measure.

    Returns:
        The clip's figures, and where there is a truth its own.
    """
    with ExitStack() as stack:
        try:
            finders = [stack.enter_context(FaceMeshDetector(ONE_LOOK)).detect for _ in range(2)]
        except UserError as error:
            return _measure_faceless(pairs(lambda rgb: None, lambda rgb: None), facts, metrics, str(error)), None
        if not facts.has_truth:
            return measure(pairs(*finders), facts, metrics), None
        return measure_beside_truth(pairs(*finders), facts, metrics)


def _measure_faceless(
    pairs: Iterator[Pair], facts: ClipFacts, metrics: Sequence[type[Metric]], reason: str
) -> Measured:
    without = [metric for metric in metrics if not any("landmarks" in entry.needs for entry in metric.entries)]
    result = measure(pairs, facts, without)
    lost = {entry.name: reason for metric in metrics if metric not in without for entry in metric.entries}
    figures = tuple(
        dataclasses.replace(figure, reason=reason) if figure.region != "full" and figure.value is None else figure
        for figure in result.figures
    )
    return dataclasses.replace(result, figures=figures, unavailable=result.unavailable | lost)


def _finite(figure: Figure) -> Figure:
    if figure.value is None or np.isfinite(figure.value):
        return figure
    return dataclasses.replace(figure, value=None, reason=figure.reason or f"the value is {figure.value}")
