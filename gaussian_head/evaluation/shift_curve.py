"""How alike two clips are when one is moved in time against the other: the best shift tells a delay."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from gaussian_head.evaluation.metric import ClipFacts, Curve, Entry, Figure, Metric, Pair
from gaussian_head.evaluation.psnr import BEST_DB
from gaussian_head.media.image import resize

REACH = 5
"""Shifts from - REACH to + REACH frames are tried."""
COPY_PX = 64


class ShiftCurve(Metric):
    """The PSNR of small grey copies over the shift between prediction and truth.

    Every shift is judged on the same true frames, those with REACH predictions on either side; 17 small copies are
    held at a time.
    """

    entries = (
        Entry(
            "psnr_shift",
            "Best shift",
            "frames",
            "zero",
            frozenset({"truth"}),
            "ours: delay of the prediction, in frames, at which 64 px grey copies have the best PSNR; positive: late",
            "{:+.0f}",
        ),
    )

    def __init__(self, clip: ClipFacts) -> None:
        super().__init__(clip)
        self._pictures: deque[Float[np.ndarray, "64 64"]] = deque(maxlen=2 * REACH + 1)
        self._truths: deque[Float[np.ndarray, "64 64"]] = deque(maxlen=REACH + 1)
        self._errors: Float[np.ndarray, " S"] = np.zeros(2 * REACH + 1)
        self._frames = 0

    def update(self, pair: Pair) -> None:
        """See one pair."""
        self._pictures.append(_small(pair.picture.gray))
        self._truths.append(_small(pair.truth.gray))
        if len(self._pictures) == 2 * REACH + 1:
            self._errors += squared_errors(self._pictures, self._truths[0])
            self._frames += 1

    def finish(self) -> list[Figure]:
        """Return the delay with the best PSNR; of equally good ones the smallest."""
        if not self._frames:
            return [Figure("psnr_shift", "full", None, 0, 0, f"the clip is shorter than {2 * REACH + 1} frames")]
        best = min(range(-REACH, REACH + 1), key=lambda shift: (self._errors[shift + REACH], abs(shift)))
        return [Figure("psnr_shift", "full", float(best), self._frames)]

    def curves(self) -> dict[str, Curve]:
        """Return the PSNR in dB over the delay, of the mean squared error of all frames; nothing for a short clip."""
        if not self._frames:
            return {}
        decibels = -10 * np.log10(np.maximum(self._errors / self._frames, 10 ** (-BEST_DB / 10)))
        shifts = tuple(float(shift) for shift in range(-REACH, REACH + 1))
        return {"psnr_shift": Curve("delay of the prediction, frames", shifts, tuple(decibels.tolist()), "PSNR, dB")}


def squared_errors(
    pictures: Sequence[Float[np.ndarray, "64 64"]], truth: Float[np.ndarray, "64 64"]
) -> Float[np.ndarray, " S"]:
    """Return the mean squared difference of a true picture to each of the predictions around its time."""
    return np.array([np.square(picture - truth).mean() for picture in pictures])


def _small(gray: UInt8[np.ndarray, "H W"]) -> Float[np.ndarray, "64 64"]:
    return resize(gray.astype(np.float64) / 255, COPY_PX, COPY_PX)
