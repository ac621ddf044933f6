"""The command that tells of weights names every file, its terms, its source and its place."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch

from gaussian_head.networks.weights import TABLE
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


def test_every_file_is_told_with_terms_source_and_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(PrepareOptions())
    out = capsys.readouterr().out
    blocks = {block.partition(":")[0]: block for block in out.split("\n\n")}
    for row in TABLE.values():
        assert row.unlocks in blocks[row.file]
        assert row.licence in blocks[row.file]
        if row.name != "arcface":
            assert row.source in blocks[row.file]
            assert str(folder / row.file) in blocks[row.file]
            assert f"{row.variable}=" in blocks[row.file]
    assert str(folder / "backbone.pth") in blocks[TABLE["arcface"].file]
    assert "a program" in blocks[TABLE["i3d"].file]
    states = {name: re.match(r".*: (\w+)", block)[1] for name, block in blocks.items() if "unlocks" in block}
    assert states == {
        row.file: {"arcface": "present", "syncnet": "corrupt"}.get(row.name, "missing") for row in TABLE.values()
    }
    assert f"1 of {len(TABLE)} files are present" in out


@pytest.mark.usefixtures("folder")
def test_status_is_a_line_for_each_file(capsys: pytest.CaptureFixture[str]) -> None:
    prepare(PrepareOptions(status=True))
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == len(TABLE)
    assert lines[0] == "missing  alexnet-owt-7be5be79.pth: LPIPS"
    assert any(line.startswith("corrupt  syncnet_v2.model: AVOffset") and "damaged" in line for line in lines)
    assert last.startswith(f"1 of {len(TABLE)} files are present")
