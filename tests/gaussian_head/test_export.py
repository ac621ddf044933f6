"""The command that writes PLY files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cuda_ext import rasterize
from gaussian_head.data.subject import Subject
from gaussian_head.errors import UserError
from gaussian_head.export import main, parse_frames
from gaussian_head.model.head import Head
from gaussian_head.model.ply import read_ply
from gaussian_head.render.view import Eye, HeadRenderer

Call = Callable[..., int]


@pytest.fixture
def call(tiny_subject: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run the command with more flags, into `tmp_path/ply`; return its exit status."""

    def run(*flags: object, source: Path = tiny_subject, model: Path = tiny_run, out: Path = tmp_path / "ply") -> int:
        command = ["export", "-S", source, "-M", model, "--out", out, *flags]
        monkeypatch.setattr(sys, "argv", [str(part) for part in command])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code

    return run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_canonical_holds_both_branches_as_stored(
    call: Call, tiny_head: Head, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--canonical") == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "ply" / "canonical.ply")
    found = read_ply(tmp_path / "ply" / "canonical.ply")
    for name, value in found.items():
        sets = (tiny_head.face.gaussians, tiny_head.mouth.gaussians)
        assert torch.equal(value, torch.cat([getattr(part, name) for part in sets])), name
    assert call() == 0  # what happens without a choice
    assert all(torch.equal(value, found[name]) for name, value in
               read_ply(tmp_path / "ply" / "canonical.ply").items())  # fmt: skip
    assert names(tmp_path / "ply") == ["canonical.ply"]


def test_frames_are_what_the_clip_shows(call: Call, tiny_subject: Path, tiny_head: Head, tmp_path: Path) -> None:
    """Rendered from the file through the camera beside it, each branch is the clip's."""
    assert call("--frames", "2:5") == 0
    assert names(tmp_path / "ply") == ["000002.ply", "000003.ply", "000004.ply", "cameras.json"]
    cameras = json.loads((tmp_path / "ply" / "cameras.json").read_text())
    assert [entry["img_name"] for entry in cameras] == ["000002", "000003", "000004"]
    subject, count = Subject(tiny_subject, 64), len(tiny_head.face.gaussians)
    render = HeadRenderer(tiny_head)
    for entry in cameras:
        k = subject.val[entry["id"]]
        condition = tiny_head.space.condition(
            subject.landmarks[k], subject.action_units[k], subject.hair[k], subject.viewmats[k]
        )
        expected = render(condition, Eye(subject.viewmats[k], subject.K, 64, 64))
        file = read_ply(tmp_path / "ply" / f"{entry['img_name']}.ply")
        viewmat = torch.eye(4)
        viewmat[:3, :3] = torch.tensor(entry["rotation"]).T
        viewmat[:3, 3] = -viewmat[:3, :3] @ torch.tensor(entry["position"])
        width, height = entry["width"], entry["height"]
        K = torch.tensor([[entry["fx"], 0, width / 2], [0, entry["fy"], height / 2], [0, 0, 1]])
        for part, color, alpha in (
            (slice(count), expected.face, expected.face_alpha),
            (slice(count, None), expected.mouth, expected.mouth_alpha),
        ):
            view = rasterize(
                file["means"][part], file["quats"][part], file["log_scales"][part].exp(),
                file["opacity_logits"][part].sigmoid(), viewmat, K, width, height,
                sh=torch.cat([file["sh0"], file["shN"]], 1)[part],
            )  # fmt: skip
            torch.testing.assert_close(view.color, color, rtol=0, atol=1e-4)
            torch.testing.assert_close(view.alpha, alpha, rtol=0, atol=1e-4)
            assert alpha.max() > 0.5


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0:3", range(3)), (":", range(8)), ("5:", range(5, 8)), (":2", range(2)), ("7:8", range(7, 8))],
)
def test_ranges_of_frames(text: str, expected: range) -> None:
    assert parse_frames(text, 8) == expected


@pytest.mark.parametrize("text", ["", "3", "3:3", "4:2", "0:9", "-2:4", "a:b", "0:4:2"])
def test_ranges_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="A:B with 0 <= A < B <= 8"):
        parse_frames(text, 8)


def test_all_frames(call: Call, tmp_path: Path) -> None:
    assert call("--frames", ":") == 0
    assert len(names(tmp_path / "ply")) == 8 + 1
    moved = [read_ply(tmp_path / "ply" / f"{i:06d}.ply")["means"] for i in (0, 4)]
    assert not torch.equal(*moved)


def test_an_earlier_folder_is_replaced_but_nothing_else(
    call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--frames", "0:2") == 0
    assert call("--canonical") == 0
    assert names(tmp_path / "ply") == ["canonical.ply"]
    (tmp_path / "ply" / "notes.txt").write_text("mine")
    assert call("--frames", "0:2") == 2
    assert "notes.txt" in capsys.readouterr().err
    assert names(tmp_path / "ply") == ["canonical.ply", "notes.txt"]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("flags", "paths", "told"),
    [
        (["--canonical", "--frames", "0:1"], {}, "give one"),
        (["--frames", "0:99"], {}, "A:B with 0 <= A < B <= 8"),
        ([], {"model": Path("nowhere")}, "nowhere is no run folder"),
        (["--frames", ":"], {"source": Path("nowhere")}, "nowhere is no subject folder"),
    ],
)
def test_bad_input_is_one_line(
    call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], paths: dict[str, Path], told: str
) -> None:
    assert call(*flags, **paths) == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "ply").exists()
