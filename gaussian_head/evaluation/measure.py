"""Runs metrics over one clip in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from gaussian_head.evaluation.metric import ClipFacts, Curve, Figure, Metric, Pair, Unavailable


@dataclass(frozen=True)
class Measured:
    """What came out of one clip."""

    figures: tuple[Figure, ...]
    unavailable: dict[str, str]
    """Entries that could not be computed, and why."""
    features: dict[str, Float[np.ndarray, "M D"]] = field(default_factory=dict)
    """What pooled figures over several clips need, by name."""
    curves: dict[str, Curve] = field(default_factory=dict)
    """What the page plots beside the traces, by entry."""


def measure(pairs: Iterable[Pair], clip: ClipFacts, metrics: Sequence[type[Metric]]) -> Measured:
    """Feed every pair to every metric that can run here.

    Args:
        pairs: The frames in order.
        clip: What is known beforehand.
        metrics: The metrics wanted, for example `registry.METRICS`.
    """
    ready, unavailable = [], {}
    for metric in metrics:
        reason = _lacks_truth(metric, clip)
        if reason is None:
            try:
                ready.append(metric(clip))
                continue
            except Unavailable as error:
                reason = str(error)
        unavailable |= {entry.name: reason for entry in metric.entries}
    for pair in pairs:
        for metric in ready:
            metric.update(pair)
    figures, features, curves = [], {}, {}
    for metric in ready:
        try:
            figures += metric.finish()
            features |= metric.features()
            curves |= metric.curves()
        except Unavailable as error:
            unavailable |= {entry.name: str(error) for entry in metric.entries}
    return Measured(tuple(figures), unavailable, features, curves)


def _lacks_truth(metric: type[Metric], clip: ClipFacts) -> str | None:
    if clip.has_truth or "truth" not in metric.entries[0].needs:
        return None
    return "needs ground truth; give --gt"
