"""The training loop: exact resumption, several processes as one, whole checkpoints, an end to losses that are NaN."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toy_task import Toy, silent

from gaussian_head import checkpoints
from gaussian_head.errors import UserError
from gaussian_head.oneshot import fitting
from gaussian_head.oneshot.fitting import NAN_LIMIT, FitConfig, Task, fit, load_trained

PROGRAM = Path(__file__).with_name("toy_task.py")
ROOT = PROGRAM.parents[3]


def config(steps: int, save_every: int = 100) -> FitConfig:
    return FitConfig(steps, log_every=1, show_every=4, save_every=save_every)


def tensors(task: Task) -> dict[str, Tensor]:
    found = {f"{name}.{key}": v for name, net in task.networks.items() for key, v in net.state_dict().items()}
    for name, optimizer in task.optimizers.items():
        found |= checkpoints.optimizer_tensors(optimizer, name)
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(next(folder.glob("step_*")).iterdir())}


def test_learns_and_goes_on_exactly_where_it_was_stopped(tmp_path):
    straight, stopped, resumed = Toy(), Toy(), Toy()
    start = [(p, p.detach().clone()) for network in straight.networks.values() for p in network.parameters()]
    fit(straight, tmp_path / "straight", config(9), silent)
    assert not any(torch.equal(parameter, value) for parameter, value in start)
    fit(stopped, tmp_path / "stopped", config(5), silent)
    fit(resumed, tmp_path / "stopped", config(9), silent)
    assert files(tmp_path / "stopped") == files(tmp_path / "straight")
    assert set(files(tmp_path / "straight")) == {
        "average.safetensors", "checkpoint.json", "generator.safetensors", "judge.safetensors", "training.safetensors",
    }  # fmt: skip
    assert tensors(resumed).keys() == tensors(straight).keys()
    assert (straight.shown, stopped.shown, resumed.shown) == ([4, 8, 9], [4, 5], [8, 9])
    trained = load_trained(tmp_path / "stopped", "generator")
    assert torch.equal(trained["4.weight"], straight.networks["generator"][4].weight)


def test_the_callers_random_state_is_left_alone(tmp_path):
    task = Toy()
    before = torch.random.get_rng_state()
    fit(task, tmp_path, config(2), silent)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> Path:
    """What torchrun left: a training of three steps, and one that was stopped after two and went on."""
    out = tmp_path_factory.mktemp("torchrun")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(PROGRAM), str(out)]
    result = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return out


class Joined(Toy):
    """Takes what both processes took, in one: their losses' mean."""

    def batch(self, step: int, rank: int) -> tuple[Tensor, Tensor]:
        return super().batch(step, 0), super().batch(step, 1)


class Halves(nn.Module):
    """Batch norm and dropout see one process's part at a time, as they do in two processes."""

    def __init__(self, network: nn.Module, step: int) -> None:
        super().__init__()
        self.network, self.step = network, step

    def forward(self, x: Tensor) -> Tensor:
        parts = []
        for rank, part in enumerate(x.chunk(2)):
            torch.manual_seed(fitting.np.random.SeedSequence((rank, self.step)).generate_state(1)[0].item())
            parts.append(self.network(part))
        return torch.cat(parts)


def test_two_processes_learn_as_one_from_the_joined_batch(two_processes, tmp_path):
    class JoinedToy(Joined):
        def step(self, batch: tuple[Tensor, Tensor], step: int, update) -> dict[str, Tensor]:
            networks = self.networks
            self.networks = {**networks, "generator": Halves(networks["generator"], step)}
            losses = super().step(torch.cat(batch), step, update)
            self.networks = networks
            return losses

    alone = JoinedToy()
    fit(alone, tmp_path, config(3), silent)
    for name in ("generator", "judge", "average"):
        one, two = (load_trained(run, name) for run in (tmp_path, two_processes / "straight"))
        for key, value in alone.networks[name].named_parameters():
            torch.testing.assert_close(two[key], one[key], rtol=0, atol=2e-6, msg=lambda m, k=key: f"{k}: {m}")
            assert value.shape == two[key].shape
    events = list((two_processes / "straight").glob("events.*"))
    assert len(events) == 1, "rank 0 alone writes"


def test_two_processes_resume_exactly(two_processes):
    assert files(two_processes / "stopped") == files(two_processes / "straight")


def test_killed_while_saving_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    flush, calls = checkpoints._flush, []

    def dies(path: Path) -> None:
        calls.append(path)
        if path.parent.name == ".step_000004.partial":
            raise KeyboardInterrupt
        flush(path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_flush", dies)
        with pytest.raises(KeyboardInterrupt):
            fit(Toy(), tmp_path / "killed", config(6, save_every=2), silent)
    assert [path.name for path in (tmp_path / "killed").glob("step_*")] == ["step_000002"]
    assert (tmp_path / "killed" / ".step_000004.partial").is_dir(), "the test must die while it is written"
    load_trained(tmp_path / "killed", "judge")
    fit(Toy(), tmp_path / "killed", config(6, save_every=2), silent)
    fit(Toy(), tmp_path / "straight", config(6), silent)
    assert files(tmp_path / "killed") == files(tmp_path / "straight")


def test_a_loss_that_is_not_finite_skips_that_optimizers_step_alone(tmp_path, caplog):
    spoiled, sound = Toy(), Toy()
    spoiled.spoiled = {2}
    fit(sound, tmp_path / "sound", config(2), silent)
    with caplog.at_level(logging.WARNING):
        fit(spoiled, tmp_path / "spoiled", config(3), silent)
    assert "toy step 3: loss or gradient is not finite" in caplog.text
    learned = {n: [p.detach() for p in t.networks["generator"].parameters()] for n, t in (("a", sound), ("b", spoiled))}
    assert all(torch.equal(*pair) for pair in zip(learned["a"], learned["b"], strict=True))
    assert not torch.equal(sound.networks["judge"][0].weight, spoiled.networks["judge"][0].weight)


def test_losses_that_stay_not_finite_end_the_training(tmp_path):
    task = Toy()
    task.spoiled = set(range(5, 100))
    with pytest.raises(UserError, match=rf"toy: .*{NAN_LIMIT} steps in a row, up to step {5 + NAN_LIMIT}; lower"):
        fit(task, tmp_path, config(100, save_every=4), silent)
    assert all(value.isfinite().all() for value in load_trained(tmp_path, "generator").values())


def test_another_training_is_not_continued(tmp_path):
    fit(Toy(), tmp_path, config(1), silent, {"rate": 0.1})
    with pytest.raises(UserError, match="other options.*another --out"):
        fit(Toy(), tmp_path, config(2), silent, {"rate": 0.2})
    other = Toy()
    other.name = "tiny"
    with pytest.raises(UserError, match="training of toy, not of tiny"):
        fit(other, tmp_path, config(2), silent, {"rate": 0.1})
    wide = Toy()
    wide.networks["judge"] = nn.Linear(2, 1)
    with pytest.raises(UserError, match=r"judge\.safetensors does not fit"):
        fit(wide, tmp_path, config(2), silent, {"rate": 0.1})


def test_nothing_trained_is_named(tmp_path):
    with pytest.raises(UserError, match="no checkpoint.*oneshot.train"):
        load_trained(tmp_path, "generator")
