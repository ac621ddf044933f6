"""All metrics, in the order in which reports list them."""

from __future__ import annotations

from gaussian_head.evaluation.action_unit_error import ActionUnitError
from gaussian_head.evaluation.blinks import Blinks
from gaussian_head.evaluation.coefficients import CoefficientError
from gaussian_head.evaluation.cpbd import Cpbd
from gaussian_head.evaluation.csim import Csim
from gaussian_head.evaluation.fid import Fid
from gaussian_head.evaluation.fvd import Fvd
from gaussian_head.evaluation.landmark_distance import LandmarkDistance
from gaussian_head.evaluation.lpips import Lpips
from gaussian_head.evaluation.metric import Entry, Metric
from gaussian_head.evaluation.mouth_aperture import MouthAperture
from gaussian_head.evaluation.neck_seam import NeckSeam
from gaussian_head.evaluation.pose_jitter import PoseJitter
from gaussian_head.evaluation.psnr import Psnr, PsnrVico
from gaussian_head.evaluation.shift_curve import ShiftCurve
from gaussian_head.evaluation.silence_leakage import SilenceLeakage
from gaussian_head.evaluation.smoothness import Smoothness
from gaussian_head.evaluation.ssim import Ssim, SsimSkimage, SsimVico
from gaussian_head.evaluation.sync import AudioVisualSync
from gaussian_head.evaluation.word_error_rate import WordErrorRate

METRICS: tuple[type[Metric], ...] = (
    Psnr, Ssim, Lpips, Cpbd, PsnrVico, SsimVico, SsimSkimage, Fid, Fvd,
    Csim, CoefficientError,
    ShiftCurve, LandmarkDistance, MouthAperture, AudioVisualSync, SilenceLeakage, WordErrorRate,
    ActionUnitError, Blinks, Smoothness, PoseJitter, NeckSeam,
)  # fmt: skip


def entries() -> dict[str, Entry]:
    """Return the registry by name."""
    return {entry.name: entry for metric in METRICS for entry in metric.entries}


def page() -> str:
    """Return docs/metrics.md; a test holds the file to it."""
    lines = [
        "# Metrics",
        "",
        "All figures of `python -m gaussian_head.evaluate`, in its order (`gaussian_head.evaluation.registry.page`).",
        "Better: the direction; `zero`: the smallest absolute value; `neither`: see the true footage's row.",
        "Weights are found as `bash scripts/prepare.sh` tells.",
        "",
        "| name | title | unit | better | needs | definition |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, entry in entries().items():
        needs = ", ".join(sorted(entry.needs)) or "-"
        cells = (f"`{name}`", entry.title, entry.unit or "-", entry.better, needs, entry.reference)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"
