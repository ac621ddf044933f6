"""Runs metrics over one clip in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float

from gaussian_head.evaluation.metric import ClipFacts, Curve, Figure, Metric, Pair, Side, Unavailable


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
    running = _Running(clip, metrics)
    for pair in pairs:
        running.update(pair)
    return running.finish()


def measure_beside_truth(
    pairs: Iterable[Pair], clip: ClipFacts, metrics: Sequence[type[Metric]]
) -> tuple[Measured, Measured]:
    """Do the same, and in the same pass measure the true footage, by the metrics that compare with nothing.

    Returns:
        The clip's figures, and the truth's own: what blinks, motion or sharpness are to be held against.
    """
    running = _Running(clip, metrics)
    alone = [metric for metric in metrics if not _compares(metric)]
    true_clip = replace(clip, picture=clip.truth, truth=Side(), has_truth=False)
    truth = _Running(true_clip, alone)
    for pair in pairs:
        running.update(pair)
        truth.update(replace(pair, picture=pair.truth, truth=None))
    return running.finish(), replace(truth.finish(), unavailable={})  # the clip's row tells what is missing


class _Running:
    """Metrics at work on one clip."""

    def __init__(self, clip: ClipFacts, metrics: Sequence[type[Metric]]) -> None:
        self.metrics: list[Metric] = []
        self.unavailable: dict[str, str] = {}
        for metric in metrics:
            if _compares(metric) and not clip.has_truth:
                self._give_up(metric, "needs ground truth; give --gt")
                continue
            try:
                self.metrics.append(metric(clip))
            except Unavailable as error:
                self._give_up(metric, str(error))

    def update(self, pair: Pair) -> None:
        for metric in self.metrics:
            metric.update(pair)

    def finish(self) -> Measured:
        figures, features, curves = [], {}, {}
        for metric in self.metrics:
            try:
                figures += metric.finish()
                features |= metric.features()
                curves |= metric.curves()
            except Unavailable as error:
                self._give_up(type(metric), str(error))
        return Measured(tuple(figures), self.unavailable, features, curves)

    def _give_up(self, metric: type[Metric], reason: str) -> None:
        self.unavailable |= {entry.name: reason for entry in metric.entries}


def _compares(metric: type[Metric]) -> bool:
    return "truth" in metric.entries[0].needs
