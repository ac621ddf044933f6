"""Faces followed through a clip, and cut out of it, as SyncNet's pipeline does (specs/metrics.md section 5).

Boxes are (left, top, right, bottom) in px. The clip is one shot: cuts are not looked for.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from jaxtyping import Float, UInt8

SIDE = 224
"""Width and height of a cropped face, px."""
MIN_OVERLAP = 0.5
"""A track goes on with a box that overlaps its last one by more (intersection over union)."""
MAX_GAP = 25
"""A track ends when its face was not found for longer, frames."""
MIN_DETECTIONS = 100
"""A track counts if its face was found in more frames (interpolated ones do not count)."""
MIN_SIZE_PX = 100.0
"""... and if the larger of its mean width and mean height is more."""
SMOOTHING = 13
"""Frames of the median that steadies the crop."""
PADDING = 110
"""Grey level around the picture."""


class Track:
    """One face: a box for every frame from the first to the last detection, interpolated where it was not found."""

    def __init__(self, frame: int, box: Float[np.ndarray, "4"]) -> None:
        """Begin with a detection."""
        self.first = frame
        self.boxes = [box]
        self.detections = 1

    @property
    def last(self) -> int:
        """Return the frame of the last detection."""
        return self.first + len(self.boxes) - 1

    @property
    def size_px(self) -> float:
        """Return the larger of mean width and mean height."""
        left, top, right, bottom = np.mean(self.boxes, axis=0)
        return float(max(right - left, bottom - top))

    def extend(self, frame: int, box: Float[np.ndarray, "4"]) -> None:
        """Go on with a later detection; boxes of the frames between lie on straight lines."""
        gap, start = frame - self.last, self.boxes[-1]
        self.boxes += [start + (box - start) * (step / gap) for step in range(1, gap)] + [box]
        self.detections += 1

    def counts(self, min_detections: int = MIN_DETECTIONS, min_size_px: float = MIN_SIZE_PX) -> bool:
        """Tell whether it was seen often enough and is large enough."""
        return self.detections > min_detections and self.size_px > min_size_px


class Tracker:
    """Makes tracks of the detections of one frame after the other.

    The original goes through the whole clip once for every track; as a track only looks at what earlier ones left over,
    going through the clip once with all tracks gives the same.
    """

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        """All so far, in the order in which they began."""

    def add(self, frame: int, boxes: Float[np.ndarray, "N 4"]) -> None:
        """Give each track the first box that goes on with it, oldest track first; what is left over begins tracks."""
        left_over = list(boxes)
        for track in self.tracks:
            if is_over(track, frame):
                continue
            nearest = (i for i, box in enumerate(left_over) if overlap(box, track.boxes[-1]) > MIN_OVERLAP)
            index = next(nearest, None)
            if index is not None:
                track.extend(frame, left_over.pop(index))
        self.tracks += [Track(frame, box) for box in left_over]


def is_over(track: Track, frame: int) -> bool:
    """Tell whether a track can no longer go on at `frame`."""
    return frame - track.last > MAX_GAP


def track_faces(
    detections: Iterable[Float[np.ndarray, "_ 4"]],
    *,
    min_detections: int = MIN_DETECTIONS,
    min_size_px: float = MIN_SIZE_PX,
) -> list[Track]:
    """Follow all faces of a clip.

    Args:
        detections: The boxes of each frame.
        min_detections: Tracks with more count.
        min_size_px: Tracks of larger faces count.

    Returns:
        The tracks that count, in the order in which they began.
    """
    tracker = Tracker()
    for frame, boxes in enumerate(detections):
        tracker.add(frame, boxes)
    return [track for track in tracker.tracks if track.counts(min_detections, min_size_px)]


def overlap(a: Float[np.ndarray, "4"], b: Float[np.ndarray, "4"]) -> float:
    """Return intersection over union."""
    common = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    return float(common / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common))


def steady(boxes: Float[np.ndarray, "T 4"]) -> Float[np.ndarray, "T 3"]:
    """Return centre x, centre y and half the larger side, each the median over 13 frames.

    Beyond the ends the median sees zeros, so the first and last six values are too small: the original does that too.
    """
    left, top, right, bottom = boxes.T
    half_side = np.maximum(bottom - top, right - left) / 2
    return np.stack([medians(v, SMOOTHING) for v in ((left + right) / 2, (top + bottom) / 2, half_side)], 1)


def medians(values: Float[np.ndarray, "T"], width: int) -> Float[np.ndarray, "T"]:
    """Return the running median over an odd number of values, zeros beyond the ends."""
    padded = np.pad(values, width // 2)
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1)


def crop_face(
    picture: UInt8[np.ndarray, "H W 3"], x: float, y: float, half_side: float
) -> UInt8[np.ndarray, "224 224 3"]:
    """Cut out a face: one half side above the centre, 1.8 below, 1.4 to each side, grey beyond the picture.

    Args:
        picture: In any order of colours.
        x: Centre, px.
        y: Centre, px.
        half_side: Half the side of its box, px.
    """
    margin = int(half_side * 1.8)
    x, y = x + margin, y + margin
    padded = cv2.copyMakeBorder(picture, *[margin] * 4, cv2.BORDER_CONSTANT, value=(PADDING,) * 3)
    top, left = max(int(y - half_side), 0), max(int(x - half_side * 1.4), 0)
    face = padded[top : max(int(y + half_side * 1.8), 0), left : max(int(x + half_side * 1.4), 0)]
    if face.size == 0:  # a box beside the picture
        return np.full((SIDE, SIDE, 3), PADDING, np.uint8)
    return cv2.resize(face, (SIDE, SIDE))
