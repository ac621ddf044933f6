"""Endless walks through footage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gaussian_head.data.layout import SubjectLayout
from gaussian_head.data.subject import Subject
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.driving.walk import (
    APART,
    FADE,
    HALF,
    Loop,
    Walk,
    find_loops,
    longest_run,
    surface_px,
    torso_thumbnail,
)

LONG = 15_000
"""Ten minutes."""


def swaying(tiny_subject: Path, frames: int, periods: tuple[float, ...], amplitude: float = 0.06) -> DrivingSequence:
    """Footage of a head that turns left and right with these periods (frames) at once, its own torso each frame."""
    one = DrivingSequence.from_subject(Subject(tiny_subject, 64), [0])
    time = torch.arange(frames, dtype=torch.float32)
    angle = amplitude * sum(torch.sin(2 * torch.pi * time / period) for period in periods)
    turn = torch.eye(4).repeat(frames, 1, 1)
    turn[:, 0, 0] = turn[:, 2, 2] = angle.cos()
    turn[:, 0, 2], turn[:, 2, 0] = angle.sin(), -angle.sin()
    return DrivingSequence(
        viewmats=one.viewmats @ turn, K=one.K, landmarks=one.landmarks.repeat(frames, 1, 1),
        action_units=one.action_units.repeat(frames, 1), hair=one.hair.repeat(frames, 1, 1),
        frame_index=torch.arange(frames), width=one.width, height=one.height,
    )  # fmt: skip


def steps_px(motion: DrivingSequence) -> np.ndarray:
    return np.sqrt(np.square(np.diff(surface_px(motion), axis=0)).sum(1))


@pytest.mark.parametrize("periods", [(60.0, 41.3), (73.0, 47.0, 31.0)])
def test_a_long_walk_never_jumps(tiny_subject: Path, periods: tuple[float, ...]) -> None:
    footage = swaying(tiny_subject, 400, periods)
    loops = find_loops(footage)
    assert len(loops) > 3
    walked = footage.blended(*Walk(400, loops, seed=3).take(LONG))
    assert steps_px(walked).max() < 1.5 * steps_px(footage).max()
    # A bare cut between the moments of these very loops would be seen.
    places = surface_px(footage)
    cuts = [np.linalg.norm(places[loop.enter] - places[loop.leave - 1]) for loop in loops]
    assert max(cuts) > 1.5 * steps_px(footage).max()


def test_footage_too_short_for_loops_is_played_forth_and_back(tiny_subject: Path) -> None:
    footage = swaying(tiny_subject, 40, (60.0,))
    assert find_loops(footage) == []
    walked = footage.blended(*Walk(40, [], seed=0).take(LONG))
    assert steps_px(walked).max() < 1.05 * steps_px(footage).max()
    assert len(set(walked.frame_index.tolist())) > 32  # the turns are eased before the very ends


def test_a_head_that_only_ever_turns_away_has_no_loops(tiny_subject: Path) -> None:
    assert find_loops(swaying(tiny_subject, 300, (1200.0,), amplitude=0.5)) == []


def test_the_same_moment_moving_the_other_way_is_no_loop(tiny_subject: Path) -> None:
    period = 100.0
    for loop in find_loops(swaying(tiny_subject, 330, (period,), amplitude=0.2)):
        apart = (loop.enter - loop.leave) % period
        assert min(apart, period - apart) < 12  # in phase: not where the head comes back through the same place


def test_walks_play_forward_and_fade_between_loops(tiny_subject: Path) -> None:
    loops = find_loops(swaying(tiny_subject, 400, (60.0, 41.3)))
    first, second, share = Walk(400, loops, seed=0).take(LONG)
    assert int(first[0]) == 0
    assert bool(((share >= 0) & (share < 1)).all())
    assert bool((first[1:] - first[:-1])[(share[1:] > 0) & (share[:-1] > 0)].eq(1).all())  # both moments play on
    begun = ((share[1:] > 0) & (share[:-1] == 0)).nonzero()[:, 0] + 1
    taken = [(int(first[k]) + HALF, int(second[k]) + HALF) for k in begun]
    assert set(taken) <= {(loop.leave, loop.enter) for loop in loops}
    assert int(begun.diff().min()) >= FADE + APART  # a second of footage between two jumps
    assert all(a != b for a, b in zip(taken, taken[1:], strict=False))
    assert len(set(taken)) > len(loops) // 2


def test_the_only_loop_is_taken_again_and_again() -> None:
    first, _, share = Walk(200, [Loop(leave=150, enter=40, distance_px=0.0)], seed=0).take(600)
    assert int((share.diff() > 0.01).sum()) > 10
    assert int(first.max()) == 155


def test_seeds_decide_the_walk_and_pieces_do_not(tiny_subject: Path) -> None:
    loops = find_loops(swaying(tiny_subject, 400, (60.0, 41.3)))
    whole = Walk(400, loops, seed=1).take(2000)
    again, pieces = Walk(400, loops, seed=1), []
    for size in (1, 0, 700, 299, 1000):
        pieces.append(again.take(size))
    for a, *b in zip(whole, *pieces, strict=True):
        assert torch.equal(a, torch.cat(b))
    assert not torch.equal(whole.first, Walk(400, loops, seed=2).take(2000).first)


def test_forth_and_back_in_pieces_is_the_same() -> None:
    whole, pieces = Walk(50, [], seed=0).take(500), Walk(50, [], seed=0)
    parts = [pieces.take(size) for size in (1, 130, 369)]
    for a, *b in zip(whole, *parts, strict=True):
        assert torch.allclose(a.double(), torch.cat(b).double(), atol=1e-4)


def test_footage_with_a_gap_is_walked_where_it_is_whole() -> None:
    index = torch.tensor([0, 1, 2, 7, 8, 9, 10, 11, 20, 21])
    assert longest_run(index) == slice(3, 8)
    assert longest_run(torch.arange(5)) == slice(0, 5)


def test_torsos_that_differ_make_no_loop(tiny_subject: Path) -> None:
    footage = swaying(tiny_subject, 400, (60.0, 41.3))
    layout = SubjectLayout(tiny_subject)
    torso = torso_thumbnail(layout, 0)
    assert torso.max() <= 1
    assert torso[0, 0].max() == 0
    alike = find_loops(footage, lambda _: torso)
    assert len(alike) > 3
    elsewhere = np.roll(torso, 20, axis=1)
    parted = find_loops(footage, lambda k: torso if k < 200 else elsewhere)
    assert parted
    assert all((loop.leave < 200) == (loop.enter < 200) for loop in parted)


def test_hair_that_lies_otherwise_makes_no_loop(tiny_subject: Path) -> None:
    footage = swaying(tiny_subject, 400, (60.0, 41.3))
    blown = torch.zeros(400, 5, 3)
    blown[200:, :, 0] = 0.1
    for loop in find_loops(replace(footage, hair=blown + torch.tensor([0.0, 0.1, 0.0]))):
        assert (loop.leave < 200) == (loop.enter < 200)
