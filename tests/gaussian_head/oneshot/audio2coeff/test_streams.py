"""Sequences that are worked on as they come are what they would be at once."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import savgol_filter

from gaussian_head.errors import UserError
from gaussian_head.media.wav2lip_mel import SILENCE, wav2lip_mel
from gaussian_head.oneshot.audio2coeff.blinks import QUICK, closed_eyes
from gaussian_head.oneshot.audio2coeff.hearing import Constant, Speech
from gaussian_head.oneshot.audio2coeff.references import repeated
from gaussian_head.oneshot.audio2coeff.streams import cross_faded, in_blocks, retimed, smoothed


def rows_of(values: np.ndarray) -> list[np.ndarray]:
    return list(np.reshape(values, (-1, 1)).astype(np.float32))


@pytest.mark.parametrize("frames", [0, 1, 10, 30, 31, 50, 51, 120])
def test_cross_fading_keeps_what_blocks_agree_on(frames: int) -> None:
    true = np.sin(np.arange(200.0))[:, None]
    asked = []

    def predict(first: int, last: int, before: np.ndarray | None) -> np.ndarray:
        asked.append((first, last))
        assert (before is None) == (first == 0)
        assert before is None or np.allclose(before, true[first - 1])
        return true[first:last]

    found = list(cross_faded(predict, frames, width=30, overlap=10))
    assert len(found) == frames
    assert np.allclose(np.reshape(found, (-1, 1)), true[:frames])
    assert all(0 < last - first <= 30 for first, last in asked)


def test_cross_fading_has_no_jump_where_blocks_disagree() -> None:
    found = np.array(list(cross_faded(lambda a, b, _: np.full((b - a, 1), a / 20.0), 200, 30, 10)))[:, 0]
    assert np.ptp(found) == 9  # blocks at 0, 20, ... 180
    assert np.abs(np.diff(found)).max() < 0.2  # a tenth of the way, one and a half times as fast in the middle
    side_by_side = np.array(list(cross_faded(lambda a, b, _: np.full((b - a, 1), a / 30.0), 200, 30, 0)))[:, 0]
    assert np.abs(np.diff(side_by_side)).max() == 1


@pytest.mark.parametrize("frames", [0, 1, 2, 3, 4, 12, 13, 14, 63, 64, 65, 300])
def test_smoothing_is_that_of_the_whole(frames: int) -> None:
    values = np.random.default_rng(0).standard_normal((frames, 6))
    found = list(smoothed(iter(values), frames))
    window = 13 if frames >= 13 else (frames - 1) // 2 * 2 + 1
    expected = savgol_filter(values, window, 2, axis=0) if window >= 3 else values
    assert np.allclose(np.reshape(found, (-1, 6)), expected)


@pytest.mark.parametrize(("source", "target"), [(25, 30), (30, 25), (25, 25), (30, 29.97), (10, 60)])
def test_retiming_follows_a_parabola(source: float, target: float) -> None:
    def at(times: np.ndarray) -> np.ndarray:
        return 3 * times**2 - times + 1

    rows = rows_of(at(np.arange(60) / source))
    count = int(60 * target / source)
    found = np.array(list(retimed(iter(rows), source, target, count)))[:, 0]
    times = np.arange(count) / target
    inside = (times >= 1 / source) & (times <= 58 / source)
    assert len(found) == count
    assert np.abs(found - at(times))[inside].max() < 1e-4
    assert np.isclose(found[0], rows[0])


def test_retiming_holds_the_last_row() -> None:
    assert np.allclose(list(retimed(iter(rows_of(np.array([1.0, 2.0]))), 25, 30, 9))[-5:], 2)
    assert np.allclose(list(retimed(iter(rows_of(np.array([7.0]))), 25, 30, 3)), 7)


def test_blocks_hold_every_row_once() -> None:
    blocks = list(in_blocks(iter(rows_of(np.arange(10))), 4))
    assert [len(block) for block in blocks] == [4, 4, 2]
    assert np.concatenate(blocks)[:, 0].tolist() == list(range(10))


def test_a_reference_is_repeated_without_a_jump() -> None:
    rows = np.arange(4.0)[:, None]

    def first_nine(loop: str) -> list[float]:
        return [row.item() for row, _ in zip(repeated(rows, loop), range(9), strict=False)]

    assert first_nine("bounce") == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert first_nine("wrap") == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    for count in (1, 2):
        assert len([row for row, _ in zip(repeated(rows[:count], "bounce"), range(9), strict=False)]) == 9
    slower = repeated(np.arange(50.0)[:, None], "bounce", rows_fps=50, fps=25)
    assert [next(slower).item() for _ in range(4)] == [0, 2, 4, 6]


@pytest.mark.parametrize("frames", [*range(30), 100, 1000])
@pytest.mark.parametrize("kind", ["random", "regular", "none"])
def test_blinks_fit_any_length(frames: int, kind: str) -> None:
    closed = np.array(list(closed_eyes(frames, kind, seed=5)))
    assert len(closed) == frames
    shut = np.flatnonzero(closed == 1)
    assert bool(len(shut)) == (frames >= {"random": 26, "regular": 90, "none": 10**9}[kind]) or 21 < frames < 26
    for place in shut:
        pulse = closed[place - 2 : place + 3]
        assert np.allclose(pulse, QUICK if kind == "random" else (0.7, 0.9, 1, 0.9, 0.7))
    if kind == "random" and frames == 1000:
        assert 15 <= np.diff(shut).min() <= np.diff(shut).max() <= 74
        assert list(closed_eyes(frames, kind, 5)) == closed.tolist() != list(closed_eyes(frames, kind, 6))


@pytest.mark.parametrize(("fps", "bands", "width", "offset"), [(25, 80, 16, -2), (30, 40, 5, 0)])
def test_windows_are_those_of_the_whole_mel(fps: int, bands: int, width: int, offset: int) -> None:
    speech = np.random.default_rng(1).normal(0, 0.1, 30_000).astype(np.float32)
    heard = Speech(speech, fps, bands=bands, width=width, offset_frames=offset)
    assert heard.frames == 30_000 * fps // 16_000
    mel = wav2lip_mel(speech[: heard.frames * 16_000 // fps], bands)
    every = np.concatenate([heard.windows(first, first + 1) for first in range(heard.frames + 5)])
    for frame in (0, 1, 7, 30, heard.frames - 1, heard.frames + 4):
        rows = np.clip(int(80 * (frame + offset) / fps) + np.arange(width), 0, len(mel) - 1)
        assert np.allclose(every[frame], mel[rows].T, atol=1e-5)
    assert np.allclose(heard.windows(0, heard.frames), every[: heard.frames], atol=1e-5)


def test_sounds_that_cannot_be_heard_are_refused() -> None:
    with pytest.raises(UserError, match="has 639 samples; expected at least 640"):
        Speech(np.zeros(639, np.float32), 25)
    with pytest.raises(UserError, match="not finite"):
        Speech(np.full(1000, np.nan, np.float32), 25)
    assert Speech(np.zeros(640, np.float32), 25).windows(0, 1).max() == SILENCE
    assert np.array_equal(Constant(3).windows(0, 3), Speech(np.zeros(1920, np.float32), 25).windows(0, 3))
