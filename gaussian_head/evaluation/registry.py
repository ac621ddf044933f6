"""All metrics, in the order in which reports list them."""

from __future__ import annotations

from gaussian_head.evaluation.metric import Entry, Metric

METRICS: tuple[type[Metric], ...] = ()


def entries() -> dict[str, Entry]:
    """Return the registry by name."""
    return {entry.name: entry for metric in METRICS for entry in metric.entries}
