"""The one loop: it survives losses that are not finite, saves on time, and continues bit for bit."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_fit import SAVE_EVERY, STEPS, TINY, longer, silent, stopping_after, trainer

from gaussian_head.data.subject import Subject
from gaussian_head.model.checkpoint import find_checkpoint
from gaussian_head.model.head import Head
from gaussian_head.training.fit import ORDER, fit_stage
from gaussian_head.training.learner import NAN_LIMIT
from gaussian_head.training.stage import View
from gaussian_head.training.stages import FuseStage
from gaussian_head.training.trainer import Trainer, TrainerConfig


class Scripted(FuseStage):
    """A stage whose loss is as large as a list says for each step."""

    def __init__(self, head: Head, subject: Subject, factors: list[float]) -> None:
        super().__init__(head, subject, longer(len(factors)).fuse, seed=0)
        self.factors = factors
        self.taken: list[int] = []

    def view(self, step: int) -> View:
        value = self.head.face.gaussians.sh0.square().mean()
        return View({"one": value, "two": value * self.factors[step]})

    def after_step(self, step: int, optimizer: torch.optim.Optimizer, view: View) -> None:
        self.taken.append(step)


@pytest.fixture
def subject(tiny_subject: Path) -> Subject:
    return Subject(tiny_subject, TINY.size)


@pytest.fixture
def head(tiny_head: Head) -> Head:
    return copy.deepcopy(tiny_head)


def files(run: Path, stage: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in find_checkpoint(run / stage).folder.iterdir()}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_step_that_is_not_finite_is_skipped(subject, head, tmp_path, caplog, bad):
    stage = Scripted(head, subject, [1.0, bad, 1.0, bad, bad, 1.0])
    trainer(tmp_path).fit(stage, {})
    assert stage.taken == [1, 3, 6]
    assert caplog.text.count("not finite") == 3
    assert all(torch.isfinite(value).all() for value in head.state_dict().values())
    assert find_checkpoint(tmp_path / "fuse").step == 6


def test_a_skipped_step_leaves_the_head_as_it_was(subject, head, tmp_path):
    before = copy.deepcopy(head.state_dict())
    trainer(tmp_path).fit(Scripted(head, subject, [math.nan] * 3), {})
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())


def test_too_many_in_a_row_end_the_training_with_advice(subject, head, tmp_path):
    stage = Scripted(head, subject, [1.0, *[math.nan] * (NAN_LIMIT - 1), 1.0, *[math.nan] * (NAN_LIMIT + 5)])
    with pytest.raises(FloatingPointError, match=f"fuse: {NAN_LIMIT} losses in a row.*learning rates"):
        trainer(tmp_path).fit(stage, {})
    assert stage.taken == [1, NAN_LIMIT + 1]


def test_gradients_that_are_not_finite_do_not_reach_the_head(subject, head, tmp_path):
    class Steep(Scripted):
        def view(self, step: int) -> View:
            value = self.head.face.gaussians.sh0
            hidden = (value.square() * 0).sqrt().sum()  # zero, with an infinite slope
            return View({"one": value.square().mean() + (hidden if step == 1 else 0)})

    trainer(tmp_path).fit(Steep(head, subject, [1.0] * 3), {})
    assert torch.isfinite(head.face.gaussians.sh0).all()


def test_saves_and_validates_on_schedule_and_at_the_end(subject, head, tmp_path):
    validated, saved = [], []

    def validate(stage: FuseStage, step: int, writer: object) -> None:
        validated.append(step)
        saved.append(find_checkpoint(tmp_path / "fuse").step)

    config = TrainerConfig(log_every=2, validate_every=4, save_every=3)
    Trainer(tmp_path, config, validate, stopping_after(100)).fit(Scripted(head, subject, [1.0] * 10), {"told": 5})
    assert validated == [4, 8, 10]
    assert saved == [3, 6, 10]
    found = find_checkpoint(tmp_path / "fuse")
    assert found.document["told"] == 5
    assert list((tmp_path / "fuse").glob("events.out.tfevents.*"))


def test_rates_fall_to_their_final_share(subject, head, tmp_path):
    rates = []

    class Watching(Scripted):
        def after_step(self, step: int, optimizer: torch.optim.Optimizer, view: View) -> None:
            rates.append([group["lr"] for group in optimizer.param_groups])

    stage = Watching(head, subject, [1.0] * 40)
    trainer(tmp_path).fit(stage, {})
    first, last = torch.tensor(rates[0]), torch.tensor(rates[-1])
    assert sorted(first.tolist()) == pytest.approx(
        sorted(rate for rate, _ in {(rate, decay) for _, _, rate, decay in stage.learned()})
    )
    assert (last / first).tolist() == pytest.approx([stage.config.rates.final_share ** (39 / 40)] * len(first))


def run_through(root: Path, run: Path, stops: dict[str, int] | None = None) -> None:
    """Train all stages on fresh objects; where `stops` says so, stop after some steps and begin anew."""
    stops = dict(stops or {})
    for name in ORDER:
        while True:
            progress = stopping_after(stops.pop(name, STEPS))
            fit_stage(name, Subject(root, TINY.size), run, TINY, "tiny", trainer(run, progress=progress))
            found = find_checkpoint(run / name)
            if found is not None and found.step == STEPS:
                break


@pytest.fixture(scope="module")
def straight(tiny_subject: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("straight")
    run_through(tiny_subject, run)
    return run


@pytest.mark.parametrize("stops", [2 * SAVE_EVERY, 2 * SAVE_EVERY + 1, SAVE_EVERY - 1])
def test_stopped_and_continued_is_as_if_never_stopped(tiny_subject, straight, tmp_path, stops):
    run_through(tiny_subject, tmp_path, dict.fromkeys(ORDER, stops))
    for name in ORDER:
        assert files(tmp_path, name) == files(straight, name), name


def test_the_sets_of_gaussians_changed_on_the_way(straight):
    """Else the test above would say little."""
    sizes = [
        {name: len(load_file(find_checkpoint(straight / stage).folder / "head.safetensors")[f"{name}.gaussians.means"])
         for name in ("face", "mouth")}
        for stage in ORDER
    ]  # fmt: skip
    assert sizes[0]["mouth"] > TINY.mouth.gaussians
    assert sizes[1]["face"] > sizes[0]["face"]
    assert sizes[1]["mouth"] == sizes[0]["mouth"]
    assert sizes[2] == sizes[1]


def test_finished_stages_are_left_alone(tiny_subject, straight):
    before = files(straight, "face")
    quiet = Trainer(straight, TINY.trainer, silent, stopping_after(0))
    assert not fit_stage("face", Subject(tiny_subject, TINY.size), straight, TINY, "tiny", quiet)
    assert files(straight, "face") == before
