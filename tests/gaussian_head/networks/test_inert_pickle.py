"""Checkpoints with objects in them: their tensors come out, their code does not run."""

from __future__ import annotations

import os
import pickle
import zipfile
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from gaussian_head.convert_weights import ConvertOptions, convert
from gaussian_head.errors import UserError
from gaussian_head.networks.inert_pickle import read_tensors
from gaussian_head.networks.weights import load_state_dict


class Bomb:
    """Makes a folder when it is unpickled in the ordinary way."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.target),)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.last = nn.Linear(4, 2, bias=False)


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_come_out_and_nothing_runs(tmp_path: Path, zipped: bool) -> None:
    bomb = Bomb(tmp_path / "burst")
    weights = {"a.weight": torch.arange(6.0).reshape(2, 3).T, "b": torch.ones(2, dtype=torch.int64)}
    content = {"state_dict": weights, "options": Namespace(lr=1), "bomb": bomb, "several": [bomb, {bomb}]}
    path = tmp_path / "x.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"holds objects besides.*gaussian_head\.convert_weights .*x\.pth"):
        load_state_dict(path)
    found = read_tensors(path)
    assert not bomb.target.exists()
    assert set(found) == {"state_dict.a.weight", "state_dict.b"}
    assert torch.equal(found["state_dict.a.weight"], weights["a.weight"])
    torch.load(path, weights_only=False)  # the bomb is a real one
    assert bomb.target.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_whole_module_gives_its_state_dict(tmp_path: Path, zipped: bool) -> None:
    network = Net()
    torch.save(network, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    found, expected = read_tensors(tmp_path / "x.pth"), network.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_command_writes_what_loads(tmp_path: Path) -> None:
    path, out = tmp_path / "x.pth", tmp_path / "y.safetensors"
    torch.save({"model": {"w": torch.ones(3)}, "opt": {"step": torch.zeros(1)}, "who": Namespace()}, path)
    convert(ConvertOptions(path, out, part="model."))
    assert set(load_file(out)) == set(load_state_dict(out)) == {"w"}
    with pytest.raises(UserError, match=r"begin with 'net\.'; it holds model\.w, opt\.step"):
        convert(ConvertOptions(path, out, part="net."))
    with pytest.raises(UserError, match=r"must end in \.safetensors"):
        convert(ConvertOptions(path, tmp_path / "y.pth"))


def test_damaged_files_and_programs_are_told(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"who": Namespace(), "w": torch.ones(50)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        read_tensors(path)
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "burst")))
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        read_tensors(path)
    assert not (tmp_path / "burst").exists()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/constants.pkl", b"")
    with pytest.raises(UserError, match="torchscript"):
        read_tensors(path)
