"""Where the face is in each frame of a stream: found, followed, gaps bridged, padded, smoothed.

A box is (left, top, right, bottom) in whole px, end-exclusive. Everything here is a generator over (frame, box) that
holds a bounded number of frames; a frame without a box is one whose face is not known.
Source: specs/one_shot.md 6.3; what is mended there, 8 (10).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Literal, TypeVar

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

Frame = TypeVar("Frame")
Smoothing = Literal["centred", "off", "ahead"]
Detect = Callable[[list[UInt8[ndarray, "H W 3"]]], list[Float[ndarray, "N 4"]]]
"""From pictures to their faces' boxes in px, the best first."""
SMOOTHED_FRAMES = 5
SMALLEST_PX = 8
"""A face must show more than that of itself in the frame."""


def find_faces(
    frames: Iterable[UInt8[ndarray, "H W 3"]], detect: Detect, batch: int
) -> Iterator[tuple[UInt8[ndarray, "H W 3"], Int[ndarray, "4"] | None]]:
    """Follow one face through a stream: at first sight the detector's best, then the one that overlaps most with it.

    Args:
        frames: RGB, all of one size.
        detect: Finds faces.
        batch: Frames shown to it at once.
    """
    last = None
    for held in _batches(frames, batch):
        for frame, faces in zip(held, detect(held), strict=True):
            box = _choose(faces, last, frame.shape[:2])
            last = box if box is not None else last
            yield frame, box


def bridge_gaps(
    located: Iterable[tuple[Frame, Int[ndarray, "4"] | None]], longest: int
) -> Iterator[tuple[Frame, Int[ndarray, "4"] | None]]:
    """Give a box to frames between two faces, on the straight line from one to the other; at the ends, the nearest one.

    Args:
        located: Frames and boxes.
        longest: Frames of a gap that is bridged; a longer one stays without boxes.
    """
    waiting: list[Frame] = []
    before, lost = None, False
    for frame, box in located:
        if box is None:
            waiting.append(frame)
            lost |= len(waiting) > longest
            if lost:
                yield from ((held, None) for held in waiting)
                waiting.clear()
            continue
        if waiting:
            start = box if before is None else before
            shares = np.arange(1, len(waiting) + 1) / (len(waiting) + 1)
            yield from ((held, _between(start, box, share)) for held, share in zip(waiting, shares, strict=True))
            waiting.clear()
        yield frame, box
        before, lost = box, False
    yield from ((held, before) for held in waiting)


def pad_boxes(
    located: Iterable[tuple[UInt8[ndarray, "H W 3"], Int[ndarray, "4"] | None]], pads: tuple[int, int, int, int]
) -> Iterator[tuple[UInt8[ndarray, "H W 3"], Int[ndarray, "4"] | None]]:
    """Grow boxes by (top, bottom, left, right) px, and cut them off at the frame's edges."""
    for frame, box in located:
        yield frame, None if box is None else padded(box, pads, frame.shape[:2])


def padded(box: Int[ndarray, "4"], pads: tuple[int, int, int, int], size: tuple[int, int]) -> Int[ndarray, "4"]:
    """Grow one box by (top, bottom, left, right) px in a frame of (height, width) `size`."""
    height, width = size
    top, bottom, left, right = pads
    grown = box + (-left, -top, right, bottom)
    return np.clip(grown, 0, (width, height, width, height))


def smooth_boxes(
    located: Iterable[tuple[Frame, Int[ndarray, "4"] | None]], manner: Smoothing
) -> Iterator[tuple[Frame, Int[ndarray, "4"] | None]]:
    """Average boxes over neighbouring frames; frames without a box part the stream.

    Args:
        located: Frames and boxes.
        manner: centred: over SMOOTHED_FRAMES around the frame, fewer towards the ends of a part, so that a face that
            moves steadily keeps its box. ahead: as the reference has it: over the frame and the next ones, in place,
            rounded down, so that boxes run ahead of the face. off: as they are.
    """
    if manner == "off":
        yield from located
        return
    frames: deque[Frame] = deque()
    part = _Part(manner)
    for frame, box in chain(located, [(None, None)]):
        if box is not None:
            frames.append(frame)
            part.boxes.append(box)
        while frames and (box is None or len(frames) > part.later):
            yield frames.popleft(), part.smooth_next()
        if box is None:
            part = _Part(manner)
            if frame is not None:
                yield frame, None


class _Part:
    """The boxes near the next one to be smoothed, in a part of the stream that has one in every frame."""

    def __init__(self, manner: Smoothing) -> None:
        self.boxes: list[Int[ndarray, "4"]] = []
        self.later = SMOOTHED_FRAMES // 2 if manner == "centred" else SMOOTHED_FRAMES - 1
        self._manner, self._next = manner, 0

    def smooth_next(self) -> Int[ndarray, "4"]:
        k = self._next
        if self._manner == "centred":
            radius = min(SMOOTHED_FRAMES // 2, k, len(self.boxes) - 1 - k)
            box = np.rint(np.mean(self.boxes[k - radius : k + radius + 1], 0)).astype(np.int64)
        else:
            window = self.boxes[k : k + SMOOTHED_FRAMES]
            if len(window) < SMOOTHED_FRAMES:  # in a part shorter than that the reference's slice takes an odd rest
                window = self.boxes[len(self.boxes) - SMOOTHED_FRAMES :]
            box = self.boxes[k] = np.mean(window, 0).astype(np.int64)
        if k < SMOOTHED_FRAMES:
            self._next += 1
        else:
            self.boxes.pop(0)
        return box


def _batches(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    held = []
    for frame in frames:
        held.append(frame)
        if len(held) == size:
            yield held
            held = []
    if held:
        yield held


def _choose(
    faces: Float[ndarray, "N 4"], last: Int[ndarray, "4"] | None, size: tuple[int, int]
) -> Int[ndarray, "4"] | None:
    inside = [padded(np.trunc(face).astype(np.int64), (0, 0, 0, 0), size) for face in faces]
    inside = [box for box in inside if (box[2:] - box[:2]).min() > SMALLEST_PX]
    if not inside:
        return None
    if last is None:
        return inside[0]
    overlaps = [_overlap(box, last) for box in inside]
    return inside[int(np.argmax(overlaps))]  # where none overlaps, the best


def _overlap(a: Int[ndarray, "4"], b: Int[ndarray, "4"]) -> float:
    common = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    return float(common / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common))


def _between(a: Int[ndarray, "4"], b: Int[ndarray, "4"], share: float) -> Int[ndarray, "4"]:
    return np.rint((1 - share) * a + share * b).astype(np.int64)
