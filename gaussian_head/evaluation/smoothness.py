"""How much the picture moves and changes from frame to frame (specs/metrics.md, section 9).

Everything is measured on the picture scaled to 128 x 128 px, as Diffused Heads does it.
"""

from __future__ import annotations

from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from gaussian_head.evaluation.metric import ClipFacts, Entry, Figure, Metric, Pair

SIDE_PX = 128
_COMPATIBLE = "Diffused Heads, smoothness_eval.py, as coded (specs/metrics.md, 9)"
_MEANT = "what Diffused Heads' smoothness_eval.py is named for, computed as the name says (specs/metrics.md, 9)"


class Smoothness(Metric):
    """Optical flow and squared difference between consecutive frames; needs no truth.

    Neither is better high or low: compare with the true footage's. `ofm_diffused` and `fmse_diffused` are for the
    published table alone: the first does not depend on how far things move, the second is arithmetic modulo 256.
    """

    entries: ClassVar = (
        Entry("flow_px", "flow", "px", "neither", frozenset(), f"{_MEANT}; px of the 128 x 128 picture"),
        Entry("frame_mse", "frame MSE", "", "neither", frozenset(), f"{_MEANT}; levels 0..255", "{:.2f}"),
        Entry("ofm_diffused", "OFM (Diffused Heads)", "", "neither", frozenset(), _COMPATIBLE, "{:.2f}"),
        Entry("fmse_diffused", "F-MSE (Diffused Heads)", "", "neither", frozenset(), _COMPATIBLE, "{:.2f}"),
    )

    def __init__(self, clip: ClipFacts) -> None:
        super().__init__(clip)
        self._previous: tuple[np.ndarray, np.ndarray] | None = None
        self._values: list[tuple[float, float, float, float]] = []

    def update(self, pair: Pair) -> None:
        """Compare with the frame before."""
        small = cv2.resize(pair.picture.rgb, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_LINEAR)
        gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        if self._previous is not None:
            before, gray_before = self._previous
            magnitude = flow_magnitude(gray_before, gray)
            self._values.append((
                float(magnitude.mean()),
                float(np.square(small.astype(np.float64) - before).mean()),
                float(paint_flow(magnitude).mean()),
                float(wrapped_square(before, small).mean()),
            ))  # fmt: skip
        self._previous = small, gray

    def finish(self) -> list[Figure]:
        """Return the means over the pairs of consecutive frames."""
        if not self._values:
            return [Figure(entry.name, "full", None, 0, reason="needs two frames") for entry in self.entries]
        columns = np.array(self._values).T
        return [
            Figure(entry.name, "full", float(values.mean()), len(values), trace=(None, *values.tolist()))
            for entry, values in zip(self.entries, columns, strict=True)
        ]


def flow_magnitude(before: UInt8[np.ndarray, "H W"], after: UInt8[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """Return the length of Farneback's dense flow between two grey pictures, in px, with Diffused Heads' settings."""
    flow = cv2.calcOpticalFlowFarneback(
        before, after, None, pyr_scale=0.5, levels=7, winsize=5, iterations=15, poly_n=5, poly_sigma=1.2, flags=0
    )
    return np.linalg.norm(flow, axis=2)


def paint_flow(magnitude: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Paint flow as Diffused Heads does before it takes the mean: stretched to 0..255, then OpenCV's JET colours."""
    stretched = cv2.normalize(magnitude, None, 0, 255, cv2.NORM_MINMAX)
    return cv2.applyColorMap(stretched.astype(np.uint8), cv2.COLORMAP_JET)


def wrapped_square(before: UInt8[np.ndarray, "H W 3"], after: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Return Diffused Heads' squared difference: both operations modulo 256."""
    apart = after - before
    return apart * apart
