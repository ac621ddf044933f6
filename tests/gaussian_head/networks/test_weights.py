"""Weights are found where they should be, read without running code, and told apart when damaged."""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save as save_safetensors

from gaussian_head.errors import UserError
from gaussian_head.networks import weights
from gaussian_head.networks.weights import (
    TABLE,
    WeightsMissingError,
    find_weights,
    load_into,
    load_program,
    load_state_dict,
    look_at,
    sha256_of,
)

pytestmark = pytest.mark.usefixtures("bare_machine")
TENSORS = {"layer.weight": torch.arange(60.0).reshape(20, 3), "layer.bias": torch.zeros(20)}


def saved(path: Path, content: object = TENSORS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def test_every_row_of_the_table_is_complete() -> None:
    for name, row in TABLE.items():
        assert name == row.name
        assert row.file
        assert row.unlocks
        assert row.licence
        assert row.source
        assert row.size_mb > 0
        assert set(row.addresses) <= {row.file, *row.aliases} or row.repository
        assert row.sha256 == "" or (len(row.sha256) == 64 and int(row.sha256, 16))
    # torch's own convention: such a name ends with the first eight digits of the hash
    for name in ("alexnet", "inception"):
        assert TABLE[name].file.endswith(f"-{TABLE[name].sha256[:8]}.pth")
    assert TABLE["i3d"].addresses == {"i3d_torchscript.pt": TABLE["i3d"].source}
    assert TABLE["arcface"].addresses == TABLE["bfm"].addresses == {}


def test_search_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = TABLE["inception"].file
    with pytest.raises(WeightsMissingError):
        find_weights("inception")
    cached = saved(tmp_path / "hub/checkpoints" / file)
    assert find_weights("inception") == cached
    default = saved(tmp_path / "checkpoints" / file)
    assert find_weights("inception").resolve() == default
    shared = saved(tmp_path / "shared" / file)
    monkeypatch.setenv("GAUSSIAN_HEAD_CHECKPOINTS", str(shared.parent))
    assert find_weights("inception") == shared
    named = saved(tmp_path / "other name.pth")
    monkeypatch.setenv("GAUSSIAN_HEAD_INCEPTION", str(named))
    assert find_weights("inception") == named
    given = saved(tmp_path / "given.pth")
    assert find_weights("inception", given) == given


def test_other_names_and_folders_of_a_file(tmp_path: Path) -> None:
    alias = saved(tmp_path / "checkpoints/backbone.pth")
    assert find_weights("arcface").resolve() == alias
    published = saved(tmp_path / "checkpoints/ms1mv3_arcface_r100_fp16/backbone.pth")
    assert find_weights("arcface").resolve() == published


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsMissingError, match=r"^needs syncnet_v2\.model, see scripts/prepare\.sh$"):
        find_weights("syncnet")
    with pytest.raises(WeightsMissingError, match=r"nowhere\.pth is no file; it was named for syncnet_v2\.model"):
        find_weights("syncnet", tmp_path / "nowhere.pth")
    saved(tmp_path / "checkpoints" / TABLE["syncnet"].file)
    monkeypatch.setenv("GAUSSIAN_HEAD_SYNCNET", str(tmp_path / "gone.pth"))
    with pytest.raises(WeightsMissingError, match=r"gone\.pth is no file"):  # never replaced by another
        find_weights("syncnet")
    with pytest.raises(KeyError):
        find_weights("no such network")


