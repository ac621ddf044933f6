"""A delay is found, whichever way it goes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gaussian_head.evaluation.measure import measure
from gaussian_head.evaluation.metric import ClipFacts, Figure, Look, Pair
from gaussian_head.evaluation.shift_curve import REACH, ShiftCurve, squared_errors


def footage(frames: int) -> list[np.ndarray]:
    """A blob that wanders over a still background."""
    y, x = np.mgrid[:48, :40]
    pictures = []
    for t in range(frames):
        blob = np.exp(-((x - 20 - 12 * np.sin(t / 3)) ** 2 + (y - 24 - 10 * np.cos(t / 4.1)) ** 2) / 40)
        pictures.append(np.repeat((60 + 150 * blob).astype(np.uint8)[..., None], 3, 2))
    return pictures


def shift_of(pictures: list[np.ndarray], truths: list[np.ndarray]) -> tuple[Figure, dict]:
    pairs = (
        Pair(i, *(Look(rgb, lambda _: None) for rgb in both))
        for i, both in enumerate(zip(pictures, truths, strict=True))
    )
    measured = measure(pairs, ClipFacts(25.0, 40, 48, has_truth=True), [ShiftCurve])
    return measured.figures[0], measured.curves


@pytest.mark.parametrize("late", range(-REACH, REACH + 1))
def test_a_delay_is_found(late: int) -> None:
    seen = footage(60)
    truths = seen[10:50]
    figure, curves = shift_of(seen[10 - late : 50 - late], truths)
    assert figure.value == late
    assert figure.counted == 30
    curve = curves["psnr_shift"]
    assert curve.x == tuple(range(-REACH, REACH + 1))
    assert curve.y[late + REACH] == max(curve.y) == 100
    assert curve.y[0] < 40 or late == -REACH


def test_every_shift_is_judged_on_the_same_true_frames() -> None:
    seen = footage(30)
    _, curves = shift_of(seen, seen)
    gray = [torch.from_numpy(picture[..., 0]).double() / 255 for picture in seen]
    grown = [torch.nn.functional.interpolate(g[None, None], (64, 64), mode="bicubic")[0, 0] for g in gray]
    errors = np.mean(
        [[((grown[t + s] - grown[t]) ** 2).mean().item() for s in range(-5, 6)] for t in range(5, 25)], axis=0
    )
    expected = -10 * np.log10(np.maximum(errors, 1e-10))
    assert np.allclose(curves["psnr_shift"].y, expected, atol=0.2)


def test_stills_have_no_delay() -> None:
    figure, _ = shift_of([footage(1)[0]] * 15, [footage(1)[0]] * 15)
    assert figure.value == 0


def test_a_clip_too_short_says_so() -> None:
    seen = footage(2 * REACH)
    figure, curves = shift_of(seen, seen)
    assert figure.value is None
    assert "shorter than 11 frames" in figure.reason
    assert curves == {}


def test_errors_are_those_of_each_picture() -> None:
    truth = np.zeros((64, 64))
    assert squared_errors([truth, truth + 0.5, truth - 1], truth).tolist() == [0, 0.25, 1]
