"""Densification: what it does to the set, and what it must not do to the Gaussians and moments that stay."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gaussian_head.model.gaussians import Gaussians
from gaussian_head.training.densify import EXTENT_M, Densifier, DensifyConfig

CONFIG = DensifyConfig(start_share=0.0, stop_share=1.0, every=10, gradient_threshold=1e-3, min_opacity=0.05,
                       opacity_rise=0.1, max_gaussians=1000)  # fmt: skip
STEPS, COUNT = 100, 20
SMALL, LARGE = 0.1 * CONFIG.split_scale * EXTENT_M, 4 * CONFIG.split_scale * EXTENT_M


class Scene:
    """Twenty solid, small Gaussians that have learned for three steps, and one densifier."""

    def __init__(self, config: DensifyConfig = CONFIG, steps: int = STEPS, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.gaussians = Gaussians(COUNT, 1)
        with torch.no_grad():
            for name in Gaussians.NAMES:
                getattr(self.gaussians, name).copy_(torch.randn_like(getattr(self.gaussians, name)) * 0.1)
            self.gaussians.quats[:, 0] += 1
            self.gaussians.log_scales.copy_(torch.log(torch.full((COUNT, 3), SMALL)))
            self.gaussians.opacity_logits.fill_(3.0)
        groups = [{"params": [(f"g.{n}", getattr(self.gaussians, n))], "lr": 1e-4} for n in Gaussians.NAMES]
        self.optimizer = torch.optim.AdamW(groups)
        for _ in range(3):
            self.learn()
        self.densifier = Densifier(config, self.gaussians, steps)

    def learn(self) -> None:
        for name in Gaussians.NAMES:
            parameter = getattr(self.gaussians, name)
            parameter.grad = torch.randn_like(parameter)
        self.optimizer.step()

    def ask_for(self, rows: list[int], gradient: float = 1.0) -> None:
        """Let one view's gradient ask for more at some Gaussians."""
        wanted = torch.zeros(len(self.gaussians), 2)
        wanted[rows, 0] = gradient
        self.densifier.observe(wanted, torch.ones(len(self.gaussians), dtype=torch.int32))

    def update(self, step: int = 50, seed: int = 0) -> None:
        self.densifier.update(step, self.optimizer, "g.", seed)

    def parameters(self) -> dict[str, torch.Tensor]:
        return {name: getattr(self.gaussians, name).detach().clone() for name in Gaussians.NAMES}

    def moments(self, name: str) -> dict[str, torch.Tensor]:
        state = self.optimizer.state[getattr(self.gaussians, name)]
        return {key: state[key].clone() for key in ("exp_avg", "exp_avg_sq")}

    def make(self, rows: list[int], *, scale: float | None = None, opacity: float | None = None) -> None:
        with torch.no_grad():
            if scale is not None:
                self.gaussians.log_scales[rows] = torch.log(torch.tensor(scale))
            if opacity is not None:
                self.gaussians.opacity_logits[rows] = torch.logit(torch.tensor(opacity))


def test_small_gaussians_are_cloned_in_place():
    scene = Scene()
    before = scene.parameters()
    scene.ask_for([2, 5])
    scene.update()
    assert len(scene.gaussians) == COUNT + 2
    for name, value in scene.parameters().items():
        assert torch.equal(value[:COUNT], before[name]), name
        assert torch.equal(value[COUNT:], before[name][[2, 5]]), name


def test_large_gaussians_are_split_into_two_smaller_ones():
    scene = Scene()
    scene.make([3], scale=LARGE)
    before = scene.parameters()
    scene.ask_for([3])
    scene.update()
    after = scene.parameters()
    stay = [k for k in range(COUNT) if k != 3]
    assert len(scene.gaussians) == COUNT + 1
    for name in Gaussians.NAMES:
        assert torch.equal(after[name][: COUNT - 1], before[name][stay]), name
    halves = after["means"][-2:]
    assert (halves[0] != halves[1]).all()
    assert (halves - before["means"][3]).norm(dim=1).max() < 5 * LARGE
    assert (after["log_scales"][-2:].exp() < 0.7 * LARGE).all()
    for name in ("quats", "opacity_logits", "sh0", "shN"):
        assert torch.equal(after[name][-2:], before[name][[3, 3]]), name


def test_halves_lie_along_the_parents_longest_axis():
    scene = Scene()
    with torch.no_grad():
        scene.gaussians.quats[:] = torch.tensor([0.5**0.5, 0, 0, 0.5**0.5])  # a quarter turn about z: x becomes y
        scene.gaussians.log_scales[:] = torch.log(torch.tensor([LARGE, 1e-6, 1e-6]))
        scene.gaussians.means.zero_()
    scene.ask_for(list(range(COUNT)))
    scene.update()
    offsets = scene.gaussians.means.detach()
    assert len(offsets) == 2 * COUNT
    assert offsets[:, [0, 2]].abs().max() < 1e-5
    assert 0.5 * LARGE < offsets[:, 1].std() < 1.6 * LARGE


def test_faint_and_huge_gaussians_are_removed():
    scene = Scene()
    scene.make([0, 7], opacity=0.02)
    scene.make([9], scale=2 * CONFIG.max_scale * EXTENT_M)
    before = scene.parameters()
    scene.update(step=10)
    stay = [k for k in range(COUNT) if k not in (0, 7, 9)]
    for name, value in scene.parameters().items():
        assert torch.equal(value, before[name][stay]), name


