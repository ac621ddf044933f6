"""Blinks, brows and gaze."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gaussian_head.data.subject import Subject
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.driving.upper_face import (
    BLINK_UNIT,
    BROW_UNITS,
    BROWS,
    EYE_UNITS,
    IRISES,
    USUAL_RATE,
    Blinking,
    BrowDrift,
    Brows,
    camera_direction,
    eye_closure,
    look_at_camera,
    made_up_blink,
    own_blink_rate,
    without_blinks,
)
from gaussian_head.geometry.landmarks import INNER_LIPS, LEFT_EYE, RIGHT_EYE

TEN_MINUTES = 15_000
BLINKS_AT = (20, 61, 99)


@pytest.fixture
def still(tiny_subject: Path) -> DrivingSequence:
    """120 frames of one open-eyed face, action unit 45 at rest."""
    one = DrivingSequence.from_subject(Subject(tiny_subject, 64), [10])
    index = torch.zeros(120, dtype=torch.long)
    return replace(one, **{name: part[index] for name, part in one.parts().items()})


@pytest.fixture
def blinking(still: DrivingSequence) -> DrivingSequence:
    """The same, with three blinks of different depth."""
    blink = made_up_blink(still)
    landmarks, units = still.landmarks.clone(), still.action_units.clone()
    for k, first in enumerate(BLINKS_AT):
        inside = slice(first, first + len(blink.units))
        landmarks[inside] += (1 - 0.1 * k) * blink.lids
        units[inside, EYE_UNITS] += (1 - 0.1 * k) * blink.units
    return replace(still, landmarks=landmarks, action_units=units)


def test_blinks_are_cut_out_landmarks_and_action_units_together(
    still: DrivingSequence, blinking: DrivingSequence
) -> None:
    opened, blinks = without_blinks(blinking)
    assert len(blinks) == 3
    assert eye_closure(blinking).max() > 0.9
    assert eye_closure(opened).max() < 0.3
    assert float(opened.action_units[:, BLINK_UNIT].max()) < 0.6
    assert torch.equal(opened.landmarks[:, INNER_LIPS], still.landmarks[:, INNER_LIPS])
    for k, (first, blink) in enumerate(zip(BLINKS_AT, blinks, strict=True)):
        shut = int(blink.units[:, EYE_UNITS.index(BLINK_UNIT)].argmax())
        lids = blink.lids[:, RIGHT_EYE].norm(dim=-1).sum(1)
        assert shut == int(lids.argmax())  # both say shut in the same frame
        assert float(blink.units[shut].max()) == pytest.approx(2 * (1 - 0.1 * k), abs=0.25)
        around = opened.landmarks[first : first + 7]
        assert float((around - still.landmarks[first : first + 7]).abs().max()) < 3e-3  # shut lids move by 11 mm


def test_a_blink_put_back_gives_the_footage_again(blinking: DrivingSequence) -> None:
    opened, blinks = without_blinks(blinking)
    for first, blink in zip(BLINKS_AT, blinks, strict=True):
        inside = slice(first, first + len(blink.units))
        assert torch.allclose(opened.landmarks[inside] + blink.lids, blinking.landmarks[inside], atol=1e-6)
        assert torch.allclose(
            opened.action_units[inside][:, EYE_UNITS] + blink.units, blinking.action_units[inside][:, EYE_UNITS]
        )


def test_shut_eyes_at_either_end_and_for_long_are_no_blinks(still: DrivingSequence) -> None:
    shut = made_up_blink(still).lids[2]
    landmarks = still.landmarks.clone()
    for asleep in (slice(0, 4), slice(40, 80), slice(117, 120)):
        landmarks[asleep] += shut
    opened, blinks = without_blinks(replace(still, landmarks=landmarks))
    assert blinks == []
    assert eye_closure(opened).max() < 0.2


def test_where_landmarks_show_no_blink_the_action_unit_does(tiny_subject: Path) -> None:
    footage = DrivingSequence.from_subject(Subject(tiny_subject, 64), list(range(80)))
    opened, blinks = without_blinks(footage)
    assert len(blinks) == 1  # frames 40..42; that at frame 0 is cut off
    assert float(opened.action_units[:, BLINK_UNIT].max()) < 0.5


@pytest.mark.parametrize("per_minute", [6, 17, 30])
def test_blinks_come_as_often_as_wanted(still: DrivingSequence, per_minute: int) -> None:
    lids, units = Blinking([made_up_blink(still)], per_minute, 25, seed=4).take(TEN_MINUTES)
    shut = units[:, EYE_UNITS.index(BLINK_UNIT)] > 1
    onsets = (shut[1:] & ~shut[:-1]).nonzero()[:, 0]
    # Standard deviation of a renewal process's count: the intervals' relative deviation times the root of the count.
    expected = 10 * per_minute
    assert abs(len(onsets) - expected) < 3 * 0.66 * expected**0.5
    intervals = onsets.diff().double()
    assert 0.4 < float(intervals.std() / intervals.mean()) < 0.95  # neither a clock nor in bursts
    moved = lids[:, RIGHT_EYE].abs().flatten(1).amax(1) > 0
    assert torch.equal(moved, units.abs().amax(1) > 0)


def test_no_blinks_where_none_are_wanted(still: DrivingSequence) -> None:
    lids, units = Blinking([made_up_blink(still)], 0, 25, seed=0).take(2000)
    assert not lids.any()
    assert not units.any()


def test_own_rate_needs_enough_blinks(still: DrivingSequence) -> None:
    blink = made_up_blink(still)
    assert own_blink_rate([blink] * 2, 10) == USUAL_RATE
    assert own_blink_rate([blink] * 4, 12) == pytest.approx(20)
    assert own_blink_rate([blink] * 30, 12) == 30


def test_pieces_and_seeds(still: DrivingSequence) -> None:
    def blinks(seed: int, sizes: tuple[int, ...]) -> torch.Tensor:
        process = Blinking([made_up_blink(still), made_up_blink(still)], 20, 25, seed)
        return torch.cat([process.take(size)[1] for size in sizes])

    def drift(seed: int, sizes: tuple[int, ...]) -> torch.Tensor:
        process = BrowDrift(Brows(still), 25, seed)
        return torch.cat([process.take(np.full(size, 0.5)) for size in sizes])

    for process in (blinks, drift):
        whole = process(1, (1000,))
        assert torch.equal(whole, process(1, (1, 0, 399, 600)))
        assert not torch.equal(whole, process(2, (1000,)))


@pytest.fixture
def frowning(still: DrivingSequence) -> DrivingSequence:
    """Brows that go up and down by 3 mm, action unit 1 with them."""
    lift = torch.sin(torch.arange(120) / 9)
    landmarks, units = still.landmarks.clone(), still.action_units.clone()
    landmarks[:, BROWS, 1] += 0.003 * lift[:, None]
    units[:, BROW_UNITS[0]] = 1 + lift
    return replace(still, landmarks=landmarks, action_units=units)


def test_brows_move_as_in_the_footage_with_their_action_unit(frowning: DrivingSequence) -> None:
    brows = Brows(frowning)
    codes = torch.zeros(3, len(brows.spread))
    codes[:, 0] = torch.tensor([-1.0, 0.0, 1.0])
    landmarks, units = brows.placed(frowning.landmarks[[5, 40, 80]], frowning.action_units[[5, 40, 80]], codes)
    height = landmarks[:, BROWS, 1].mean(1)
    assert float(height[2] - height[0]) == pytest.approx(2 * 0.003 * np.sqrt(0.5), rel=0.15)
    assert float(height[1] - frowning.landmarks[:, BROWS, 1].mean()) == pytest.approx(0, abs=3e-4)
    assert float(units[2, BROW_UNITS[0]] - units[0, BROW_UNITS[0]]) == pytest.approx(2 * np.sqrt(0.5), rel=0.15)
    eyes = np.concatenate([RIGHT_EYE, LEFT_EYE, INNER_LIPS])
    assert torch.allclose(landmarks[:, eyes], frowning.landmarks[[5, 40, 80]][:, eyes], atol=1e-6)


def test_brow_drift_has_the_footage_spread_and_follows_loudness(frowning: DrivingSequence) -> None:
    brows = Brows(frowning)
    rng = np.random.default_rng(0)
    loud = np.repeat(0.6 + 0.25 * rng.normal(size=TEN_MINUTES // 50), 50)
    codes = BrowDrift(brows, 25, seed=0).take(loud)
    assert float(codes[:, 0].std()) == pytest.approx(1, abs=0.15)
    assert abs(float(codes[:, 0].mean())) < 0.2
    assert float(codes.abs().max()) <= 2.5
    r = np.corrcoef(codes[:, 0].numpy(), np.roll(loud, 10))[0, 1]
    assert 0.1 < r < 0.5  # loosely
    assert float(codes[:, 0].diff().std()) < 0.2  # no trembling: a tenth of a second to move half a deviation


def test_eyes_on_the_camera_turn_against_the_head(tiny_subject: Path) -> None:
    motion = DrivingSequence.from_subject(Subject(tiny_subject, 64), list(range(80)))
    mean = motion.landmarks.mean(0)
    looked = look_at_camera(motion, mean, camera_direction(motion.viewmats).mean(0))
    shift = (looked[:, IRISES] - mean[IRISES]).mean(1)
    toward = camera_direction(motion.viewmats)[:, 0]
    assert np.corrcoef(shift[:, 0].numpy(), toward.numpy())[0, 1] > 0.99
    assert float(shift.abs().max()) <= 0.004
    others = np.setdiff1d(np.arange(478), IRISES)
    assert torch.equal(looked[:, others], motion.landmarks[:, others])
