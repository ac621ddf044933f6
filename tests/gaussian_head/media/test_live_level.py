"""The loud level of a voice that still speaks."""

from __future__ import annotations

import numpy as np
import pytest

from gaussian_head.media.live_level import LiveLevel


def levels(seconds: float, loud_db: float, seed: int = 0) -> np.ndarray:
    """Levels of running speech, a hundred a second."""
    return loud_db - np.random.default_rng(seed).exponential(8, round(100 * seconds))


def heard(level: LiveLevel, steps: np.ndarray) -> float:
    for step in steps:
        level.hear(float(step))
    return level.loud_db


@pytest.mark.parametrize("assumed_db", [-50.0, -18.0, -8.0])
def test_it_finds_the_percentile_whatever_was_assumed(assumed_db: float) -> None:
    speech = levels(20, -30)
    assert heard(LiveLevel(assumed_db, -60.0), speech) == pytest.approx(np.percentile(speech, 95), abs=1.0)


def test_before_anything_is_heard_it_is_what_was_assumed() -> None:
    level = LiveLevel(-18.0, -60.0)
    assert heard(level, np.full(500, -61.0)) == -18.0


def test_a_long_pause_does_not_make_it_forget_the_voice() -> None:
    level = LiveLevel(-18.0, -60.0)
    before = heard(level, levels(20, -20))
    assert heard(level, np.full(12_000, -50.0)) == pytest.approx(before, abs=1.0)


def test_a_far_too_high_assumption_is_corrected_within_a_minute() -> None:
    assert heard(LiveLevel(0.0, -60.0), levels(60, -35)) == pytest.approx(-35, abs=2)


def test_a_click_at_the_beginning_is_outlived() -> None:
    level = LiveLevel(-18.0, -60.0)
    assert heard(level, np.full(3, 0.0)) > -5
    assert heard(level, levels(60, -40)) == pytest.approx(-40, abs=2)


def test_another_voice_is_learnt() -> None:
    level = LiveLevel(-18.0, -60.0)
    heard(level, levels(30, -20))
    assert heard(level, levels(10, -10)) == pytest.approx(-10, abs=2)