def test_removed_gaussians_are_not_cloned():
    scene = Scene()
    scene.make([4], opacity=0.01)
    scene.ask_for([4])
    scene.update()
    assert len(scene.gaussians) == COUNT - 1


def test_the_opacity_bar_rises():
    survivors = []
    for step in (10, 90):
        scene = Scene()
        scene.make([1], opacity=0.1)
        scene.update(step=step)
        survivors.append(len(scene.gaussians))
    assert survivors == [COUNT, COUNT - 1]


def test_nothing_asked_nothing_done():
    scene = Scene()
    before, moments = scene.parameters(), scene.moments("means")
    scene.ask_for([1, 2], gradient=0.5 * CONFIG.gradient_threshold)
    scene.update()
    assert all(torch.equal(value, before[name]) for name, value in scene.parameters().items())
    assert all(torch.equal(value, moments[key]) for key, value in scene.moments("means").items())


@pytest.mark.parametrize("name", Gaussians.NAMES)
def test_moments_of_those_that_stay_are_kept_and_new_ones_are_zero(name):
    scene = Scene()
    scene.make([3], scale=LARGE)
    scene.make([6], opacity=0.01)
    before = scene.moments(name)
    steps = scene.optimizer.state[getattr(scene.gaussians, name)]["step"]
    scene.ask_for([1, 3])
    scene.update()
    stay = [k for k in range(COUNT) if k not in (3, 6)]
    for key, value in scene.moments(name).items():
        assert torch.equal(value[: len(stay)], before[key][stay])
        assert len(value) == len(stay) + 3  # a clone and two halves
        assert not value[len(stay) :].any()
    assert scene.optimizer.state[getattr(scene.gaussians, name)]["step"] == steps


def test_learning_goes_on_with_the_new_set():
    scene = Scene()
    scene.ask_for([1, 2])
    scene.update()
    before = scene.parameters()
    scene.learn()
    assert len(scene.optimizer.state) == len(Gaussians.NAMES)  # nothing left of the old parameters
    assert all((value != before[name]).any() for name, value in scene.parameters().items())


def test_neediest_first_when_there_is_little_room():
    scene = Scene(replace(CONFIG, max_gaussians=COUNT + 2))
    before = scene.parameters()
    for row, gradient in ((1, 2.0), (4, 9.0), (8, 3.0), (9, 8.0)):
        scene.ask_for([row], gradient)
    scene.update()
    assert len(scene.gaussians) == COUNT + 2
    assert {tuple(row) for row in scene.gaussians.means[COUNT:].tolist()} == {
        tuple(row) for row in before["means"][[4, 9]].tolist()
    }


@pytest.mark.parametrize("limit", [COUNT - 5, COUNT, COUNT + 3])
def test_limit_is_never_passed(limit):
    scene = Scene(replace(CONFIG, max_gaussians=limit))
    scene.make(list(range(0, COUNT, 2)), scale=LARGE)
    for step in (10, 20, 30):
        scene.ask_for(list(range(len(scene.gaussians))))
        scene.update(step)
        assert len(scene.gaussians) == max(limit, COUNT)  # over the limit: none is added, none is taken


def test_hidden_views_do_not_count():
    scene = Scene()
    gradient = torch.zeros(COUNT, 2)
    gradient[3, 0] = 1.5 * CONFIG.gradient_threshold
    radii = torch.zeros(COUNT, dtype=torch.int32)
    radii[3] = 2
    scene.densifier.observe(gradient, radii)
    for _ in range(4):
        scene.densifier.observe(torch.ones(COUNT, 2), torch.zeros(COUNT, dtype=torch.int32))
    scene.update()
    assert len(scene.gaussians) == COUNT + 1  # seen once, and then it asked


def test_statistics_start_again_after_a_change():
    scene = Scene()
    scene.ask_for([1, 2])
    scene.update(step=10)
    assert scene.densifier.gradient_sum.shape == scene.densifier.views.shape == (COUNT + 2,)
    scene.update(step=20)
    assert len(scene.gaussians) == COUNT + 2


def test_changes_depend_on_seed_and_step_alone():
    def split(step: int, seed: int, draws: int) -> torch.Tensor:
        scene = Scene()
        scene.make([3, 4], scale=LARGE)
        scene.ask_for([3, 4])
        torch.randn(draws)
        scene.update(step, seed)
        return scene.gaussians.means.detach()

    assert torch.equal(split(50, 1, draws=0), split(50, 1, draws=7))
    assert not torch.equal(split(50, 1, draws=0), split(60, 1, draws=0))
    assert not torch.equal(split(50, 1, draws=0), split(50, 2, draws=0))


def test_due_inside_the_window_alone():
    config = DensifyConfig(start_share=0.2, stop_share=0.6, every=10)
    densifier = Densifier(config, Gaussians(3, 0), 100)
    assert [step for step in range(1, 101) if densifier.due(step)] == [20, 30, 40, 50]


@pytest.mark.parametrize(("start", "stop"), [(0.7, 0.5), (0.5, 0.5), (-0.1, 0.5), (0.1, 1.2)])
def test_a_window_that_is_none_is_refused(start, stop):
    with pytest.raises(ValueError, match="start_share must come before"):
        DensifyConfig(start_share=start, stop_share=stop)