class Harmful:
    """Runs code where a pickle is trusted."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("archive", [True, False])
def test_code_in_a_file_is_not_run(tmp_path: Path, archive: bool) -> None:
    torch.save(
        TENSORS | {"layer.more": Harmful()}, tmp_path / "harmful.pth", _use_new_zipfile_serialization=archive
    )  # fmt: skip
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Harmful(), protocol=2))
    for name in ("harmful.pth", "bare.pth"):
        with pytest.raises(UserError, match="cannot be read as plain tensors"):
            load_state_dict(tmp_path / name)
    assert not (tmp_path / "harm").exists()


def test_wrapped_tensors_are_unwrapped(tmp_path: Path) -> None:
    bare, wrapped = saved(tmp_path / "a.pth"), saved(tmp_path / "b.pth", {"state_dict": TENSORS, "epoch": 3})
    (tmp_path / "c.safetensors").write_bytes(save_safetensors(TENSORS))
    for path in (bare, wrapped, tmp_path / "c.safetensors"):
        loaded = load_state_dict(path)
        assert loaded.keys() == TENSORS.keys()
        assert all(torch.equal(loaded[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"epoch": 3}, {"state_dict": {"lr": 0.1}}])
def test_other_content_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(UserError, match="must map names to tensors"):
        load_state_dict(saved(tmp_path / "a.pth", content))


def damaged(raw: bytes) -> list[bytes]:
    cuts = [raw[: len(raw) * share // 16] for share in range(16)]
    return [*cuts, b"<html>404 Not Found</html>", bytes(len(raw)), struct.pack("<Q", 2**40) + raw[8:]]


@pytest.mark.parametrize("kind", ["archive", "legacy", "safetensors"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_files_are_told(tmp_path: Path, kind: str) -> None:
    if kind == "safetensors":
        raw, path = save_safetensors(TENSORS), tmp_path / "a.safetensors"
    else:
        buffer = io.BytesIO()
        torch.save(TENSORS, buffer, _use_new_zipfile_serialization=kind == "archive")
        raw, path = buffer.getvalue(), tmp_path / "a.pth"
    path.write_bytes(raw)
    assert load_state_dict(path).keys() == TENSORS.keys()
    for piece in damaged(raw):
        path.write_bytes(piece)
        with pytest.raises(UserError, match=r"a\.(pth|safetensors) (cannot be read|must map)"):
            load_state_dict(path)


def test_a_missing_or_forbidden_file_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_state_dict(tmp_path / "none.pth")
    with pytest.raises(IsADirectoryError):
        load_state_dict(tmp_path)


def test_a_network_is_filled_frozen_and_evaluating(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"weight": TENSORS["layer.weight"], "bias": TENSORS["layer.bias"]})
    network = load_into(torch.nn.Linear(3, 20), path)
    assert torch.equal(network.weight, TENSORS["layer.weight"])
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_the_first_names_that_differ_are_told(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"weight": torch.zeros(20, 3), "bias": torch.zeros(20)})
    told = {
        r"than Linear: weight is \[20, 3\], not \[21, 3\]; bias is \[20\], not \[21\]; see": torch.nn.Linear(3, 21),
        r"than Linear: bias is not its own; see": torch.nn.Linear(3, 20, bias=False),
        r"than Sequential: 0\.weight is missing; 0\.bias is missing; weight is not its own and 1 more": (
            torch.nn.Sequential(torch.nn.Linear(3, 20))
        ),
    }
    for message, network in told.items():
        with pytest.raises(UserError, match=message):
            load_into(network, path)


def test_a_prefix_is_cut_off_where_it_is(tmp_path: Path) -> None:
    whole = {"part.weight": torch.ones(2, 2), "part.bias": torch.ones(2), "other.part.bias": torch.zeros(2)}
    for name, content in {"a": whole, "b": {"weight": torch.ones(2, 2), "bias": torch.ones(2)}}.items():
        network = load_into(torch.nn.Linear(2, 2), saved(tmp_path / f"{name}.pth", content), prefix="part.")
        assert torch.equal(network.bias, torch.ones(2))


def test_what_training_programs_write_beside_the_tensors_is_read(tmp_path: Path) -> None:
    best = {"best_score": np.float64(83.25), "iteration": np.int64(7)}  # mmcv's hook_msgs
    mmcv = {"state_dict": TENSORS, "meta": {"CLASSES": ("skin",), "hook_msgs": best}, "optimizer": {"state": {}}}
    deep3d = {"net_recon": TENSORS, "opt_00": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 1e-4}]}}
    for name, content in {"mmcv": mmcv, "deep3d": deep3d}.items():
        assert load_state_dict(saved(tmp_path / f"{name}.pth", content)).keys() == TENSORS.keys()


def test_counters_of_batches_may_be_absent(tmp_path: Path) -> None:
    state = torch.nn.BatchNorm2d(3).state_dict()
    state.pop("num_batches_tracked")
    state["running_mean"] += 2
    network = load_into(torch.nn.BatchNorm2d(3), saved(tmp_path / "old.pth", dict(state)))
    assert torch.equal(network.running_mean, torch.full((3,), 2.0))


class Doubling(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints" / TABLE["i3d"].file
    path.parent.mkdir()
    torch.jit.script(Doubling()).save(str(path))
    return path


def publish(monkeypatch: pytest.MonkeyPatch, name: str, path: Path) -> None:
    """Make a file the published one."""
    row = dataclasses.replace(TABLE[name], sha256=sha256_of(path))
    monkeypatch.setitem(TABLE, name, row)


def test_a_program_runs_only_if_published_or_named(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"is a program and not the published one.*GAUSSIAN_HEAD_I3D="):
        load_program("i3d")
    assert load_program("i3d", program)(torch.ones(1)) == 2
    with monkeypatch.context() as patch:
        publish(patch, "i3d", program)
        assert load_program("i3d")(torch.ones(1)) == 2
    monkeypatch.setenv("GAUSSIAN_HEAD_I3D", str(program))
    assert load_program("i3d")(torch.ones(1)) == 2
    program.write_bytes(program.read_bytes()[:-100])
    with pytest.raises(UserError, match="no readable torchscript archive"):
        load_program("i3d")


def found() -> dict[str, weights.WeightState]:
    return {name: look_at(weights) for name, weights in TABLE.items()}


def test_list_tells_present_missing_and_corrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = found()
    assert set(states) == set(TABLE)
    assert {state.state for state in states.values()} == {"missing"}
    assert states["arcface"].place == Path("checkpoints/ms1mv3_arcface_r100_fp16/backbone.pth")

    published = saved(tmp_path / "checkpoints" / TABLE["alexnet"].file)
    publish(monkeypatch, "alexnet", published)
    saved(tmp_path / "checkpoints" / TABLE["inception"].file)
    saved(tmp_path / "checkpoints" / TABLE["arcface"].file)
    (tmp_path / "checkpoints" / TABLE["syncnet"].file).write_bytes(published.read_bytes()[:-50])
    states = found()
    there = {"alexnet": "present", "inception": "present", "arcface": "present", "syncnet": "corrupt"}
    assert {name: state.state for name, state in states.items()} == dict.fromkeys(TABLE, "missing") | there
    assert states["alexnet"].remark == ""
    assert "not the published file" in states["inception"].remark
    assert "sha256 is not known" in states["arcface"].remark
    assert "damaged" in states["syncnet"].remark
    assert states["syncnet"].place.resolve() == (tmp_path / "checkpoints" / TABLE["syncnet"].file)


def test_list_tells_a_strange_program_and_a_wrong_name(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = found()["i3d"]
    assert state.state == "corrupt"
    assert "not the published one" in state.remark
    monkeypatch.setenv("GAUSSIAN_HEAD_I3D", str(program))
    assert found()["i3d"].state == "present"
    monkeypatch.setenv("GAUSSIAN_HEAD_CHECKPOINTS", "elsewhere")
    monkeypatch.setenv("GAUSSIAN_HEAD_I3D", "nowhere.pt")
    state = found()["i3d"]
    assert (state.state, state.place) == ("missing", Path("elsewhere/i3d_torchscript.pt"))
    assert "nowhere.pt is no file" in state.remark
