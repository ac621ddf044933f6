"""Measuring one way of driving a head on frames it has not seen, picture by picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, UInt8

from gaussian_head.data.subject import Frame, Subject
from gaussian_head.evaluation.landmark_distance import lip_distance
from gaussian_head.evaluation.measure import Measured
from gaussian_head.evaluation.metric import Entry, Trace
from gaussian_head.evaluation.psnr import measure_psnr
from gaussian_head.evaluation.ssim import measure_ssim
from gaussian_head.geometry.cameras import project
from gaussian_head.geometry.landmarks import OUTER_LIPS

Lips = Float[np.ndarray, "20 2"]
TRUTH = frozenset({"truth"})
ENTRIES = {
    entry.name: entry
    for entry in (
        Entry("psnr", "PSNR", "dB", "higher", TRUTH, "-10 log10 of the mean squared difference in [0, 1]", "{:.2f}"),
        Entry("ssim", "SSIM", "", "higher", TRUTH, "Wang et al. 2004, zeros outside, as the loss has it", "{:.4f}"),
        Entry("lmd", "LMD", "px", "lower", TRUTH, "points 48-67, each set centred, mean distance", "{:.2f}"),
        Entry("aperture_correlation", "Aperture correlation", "", "higher", TRUTH,
              "ours: Pearson correlation of the mouth's opening with the tracked one", "{:.2f}"),
    )
}  # fmt: skip
MOUTH_MARGIN = 0.2
"""Widening of the lips' bounding box on each side, as a share of its width."""


@dataclass
class RowFigures:
    """Per-frame figures of one row of the report."""

    full_psnr_db: list[float] = field(default_factory=list)
    full_ssim: list[float] = field(default_factory=list)
    head_psnr_db: list[float] = field(default_factory=list)
    mouth_psnr_db: list[float] = field(default_factory=list)
    lips_lmd_px: list[float | None] = field(default_factory=list)
    kept: dict[int, UInt8[np.ndarray, "H W 3"]] = field(default_factory=dict)
    """Pictures for the contact sheet, by frame number."""

    def measured(self, lips_unavailable: str | None) -> Measured:
        """Return the row's figures.

        Args:
            lips_unavailable: Why nobody looked for lips; None where somebody did.
        """
        traces = {("psnr", "full"): self.full_psnr_db, ("psnr", "head"): self.head_psnr_db,
                  ("psnr", "mouth"): self.mouth_psnr_db, ("ssim", "full"): self.full_ssim}  # fmt: skip
        if not lips_unavailable:
            traces["lmd", "mouth"] = self.lips_lmd_px
        figures = []
        for (name, region), values in traces.items():
            trace = Trace()
            for value in values:
                trace.add(value, "the face mesh found no face" if name == "lmd" else "the region is empty")
            figures.append(trace.mean(ENTRIES[name], region))
        return Measured(tuple(figures), {"lmd": lips_unavailable} if lips_unavailable else {})


def measure_row(
    pictures: Iterable[UInt8[np.ndarray, "H W 3"]],
    subject: Subject,
    frames: list[int],
    keep: set[int],
    lips: tuple[Callable[[UInt8[np.ndarray, "H W 3"]], Lips | None], dict[int, Lips]] | None,
) -> RowFigures:
    """Compare pictures with the subject's true ones.

    Args:
        pictures: One for each of `frames`, in order, RGB 0..255.
        subject: Supplies truth, masks and landmarks.
        frames: Frame numbers.
        keep: Frame numbers whose pictures are kept.
        lips: Finds the lips in a picture, and the lips of the true pictures by frame number; None: not measured.
    """
    row = RowFigures()
    for k, picture in zip(frames, pictures, strict=True):
        frame = subject.frame(k)
        truth = true_picture(frame)
        row.full_psnr_db.append(measure_psnr(picture, truth))
        row.full_ssim.append(measure_ssim(picture, truth))
        row.head_psnr_db.append(measure_psnr(picture, truth, frame.head[0].numpy() > 0.5))
        row.mouth_psnr_db.append(measure_psnr(picture, truth, mouth_box(subject, k)))
        if lips is not None:
            found = lips[0](picture) if k in lips[1] else None
            row.lips_lmd_px.append(None if found is None else lip_distance(found, lips[1][k]))
        if k in keep:
            row.kept[k] = picture
    return row


def true_picture(frame: Frame) -> UInt8[np.ndarray, "H W 3"]:
    """Return a frame's picture with its channels last."""
    return np.ascontiguousarray(frame.image.permute(1, 2, 0).numpy())


def mouth_box(subject: Subject, k: int) -> Bool[np.ndarray, "H W"]:
    """Mark the box around frame k's tracked lips, inner mouth included."""
    lips, _ = project(subject.landmarks[k].numpy()[OUTER_LIPS], subject.viewmats[k].numpy(), subject.K.numpy())
    margin = MOUTH_MARGIN * np.ptp(lips[:, 0])
    left, top = np.floor(lips.min(0) - margin).astype(int).clip(0)
    right, bottom = np.ceil(lips.max(0) + margin).astype(int).clip(0)
    box = np.zeros((subject.height, subject.width), bool)
    box[top:bottom, left:right] = True
    return box
