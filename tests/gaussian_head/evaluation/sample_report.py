"""A report made up for the tests: two rows, three regions, gaps, exclusions, a curve, awkward strings."""

from __future__ import annotations

import numpy as np

from gaussian_head.evaluation.measure import Measured
from gaussian_head.evaluation.metric import Curve, Entry, Figure
from gaussian_head.evaluation.report import Report, TrainedFacts, row_from

SIZE = {"size_px": [512, 512], "fps": 25.0}
AWKWARD = '<script src="http://a.example/x.js">&"\''

ENTRIES = {
    entry.name: entry
    for entry in (
        Entry("psnr", "PSNR", "dB", "higher", frozenset({"truth"}), "specs/metrics.md section 2", "{:.2f}"),
        Entry("ssim", "SSIM", "", "higher", frozenset({"truth"}), "Wang et al. 2004, window of the loss", "{:.4f}"),
        Entry("lmd", "LMD", "px", "lower", frozenset({"truth", "landmarks"}), "Chen et al. 2018", "{:.2f}"),
        Entry("aperture", "Aperture correlation", "", "higher", frozenset({"truth", "landmarks"}), "ours", "{:.2f}"),
        Entry("psnr_shift", "Best shift", "frames", "zero", frozenset({"truth"}), "ours", "{:+.0f}"),
        Entry("blinks", "Blinks", "1/s", "neither", frozenset({"landmarks"}), "DinoMan's detector", "{:.2f}"),
        Entry("lpips", "LPIPS", "", "lower", frozenset({"truth", "weights"}), "Zhang et al. 2018", "{:.3f}"),
        Entry("csim", f"CSIM {AWKWARD}", "", "higher", frozenset({"truth", "weights"}), AWKWARD, "{:.3f}"),
    )
}


def figures(psnr_db: float, lmd_px: float, frames: int) -> list[Figure]:
    """Figures of one row, with traces around the given means and a gap of five frames in the landmarks."""
    rng = np.random.default_rng(round(psnr_db * 100))
    found = []
    for entry, region, mean, spread in (
        ("psnr", "full", psnr_db, 0.8), ("psnr", "head", psnr_db - 6, 1.2), ("psnr", "mouth", psnr_db - 9, 2.0),
        ("ssim", "full", 1 - 1 / psnr_db, 0.004), ("lmd", "mouth", lmd_px, 0.3 * lmd_px),
    ):  # fmt: skip
        noise = rng.normal(size=frames + 8)
        trace = (mean + spread * np.convolve(noise, np.ones(9) / 3, "valid")).tolist()
        excluded = 0
        if entry == "lmd":
            trace[frames // 3 : frames // 3 + 5] = [None] * 5
            excluded = 5
        held = [value for value in trace if value is not None]
        reason = "no face found" if excluded else ""
        found.append(Figure(entry, region, float(np.mean(held)), len(held), excluded, reason, tuple(trace)))
    found.append(Figure("aperture", "full", 0.71, frames))
    found.append(Figure("psnr_shift", "full", 0.0, frames - 10))
    found.append(Figure("blinks", "full", 0.4, frames))
    return found


def sample_report(*, trained: bool = True, frames: int = 90) -> Report:
    """A report of a head that was trained, or of a video against its truth."""
    missing = {"lpips": "needs alexnet-owt-7be5be79.pth, see scripts/prepare.sh",
               "csim": "needs ms1mv3_arcface_r100_fp16/backbone.pth, see scripts/prepare.sh"}  # fmt: skip
    shifts = tuple(float(s) for s in range(-5, 6))
    curve = Curve("delay of the prediction, frames", shifts, tuple(30 - 0.4 * abs(s) for s in shifts), "PSNR, dB")
    oracle = row_from(
        Measured(tuple(figures(40.7, 0.2, frames)), missing, curves={"psnr_shift": curve}), ("pose", "landmarks")
    )
    predicted = row_from(Measured(tuple(figures(38.9, 0.4, frames)), missing), ("pose", "upper_face_landmarks"))
    if trained:
        facts = TrainedFacts("demo", "quick", "cpu", {"process": 107.2, "face": 162.0, "synthesize": None}, 96.4, 785.0)
        return Report(
            "demo, frames held out", {"oracle": oracle, "predicted": predicted}, ENTRIES,
            {"split": "val", "frames": frames} | SIZE, trained=facts,
        )  # fmt: skip
    compared = {
        "picture": {"name": AWKWARD, "frames": frames} | SIZE,
        "truth": {"name": "truth.mp4", "frames": frames + 2} | SIZE,
        "align": "shortest",
        "decoder": "PyAV 18.1.0",
        "conversion": "swscale, BT.601 limited range to RGB",
    }
    weights = {"syncnet_v2.model": "ab" * 32}
    return Report(f"clip {AWKWARD}", {"prediction": oracle}, ENTRIES, compared, weights)
