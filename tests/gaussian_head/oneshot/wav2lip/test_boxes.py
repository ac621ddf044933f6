"""Boxes in a stream: order, gaps, smoothing, whose face it is, and how much is held."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from gaussian_head.oneshot.wav2lip.boxes import bridge_gaps, find_faces, pad_boxes, smooth_boxes

START, STEP = np.array([10, 20, 60, 90]), np.array([3, -2, 3, -2])


def moving(frames: int) -> list[np.ndarray]:
    return [START + k * STEP for k in range(frames)]


def test_centred_smoothing_does_not_shift_a_moving_face() -> None:
    boxes = moving(12)
    found = list(smooth_boxes(enumerate(boxes), "centred"))
    assert [k for k, _ in found] == list(range(12))
    np.testing.assert_array_equal([box for _, box in found], boxes)
    ahead = [box for _, box in smooth_boxes(enumerate(boxes), "ahead")]
    np.testing.assert_array_equal(ahead[:8], [box + 2 * STEP for box in boxes[:8]])  # what the reference does
    assert list(smooth_boxes(enumerate(boxes), "off"))[5][1] is boxes[5]


def test_smoothing_calms_jitter_and_stops_at_gaps() -> None:
    rng = np.random.default_rng(0)
    noisy = [np.array([100, 100, 200, 200]) + rng.integers(-6, 7, 4) for _ in range(40)]
    calm = np.array([box for _, box in smooth_boxes(enumerate(noisy), "centred")])
    assert np.abs(np.diff(calm, axis=0)).mean() < 0.4 * np.abs(np.diff(noisy, axis=0)).mean()
    here, there = np.array([0, 0, 50, 50]), np.array([500, 500, 600, 600])
    parted = list(smooth_boxes(enumerate([here] * 4 + [None] + [there] * 4), "centred"))
    assert [k for k, _ in parted] == list(range(9))
    assert parted[4][1] is None
    np.testing.assert_array_equal([box for _, box in parted[:4]], [here] * 4)
    np.testing.assert_array_equal([box for _, box in parted[5:]], [there] * 4)


def test_gaps_are_bridged_on_a_straight_line_unless_they_are_long() -> None:
    boxes = [None if k in (0, 1, 5, 6, 7, 10, 11, 12, 13, 18, 19) else box for k, box in enumerate(moving(20))]
    found = list(bridge_gaps(enumerate(boxes), 3))
    assert [k for k, _ in found] == list(range(20))
    bridged = [box for _, box in found]
    assert [k for k, box in enumerate(bridged) if box is None] == [10, 11, 12, 13]
    np.testing.assert_array_equal(bridged[5:8], moving(8)[5:])
    np.testing.assert_array_equal(bridged[:2], [moving(3)[2]] * 2)
    np.testing.assert_array_equal(bridged[18:], [moving(18)[17]] * 2)
    assert all(box is None for _, box in bridge_gaps(enumerate([None] * 9), 3))
    assert [box is None for _, box in bridge_gaps(enumerate([*[None] * 5, START]), 3)] == [True] * 5 + [False]


@pytest.mark.parametrize("hidden", [(), (9, 10, 11), tuple(range(9, 40))])
def test_few_frames_are_held(hidden: tuple[int, ...]) -> None:
    taken = 0

    def source() -> Iterator[tuple[int, np.ndarray | None]]:
        nonlocal taken
        for k in range(200):
            taken += 1
            yield k, None if k in hidden else START

    for given, (k, _) in enumerate(smooth_boxes(bridge_gaps(source(), 3), "centred")):
        assert k == given
        assert taken - given <= 3 + 2 + 1


def test_the_same_face_is_followed_among_several() -> None:
    left, right = np.array([10.0, 10, 50, 50]), np.array([100.0, 10, 160, 70])
    seen = [
        [left],
        [right, left + 2],
        [left + 4, right],
        [],
        [right, left + 8],
        [right],
        [np.array([200.0, 0, 260, 9])],
    ]
    frames = [np.zeros((100, 203, 3), np.uint8)] * len(seen)
    answers = iter(seen)

    def detect(pictures: list[np.ndarray]) -> list[np.ndarray]:
        return [np.array(next(answers)).reshape(-1, 4) for _ in pictures]

    boxes = [box for _, box in find_faces(frames, detect, 3)]
    np.testing.assert_array_equal(boxes[:3], [left, left + 2, left + 4])
    assert boxes[3] is None
    np.testing.assert_array_equal(boxes[4], left + 8)
    np.testing.assert_array_equal(boxes[5], right)  # the first one is gone
    assert boxes[6] is None  # 3 px of it are in the frame


def test_pads_end_at_the_frame() -> None:
    frame = np.zeros((100, 120, 3), np.uint8)
    ((_, box), (_, none)) = pad_boxes([(frame, np.array([5, 4, 100, 95])), (frame, None)], (9, 10, 3, 50))
    assert box.tolist() == [2, 0, 120, 100]
    assert none is None
