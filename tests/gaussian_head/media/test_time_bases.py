"""Windows of every frame, at any rate, and of what does not exist."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from gaussian_head.media.time_bases import (
    frames_in_mel,
    frames_in_speech,
    mel_starts,
    samples_of_frames,
    window_rows,
)


@pytest.mark.parametrize("fps", [25, 30, 24, 60, 29.97, 12.5])
def test_starts_are_exact_for_an_hour(fps: float | int) -> None:
    frames = int(3600 * fps)
    starts = mel_starts(frames, fps)
    assert starts[:: frames // 50].tolist() == [int(80 * k / Fraction(fps)) for k in range(0, frames, frames // 50)]
    assert np.diff(starts).min() >= 80 // fps
    assert np.diff(starts).max() <= 80 // fps + 1


def test_starts_before_the_beginning_round_towards_it() -> None:
    assert mel_starts(4, 25, -2).tolist() == [-6, -3, 0, 3]


def test_clamped_windows_repeat_the_ends() -> None:
    assert window_rows(np.array([-2, 0, 3]), 4, 5).tolist() == [[0, 0, 0, 1], [0, 1, 2, 3], [3, 4, 4, 4]]
    assert window_rows(np.array([0]), 4, 2).tolist() == [[0, 1, 1, 1]]


def test_flushed_windows_end_with_the_last_row() -> None:
    assert window_rows(np.array([0, 1, 3, 9]), 4, 5, "flush").tolist() == [[0, 1, 2, 3]] + [[1, 2, 3, 4]] * 3
    assert window_rows(np.array([0, 5]), 4, 2, "flush").tolist() == [[0, 0, 0, 1]] * 2


@pytest.mark.parametrize("fps", [25, 30, 29.97, 7])
@pytest.mark.parametrize("columns", [1, 15, 16, 17, 19, 160, 1001])
def test_frames_of_wav2lip_are_those_of_its_loop(columns: int, fps: float | int) -> None:
    starts = []
    while not starts or starts[-1] + 16 <= columns:  # one more than fits
        starts.append(int(len(starts) * 80 / fps))
    assert frames_in_mel(columns, fps) == len(starts)
    rows = window_rows(mel_starts(len(starts), fps), 16, columns, "flush")
    assert rows[-1, -1] == columns - 1


def test_frames_and_samples() -> None:
    assert [frames_in_speech(samples, 25) for samples in (0, 639, 640, 6400)] == [0, 0, 1, 10]
    for fps in (25, 30, 29.97):
        for frames in range(200):
            assert frames_in_speech(samples_of_frames(frames, fps) + 1, fps) == frames


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        window_rows(np.array([0]), 4, 0)
    for call in (lambda: mel_starts(3, 0), lambda: frames_in_speech(3, -25), lambda: frames_in_mel(20, float("nan"))):
        with pytest.raises(ValueError, match="frame rate above 0"):
            call()
