"""The manifest: what is up to date, what is the user's own."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from data_utils.stage import Manifest, Stage, digest
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.errors import UserError


@pytest.fixture
def layout(tmp_path: Path) -> SubjectLayout:
    (tmp_path / "some one").mkdir()
    (tmp_path / "some one" / "in.txt").write_text("input")
    return SubjectLayout(tmp_path / "some one")


def make_stage(layout: SubjectLayout, version: int = 1, **options: Any) -> Stage:
    def run(progress: object) -> dict[str, Any]:
        (layout.root / "outs").mkdir(exist_ok=True)
        for k in range(3):
            (layout.root / "outs" / f"{k}.txt").write_text(f"{k}")
        return {"written": 3}

    return Stage("copy", version, (layout.root / "in.txt",), (layout.root / "outs" / "*.txt",), run, options)


def finish(layout: SubjectLayout, stage: Stage) -> None:
    manifest = Manifest(layout)
    with manifest.running(stage):
        facts = stage.run(lambda iterable, *_: iterable)
    manifest.finish(stage, facts, 0.1)


def test_a_finished_stage_is_up_to_date_until_something_changes(layout: SubjectLayout) -> None:
    stage = make_stage(layout, size=4)
    assert not Manifest(layout).is_up_to_date(stage)
    finish(layout, stage)
    assert Manifest(layout).is_up_to_date(stage)
    assert Manifest(layout).facts("copy") == {"written": 3}
    assert not Manifest(layout).is_up_to_date(make_stage(layout, version=2, size=4))
    assert not Manifest(layout).is_up_to_date(make_stage(layout, size=5))
    (layout.root / "in.txt").write_text("other")
    assert not Manifest(layout).is_up_to_date(stage)
    (layout.root / "in.txt").write_text("input")
    assert Manifest(layout).is_up_to_date(stage)
    (layout.root / "outs" / "1.txt").unlink()
    assert not Manifest(layout).is_up_to_date(stage)


def test_touching_without_changing_is_no_change(layout: SubjectLayout) -> None:
    stage = make_stage(layout)
    finish(layout, stage)
    os.utime(layout.root / "in.txt", (1, 1))
    assert Manifest(layout).is_up_to_date(stage)


def test_killed_stage_is_unfinished_and_refused_stage_is_as_before(layout: SubjectLayout) -> None:
    stage = make_stage(layout)
    finish(layout, stage)
    manifest = Manifest(layout)
    with pytest.raises(UserError), manifest.running(stage):
        raise UserError("no")
    assert Manifest(layout).is_up_to_date(stage)
    Manifest(layout).start(stage)  # and killed here
    assert not Manifest(layout).is_up_to_date(stage)
    assert Manifest(layout).was_written_by(stage)


def test_files_we_did_not_write_are_the_users(layout: SubjectLayout) -> None:
    stage = make_stage(layout)
    assert Manifest(layout).was_written_by(stage)
    (layout.root / "outs").mkdir()
    (layout.root / "outs" / "0.txt").write_text("the user's")
    assert not Manifest(layout).was_written_by(stage)
    finish(layout, stage)
    assert Manifest(layout).was_written_by(stage)
    (layout.root / "outs" / "0.txt").write_text("the user's")
    assert not Manifest(layout).was_written_by(stage)


def test_damaged_manifest_is_named(layout: SubjectLayout) -> None:
    layout.manifest.write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        Manifest(layout)
    layout.manifest.write_text(json.dumps({"format": 99, "stages": {}}))
    with pytest.raises(UserError, match="format 99"):
        Manifest(layout)


def test_digest_sees_names_and_contents(tmp_path: Path) -> None:
    assert digest(tmp_path / "*.txt") is None
    (tmp_path / "a.txt").write_text("1")
    one = digest(tmp_path / "*.txt")
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    assert digest(tmp_path / "*.txt") != one
