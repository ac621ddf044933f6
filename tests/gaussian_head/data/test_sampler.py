"""The order of frames: fair, bounded, rising where asked, and a function of (seed, step) alone."""

from __future__ import annotations

import numpy as np
import pytest

from gaussian_head.data.sampler import CurriculumConfig, FrameSampler

FRAMES = [3, 4, 7, 8, 9, 20, 21, 22, 40, 41, 42, 43]
MEASURE = np.linspace(1, 0, len(FRAMES))  # the first frame has the largest
EVEN = CurriculumConfig(every=0)


def test_every_frame_once_an_epoch_in_another_order():
    sampler = FrameSampler(FRAMES, MEASURE, EVEN, steps=36, seed=0)
    epochs = [[sampler.draw(12 * e + i) for i in range(12)] for e in range(3)]
    assert all(sorted(epoch) == FRAMES for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != FRAMES


@pytest.mark.parametrize(("every", "stop_share"), [(2, 1.0), (3, 0.8), (7, 0.5)])
def test_curriculum_takes_no_frame_from_the_epochs(every, stop_share):
    steps = 240
    sampler = FrameSampler(FRAMES, MEASURE, CurriculumConfig(every, stop_share), steps, seed=0)
    even = [sampler.draw(s) for s in range(steps) if s % every != every - 1 or s >= stop_share * steps]
    for start in range(0, len(even) - 11, 12):
        assert sorted(even[start : start + 12]) == FRAMES


def test_curriculum_rises_and_then_stops():
    steps = 3000
    sampler = FrameSampler(FRAMES, MEASURE, CurriculumConfig(every=3, stop_share=0.8), steps, seed=1)
    measure = dict(zip(FRAMES, MEASURE, strict=True))
    risen = np.array([measure[sampler.draw(s)] for s in range(2, 2400, 3)])
    quarters = [part.mean() for part in np.array_split(risen, 4)]
    assert quarters == sorted(quarters)
    assert quarters[-1] - quarters[0] > 0.4
    late = [sampler.draw(s) for s in range(2400, 2412)]
    assert len(set(late)) > 8  # evenly again


def test_a_curriculum_that_begins_at_the_top_draws_the_highest_alone():
    config = CurriculumConfig(every=2, stop_share=1.0, begin=1.0, window=0.25)
    sampler = FrameSampler(FRAMES, MEASURE, config, steps=200, seed=1)
    assert {sampler.draw(s) for s in range(1, 200, 2)} == set(FRAMES[:3])
    assert {sampler.draw(s) for s in range(0, 200, 2)} == set(FRAMES)


@pytest.mark.parametrize("every", [0, 1, 2, 7])
@pytest.mark.parametrize("frames", [[5], [5, 6], FRAMES])
def test_every_draw_is_one_of_the_frames(frames, every):
    sampler = FrameSampler(frames, np.zeros(len(frames)), CurriculumConfig(every=every), steps=50, seed=0)
    assert {sampler.draw(step) for step in range(60)} <= set(frames)  # past the end too: the next frame is read ahead


def test_draws_depend_on_seed_and_step_alone():
    def make(seed: int) -> FrameSampler:
        return FrameSampler(FRAMES, MEASURE, CurriculumConfig(every=3), steps=60, seed=seed)

    forward, backward = make(4), make(4)
    drawn = [forward.draw(step) for step in range(60)]
    assert drawn == [backward.draw(step) for step in reversed(range(60))][::-1]
    np.random.default_rng(9).random(100)
    assert drawn == [make(4).draw(step) for step in range(60)]
    assert drawn != [make(5).draw(step) for step in range(60)]
