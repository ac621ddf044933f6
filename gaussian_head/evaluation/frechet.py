"""The Frechet distance between two sets of feature vectors, each taken as a Gaussian (FID, FVD)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from gaussian_head.evaluation.metric import Entry, Figure


def frechet_distance(features: Float[np.ndarray, "N D"], truths: Float[np.ndarray, "M _"]) -> float:
    """Return |m - m'|^2 + tr S + tr S' - 2 tr (S S')^(1/2) with unbiased covariances; symmetric, 0 for equal sets.

    Exact also where there are fewer samples than dimensions, in float64. The papers' programs take the square root of
    the product of the covariances, which is singular there: piq (ViCo) stops its iteration early and reads about 0.03
    too high at D = 2048, pytorch-fid's residue is 1e-6 (specs/metrics.md, section 3.1). Few samples bias every form
    upwards: compare only figures from equally many.

    Raises:
        ValueError: Fewer than two samples, different dimensions, or values that are not finite.
    """
    for name, each in (("features", features), ("truths", truths)):
        if len(each) < 2:
            raise ValueError(f"a Frechet distance needs at least 2 samples on each side, {name} has {len(each)}.")
        if not np.isfinite(each).all():
            raise ValueError(f"a Frechet distance needs finite values, {name} holds NaN or infinity.")
    if features.shape[1] != truths.shape[1]:
        raise ValueError(f"both sides need the same dimensions, got {features.shape[1]} and {truths.shape[1]}.")
    (mean, factor), (mean_truth, factor_truth) = _mean_and_factor(features), _mean_and_factor(truths)
    traces = np.square(factor).sum() + np.square(factor_truth).sum()
    # With S = A^T A and S' = B^T B, tr (S S')^(1/2) is the sum of the singular values of A B^T.
    cross = np.linalg.svd(factor @ factor_truth.T, compute_uv=False).sum()
    return float(max(0.0, np.square(mean - mean_truth).sum() + traces - 2 * cross))


def frechet_figure(entry: Entry, features: dict[str, Float[np.ndarray, "_ _"]], counted: int) -> Figure:
    """Return the distance between `<entry>.picture` and `<entry>.truth` as a clip's figure, or why there is none."""
    nothing = np.zeros((0, 0))
    sides = [features.get(f"{entry.name}.{side}", nothing) for side in ("picture", "truth")]
    try:
        return Figure(entry.name, "full", frechet_distance(*sides), counted)
    except ValueError as error:
        return Figure(entry.name, "full", None, counted, reason=str(error))


def _mean_and_factor(samples: Float[np.ndarray, "N D"]) -> tuple[Float[np.ndarray, " D"], Float[np.ndarray, "R D"]]:
    """Return the mean, and A with A^T A the covariance and no more rows than columns."""
    samples = np.asarray(samples, np.float64)
    mean = samples.mean(0)
    factor = (samples - mean) / np.sqrt(len(samples) - 1)
    if len(factor) > factor.shape[1]:
        factor = np.linalg.qr(factor, mode="r")
    return mean, factor
