"""The command that trains: every task is offered with all its options, a run is told to its checkpoints."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from toy_task import Toy

from gaussian_head.errors import UserError
from gaussian_head.oneshot import train


@dataclass(frozen=True)
class ToyOptions:
    """Train a toy."""

    data: Path
    """What from."""
    samples: int = 4
    """Of a batch."""
    device: str = "cpu"
    """Where."""

    def build(self) -> Toy:
        return Toy(self.samples)


@pytest.fixture
def toy(monkeypatch) -> None:
    monkeypatch.setitem(train.TASKS, "toy", ToyOptions)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)


def run(*words: object) -> None:
    train.train(*train.parse([str(word) for word in words]))


@pytest.mark.parametrize("name", train.TASKS)
def test_every_task_is_a_command_with_its_options(name):
    words = [name, "--data", "clips", "--out", "output/x", "--steps", "7", "--save-every", "3"]
    options, told = train.parse(words)
    assert type(options) is train.TASKS[name]
    assert options.data == Path("clips")
    assert (told.out, told.steps, told.save_every) == (Path("output/x"), 7, 3)
    assert options.build.__annotations__["return"] in {"Task", *(kind.__name__ for kind in all_tasks())}


def all_tasks(kind: type = train.Task) -> set[type]:
    return {kind}.union(*map(all_tasks, kind.__subclasses__()))


def test_trains_and_goes_on(tmp_path, toy, capsys):
    run("toy", "--data", "d", "--out", tmp_path, "--steps", 2)
    assert capsys.readouterr().out == f"{tmp_path}\n"
    run("toy", "--data", "d", "--out", tmp_path, "--steps", 3, "--device", "cuda:7")  # it may go on elsewhere
    document = json.loads((tmp_path / "step_000003/checkpoint.json").read_text())
    assert (document["task"], document["step"]) == ("toy", 3)
    assert document["options"] == {"data": "d", "samples": 4}
    with pytest.raises(UserError, match="other options"):
        run("toy", "--data", "d", "--out", tmp_path, "--steps", 4, "--samples", 5)


@pytest.mark.parametrize("option", ["steps", "log-every", "show-every", "save-every"])
def test_senseless_lengths_are_refused(option, toy, capsys):
    with pytest.raises(SystemExit):
        train.parse(["toy", "--data", "d", "--out", "o", f"--{option}", "0"])
    assert f"--{option} must be 1 or more" in " ".join(capsys.readouterr().err.split())
