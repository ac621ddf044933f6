"""The command that tells of weights names every file, its terms, its source and its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from gaussian_head import prepare as prepare_module
from gaussian_head.errors import UserError
from gaussian_head.networks.weights import TABLE, find_weights, load_state_dict
from gaussian_head.prepare import PrepareOptions, prepare


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of weights that holds two of the files, one of them damaged."""
    for name in list(os.environ):
        if name.startswith("GAUSSIAN_HEAD_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "huggingface"))
    folder = tmp_path / "my weights"
    folder.mkdir()
    monkeypatch.setenv("GAUSSIAN_HEAD_CHECKPOINTS", str(folder))
    torch.save({"weight": torch.ones(3)}, folder / "backbone.pth")
    (folder / TABLE["syncnet"].file).write_bytes(b"<html>404 Not Found</html>")
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that were asked for; each gives a small checkpoint, but one server has moved."""
    addresses = []

    def answer(address: str, place: Path, sha256: tuple[str, ...], told: object) -> None:
        addresses.append(address)
        place.parent.mkdir(parents=True, exist_ok=True)
        if "inception" in address:
            raise UserError("moved")
        torch.save({"weight": torch.ones(3)}, place)

    monkeypatch.setattr(prepare_module, "download", answer)
    return addresses


def blocks(out: str) -> dict[str, str]:
    return {block.partition(":")[0].splitlines()[-1]: block for block in out.split("\n\n") if "unlocks" in block}


def test_what_a_person_must_get_is_told_with_terms_source_and_place(
    folder: Path, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="not fetched: inception i3d face_landmarker; run"):
        prepare(PrepareOptions())
    told = blocks(capsys.readouterr().out)
    for row in TABLE.values():
        by_hand = (row.users != "anyone" or not row.addresses) and row.name != "arcface"  # which is there
        failed = row.name in ("inception", "i3d", "face_landmarker")  # the last two: no program, no task came
        assert (row.file in told) == (by_hand or failed), row.name
        if by_hand:
            for part in (row.unlocks, row.licence, row.users, row.source, str(folder / row.file), f"{row.variable}="):
                assert part in told[row.file]
    assert "fetch it  bash scripts/prepare.sh syncnet" in told[TABLE["syncnet"].file]
    assert "register at" in told[TABLE["bfm"].file]
    assert "fetch it" not in told[TABLE["bfm"].file]
    free = [row for row in TABLE.values() if row.users == "anyone"]
    assert set(asked) == {address for row in free for address in row.addresses.values()}


def test_files_land_where_they_are_found(folder: Path, asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    prepare(PrepareOptions(names=("bisenet", "wavlm")))  # by name, whoever may use them
    assert find_weights("bisenet") == folder / "parsing_bisenet.pth"
    assert find_weights("wavlm") == folder / "wavlm-large/pytorch_model.bin"
    assert {path.name for path in (folder / "wavlm-large").iterdir()} == {
        "config.json", "preprocessor_config.json", "pytorch_model.bin",
    }  # fmt: skip
    assert len(asked) == 4
    assert "2 of 2 files are present" in capsys.readouterr().out
    prepare(PrepareOptions(names=("bisenet", "wavlm")))
    assert len(asked) == 4  # nothing again
    prepare(PrepareOptions(names=("syncnet",)))  # the damaged one is replaced
    assert load_state_dict(find_weights("syncnet"))["weight"].sum() == 3


@pytest.mark.usefixtures("folder")
def test_unknown_names_are_refused_before_anything_is_fetched(asked: list[str]) -> None:
    with pytest.raises(UserError, match="wawlm is none of the files: alexnet, "):
        prepare(PrepareOptions(names=("bisenet", "wawlm")))
    assert asked == []


def test_status_is_a_line_for_each_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.iterdir())
    prepare(PrepareOptions(status=True))
    *lines, last = capsys.readouterr().out.splitlines()
    assert sorted(folder.iterdir()) == before
    assert len(lines) == len(TABLE)
    assert lines[0].split() == ["missing", "alexnet", "alexnet-owt-7be5be79.pth:", "LPIPS"]
    assert any(line.startswith("corrupt  syncnet") and "damaged" in line for line in lines)
    assert last == f"1 of {len(TABLE)} files are present."
