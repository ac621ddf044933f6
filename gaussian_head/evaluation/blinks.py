"""Blinks per second and their duration, after DinoMan's blink-detector (specs/metrics.md, section 8)."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from scipy.signal import find_peaks

from gaussian_head.evaluation.metric import ClipFacts, Entry, Figure, Metric, Pair

EYES_68 = (slice(36, 42), slice(42, 48))
CLOSING_DROP = 0.072
"""Fall of the aspect ratio from one frame to the next that makes a closing (of 25 frames a second)."""
CLOSINGS_APART = 4
"""Least distance of two closings, frames."""
CLOSED_RATIO = 0.2
"""Online form: below it an eye is closed."""
CLOSED_FRAMES = 2
"""Online form: frames an eye must be closed."""
RISE = 0.01
"""Online form: a larger rise of the aspect ratio is an opening."""
_REFERENCE = (
    "DinoMan/blink-detector, offline form, as Diffused Heads cites it (specs/metrics.md, 8); "
    "points of MediaPipe's mesh, not dlib's"
)


class Blinks(Metric):
    """Counts closings and openings of the eyes in one clip; needs no truth.

    A frame without a face repeats the opening of the frame before, and has 0 before the first face, as the reference
    has it; such frames are counted as excluded. The limit on closings is per frame: other rates than 25 frames a second
    give other counts.
    """

    entries: ClassVar = (
        Entry("blinks_per_s", "blinks/s", "1/s", "neither", frozenset({"landmarks"}), _REFERENCE),
        Entry("blink_duration_s", "blink duration", "s", "neither", frozenset({"landmarks"}), _REFERENCE),
    )

    def __init__(self, clip: ClipFacts) -> None:
        super().__init__(clip)
        self._ratios: list[float] = []
        self._without_face = 0

    def update(self, pair: Pair) -> None:
        """Note how open the eyes are."""
        points = pair.picture.landmarks68
        ratio = None if points is None else float(eye_aspect_ratio(points))
        if ratio is None or not np.isfinite(ratio):
            self._without_face += 1
            ratio = self._ratios[-1] if self._ratios else 0.0
        self._ratios.append(ratio)

    def finish(self) -> list[Figure]:
        """Count the blinks."""
        rate, duration = (entry.name for entry in self.entries)
        seen = len(self._ratios) - self._without_face
        facts = {"region": "full", "counted": seen, "excluded": self._without_face}
        if not seen:
            return [Figure(name, value=None, reason="no face found", **facts) for name in (rate, duration)]
        starts, ends = find_blinks(np.array(self._ratios))
        lengths = (ends - starts)[ends > starts]
        reason = "no face found: counted as open as in the frame before" if self._without_face else ""
        per_second = len(lengths) / (len(self._ratios) / self.clip.fps)
        mean = float(lengths.mean()) / self.clip.fps if len(lengths) else None
        return [
            Figure(rate, value=per_second, reason=reason, **facts),
            Figure(duration, value=mean, reason=reason if len(lengths) else "no blink found", **facts),
        ]


def eye_aspect_ratio(points: Float[np.ndarray, "*T 68 2"]) -> Float[np.ndarray, "*T"] | np.floating:
    """Return how open the eyes are, mean of both: height over width, about 0.3 open; NaN for an eye without width."""
    return np.mean([aspect_ratio(points[..., eye, :]) for eye in EYES_68], axis=0)


def aspect_ratio(eye: Float[np.ndarray, "*T 6 2"]) -> Float[np.ndarray, "*T"] | np.floating:
    """Return (|p1 - p5| + |p2 - p4|) / (2 |p0 - p3|) of the six points around an eye."""
    first, second, width = (
        np.linalg.norm(eye[..., a, :] - eye[..., b, :], axis=-1) for a, b in ((1, 5), (2, 4), (0, 3))
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return (first + second) / (2 * width)


def find_blinks(ratios: Float[np.ndarray, "T"]) -> tuple[np.ndarray, np.ndarray]:
    """Find blinks in a whole clip: frames where the eyes begin to close, and where they are open again.

    A closing is a fall of at least CLOSING_DROP from one frame to the next. It starts at the last local maximum before
    it and ends at the first one behind it, of those in the upper half of the signal's range; without such an end it is
    dropped, but the clip's last one ends with the clip.
    """
    closings, _ = find_peaks(ratios[:-1] - ratios[1:], height=CLOSING_DROP, distance=CLOSINGS_APART)
    middle = (ratios.min() + ratios.max()) / 2 if len(ratios) else 0.0
    starts, ends = [], []
    for closing, following in pairwise(np.append(closings, len(ratios))):
        start = closing
        if ratios[closing - 1] > ratios[closing]:
            before, _ = find_peaks(ratios[: closing + 1], height=middle)
            start = before[-1] if len(before) else 0
        behind, _ = find_peaks(ratios[closing:following], height=middle)
        if not len(behind) and following < len(ratios):
            continue
        starts.append(start)
        ends.append(closing + behind[0] if len(behind) else len(ratios) - 1)
    return np.array(starts, int), np.array(ends, int)


def find_blinks_online(ratios: Float[np.ndarray, "T"]) -> list[tuple[int, int]]:
    """Find blinks as the detector's other form does, frame by frame: (frame of the report, duration in frames).

    An eye that was closed for CLOSED_FRAMES frames running has blinked once it opens by more than RISE in one frame.
    The duration counts from the last frame in which the open eye was opening or at rest. The form disagrees with
    `find_blinks` (specs/metrics.md, 8); no entry rests on it.
    """
    blinks = []
    previous = 0.0
    closed = duration = 0
    blinking = False
    for index, ratio in enumerate(ratios):
        duration += 1
        is_open, rise = ratio >= CLOSED_RATIO, ratio - previous
        previous = ratio
        if not blinking:
            closed = 0 if is_open else closed + 1
            blinking = closed >= CLOSED_FRAMES
            if is_open and rise > -RISE:
                duration = 0
        elif ratio > CLOSED_RATIO and rise > RISE:
            blinks.append((index, duration))
            previous, closed, duration, blinking = 0.0, 0, 0, False
    return blinks
