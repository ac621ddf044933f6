"""The registry of metrics: names, documentation."""

from __future__ import annotations

from pathlib import Path

from gaussian_head.evaluation import registry

NEEDS = {"truth", "landmarks", "audio", "coefficients", "action_units", "transcript", "camera", "weights"}


def test_names_are_told_once_and_needs_are_known() -> None:
    names = [entry.name for metric in registry.METRICS for entry in metric.entries]
    assert len(names) == len(set(names))
    assert all(entry.needs <= NEEDS for entry in registry.entries().values())


def test_the_page_of_metrics_is_the_registrys() -> None:
    page = Path(__file__).parents[3] / "docs" / "metrics.md"
    assert page.read_text() == registry.page(), "write gaussian_head.evaluation.registry.page() into docs/metrics.md"
