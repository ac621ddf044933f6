"""Checkpoints: bit for bit what was saved, whole or not there, and strict about what they are."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from gaussian_head import checkpoints
from gaussian_head.checkpoints import optimizer_tensors, restore_optimizer
from gaussian_head.errors import UserError
from gaussian_head.model.checkpoint import find_checkpoint, save_checkpoint
from gaussian_head.model.head import Head

DOCUMENT = {"stage": "face", "subject": "tiny"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "face"


@pytest.fixture
def head(tiny_head: Head) -> Head:
    own = copy.deepcopy(tiny_head)
    for parameter in own.parameters():
        with torch.no_grad():
            parameter.add_(1e-3 * torch.randn_like(parameter))
    own.bind()
    return own


def test_head_comes_back_bit_for_bit(folder, head):
    training = {"optimizer.a.step": torch.tensor(7.0), "densify.views": torch.arange(5.0)}
    saved = save_checkpoint(folder, head, 7, DOCUMENT, training)
    found = find_checkpoint(folder)
    assert (found.step, found.folder, found.document) == (7, saved.folder, json.loads(json.dumps(saved.document)))
    again = found.load_head()
    assert again.config == head.config
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in head.state_dict().items()}
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in head.state_dict().items())
    tensors = found.load_training()
    assert tensors.keys() == training.keys()
    assert all(torch.equal(tensors[name], value) for name, value in training.items())


def test_loaded_head_deforms_alike(folder, head):
    save_checkpoint(folder, head, 1, DOCUMENT, {})
    again = find_checkpoint(folder).load_head()
    condition = head.space.condition(head.space.mean + 0.002, torch.ones(6), torch.zeros(0, 3), torch.eye(4))
    for name in ("face", "mouth"):
        one, other = getattr(head, name), getattr(again, name)
        for a, b in zip(one.deform(one.prepare(), condition), other.deform(other.prepare(), condition), strict=True):
            assert torch.equal(a, b)


def test_same_head_same_bytes(folder, head):
    for name in ("one", "two"):
        save_checkpoint(folder / name, head, 3, DOCUMENT, {"x": torch.ones(3)})
    for file in ("head.safetensors", "training.safetensors", "checkpoint.json"):
        assert (folder / "one/step_000003" / file).read_bytes() == (folder / "two/step_000003" / file).read_bytes()


def test_latest_step_stays_alone(folder, head):
    for step in (2, 10, 10, 30):
        save_checkpoint(folder, head, step, DOCUMENT, {})
        assert find_checkpoint(folder).step == step
    assert [path.name for path in folder.iterdir()] == ["step_000030"]


def test_nothing_saved_is_none(tmp_path):
    assert find_checkpoint(tmp_path / "nowhere") is None
    assert find_checkpoint(tmp_path) is None


def test_a_half_written_checkpoint_is_none(folder, head, monkeypatch):
    save_checkpoint(folder, head, 5, DOCUMENT, {})

    def dies(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_flush", dies)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(folder, head, 9, DOCUMENT, {})
    assert find_checkpoint(folder).step == 5
    find_checkpoint(folder).load_head()
    save_checkpoint(folder, head, 9, DOCUMENT, {})  # the remains are no obstacle
    assert find_checkpoint(folder).step == 9
    assert not list(folder.glob(".*"))


def test_old_checkpoint_half_deleted_does_not_hide_the_new_one(folder, head):
    save_checkpoint(folder, head, 9, DOCUMENT, {})
    (folder / "step_000005").mkdir()  # a kill while it was being removed
    assert find_checkpoint(folder).step == 9


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_tensors_are_named(folder, head, damage):
    save_checkpoint(folder, head, 9, DOCUMENT, {})
    path = folder / "step_000009/head.safetensors"
    path.write_bytes(path.read_bytes()[:1000]) if damage == "cut" else path.unlink()
    with pytest.raises(UserError, match=r"head\.safetensors is missing or damaged.*train again"):
        find_checkpoint(folder).load_head()


def edit_document(folder: Path, edit) -> None:
    path = find_checkpoint(folder).folder / "checkpoint.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def test_another_format_is_refused(folder, head):
    save_checkpoint(folder, head, 5, DOCUMENT, {})
    edit_document(folder, lambda document: document.update(format=99))
    with pytest.raises(UserError, match=r"step_000005.*format 99.*reads \d"):
        find_checkpoint(folder)


def test_an_option_nobody_knows_is_refused(folder, head):
    save_checkpoint(folder, head, 5, DOCUMENT, {})
    edit_document(folder, lambda document: document["head"].update(hiden=3))
    with pytest.raises(UserError, match="hiden.*hidden"):
        find_checkpoint(folder).load_head()


@pytest.mark.parametrize("damage", ["", "{", None])
def test_a_damaged_document_is_named(folder, head, damage):
    path = save_checkpoint(folder, head, 5, DOCUMENT, {}).folder / "checkpoint.json"
    path.unlink() if damage is None else path.write_text(damage)
    with pytest.raises(UserError, match=r"checkpoint\.json.*train again"):
        find_checkpoint(folder)


def test_optimizer_state_comes_back():
    def make() -> tuple[list[torch.nn.Parameter], torch.optim.Optimizer]:
        torch.manual_seed(3)
        parameters = [torch.nn.Parameter(torch.randn(4)), torch.nn.Parameter(torch.randn(2, 3))]
        groups = [{"params": [(f"p{i}", p)], "lr": 0.1} for i, p in enumerate(parameters)]
        return parameters, torch.optim.AdamW(groups)

    def learn(parameters: list, optimizer: torch.optim.Optimizer) -> None:
        for parameter in parameters:
            parameter.grad = parameter.detach() ** 2 + 1
        optimizer.step()

    straight, optimizer = make()
    learn(straight, optimizer)
    resumed, fresh = make()
    for parameter, value in zip(resumed, straight, strict=True):
        parameter.data.copy_(value)
    restore_optimizer(fresh, {name: value.clone() for name, value in optimizer_tensors(optimizer).items()})
    learn(straight, optimizer)
    learn(resumed, fresh)
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))
