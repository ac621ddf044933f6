"""The command that trains: stages in order, one run folder a run, one clear line when something is wrong."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_fit import STEPS, TINY, trainer

from cuda_ext import diff_gaussian_rasterization as drop_in
from gaussian_head import train as command
from gaussian_head.data.subject import Subject
from gaussian_head.driving.predictor import load_predictor
from gaussian_head.errors import UserError, run_command
from gaussian_head.model.checkpoint import find_checkpoint
from gaussian_head.train import TrainOptions, train
from gaussian_head.training.fit import fit_stage

STAGES = ("landmarks", "mouth", "face", "fuse", "torso")


@pytest.fixture(autouse=True)
def _tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(command.PRESETS, "quick", TINY)


def failure(capsys: pytest.CaptureFixture, options: TrainOptions) -> str:
    """Run the command, which must end with exit status 2 and one line; return the line."""
    with pytest.raises(SystemExit) as left:
        run_command(lambda: train(options))
    assert left.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ")
    return lines[-1]


def test_all_stages_then_a_driver_and_figures(tiny_subject, tmp_path, capsys):
    options = TrainOptions("all", tiny_subject, tmp_path / "my run")
    train(options)
    assert [find_checkpoint(options.out / name).step for name in STAGES] == [STEPS] * 5
    document = find_checkpoint(options.out / "fuse").document
    assert (document["stage"], document["preset"], document["subject"]) == ("fuse", "quick", "tiny")
    assert load_predictor(options.out / "driving").facts.subject == "tiny"
    timing = json.loads((options.out / "timing.json").read_text())
    assert {*STAGES, "peak_rss_mb"} <= set(timing)
    assert capsys.readouterr().out.strip().splitlines()[-1] == str(options.out)
    train(options)
    assert json.loads((options.out / "timing.json").read_text()) == timing  # nothing was done


@pytest.mark.parametrize("condition", ["audio", "both"])
def test_a_head_may_hear(tiny_subject, tmp_path, capsys, condition):
    options = TrainOptions("all", tiny_subject, tmp_path / "run", condition=condition)
    train(options)
    checkpoint = find_checkpoint(options.out / "fuse")
    assert checkpoint.document["config"]["head"]["condition"] == condition
    assert checkpoint.load_head().config.audio_features == "mel"
    line = failure(capsys, replace(options, condition="landmarks"))
    assert "other options" in line
    assert "another --out" in line


def test_stages_one_by_one(tiny_subject, tmp_path):
    run = tmp_path / "run"
    train(TrainOptions("mouth", tiny_subject, run))
    assert not (run / "face").exists()
    train(TrainOptions("face", tiny_subject, run))
    assert find_checkpoint(run / "face").step == STEPS
    train(TrainOptions("torso", tiny_subject, run))  # needs no other
    assert find_checkpoint(run / "torso").step == STEPS


@pytest.mark.parametrize(("stage", "before"), [("face", "mouth"), ("fuse", "face")])
def test_the_stage_before_is_asked_for(tiny_subject, tmp_path, capsys, stage, before):
    line = failure(capsys, TrainOptions(stage, tiny_subject, tmp_path / "run"))
    assert f"stage {stage} needs the finished stage {before}" in line
    assert f"gaussian_head.train {before}" in line


def test_an_unfinished_stage_before_is_not_enough(tiny_subject, tmp_path):
    run, longer = tmp_path / "run", replace(TINY, mouth=replace(TINY.mouth, steps=2 * STEPS))
    train(TrainOptions("mouth", tiny_subject, run))
    with pytest.raises(UserError, match="needs the finished stage mouth"):
        fit_stage("face", Subject(tiny_subject, TINY.size), run, longer, "tiny", trainer(run))


def test_a_run_of_other_options_is_left_untouched(tiny_subject, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    train(TrainOptions("mouth", tiny_subject, run))
    before = sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*"))
    monkeypatch.setitem(command.PRESETS, "quick", replace(TINY, seed=1))
    line = failure(capsys, TrainOptions("mouth", tiny_subject, run))
    assert "other options" in line
    assert "another --out" in line
    assert sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*")) == before


def test_a_run_of_another_subject_is_refused(tiny_subject, tmp_path, capsys):
    run = tmp_path / "run"
    train(TrainOptions("mouth", tiny_subject, run))
    twin = Path(shutil.copytree(tiny_subject, tmp_path / "twin"))
    line = failure(capsys, TrainOptions("mouth", twin, run))
    assert "another subject (tiny" in line


def test_a_missing_subject_is_named(tmp_path, capsys):
    line = failure(capsys, TrainOptions("all", tmp_path / "nobody", tmp_path / "run"))
    assert "nobody" in line
    assert "data_utils.process" in line
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_version_is_refused(tiny_subject, tmp_path, capsys):
    run = tmp_path / "run"
    train(TrainOptions("mouth", tiny_subject, run))
    path = find_checkpoint(run / "mouth").folder / "checkpoint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 0}))
    assert "format 0" in failure(capsys, TrainOptions("mouth", tiny_subject, run))


def test_another_rasterizer_trains_and_is_recorded(tiny_subject, tmp_path, capsys, monkeypatch):
    """The drop-in stands for Inria's: the same mouth comes out, to rounding."""
    monkeypatch.setitem(sys.modules, drop_in.NAME, None)
    drop_in.install()
    theirs = TrainOptions("all", tiny_subject, tmp_path / "theirs", rasterizer="diff-gaussian-rasterization")
    ours = TrainOptions("mouth", tiny_subject, tmp_path / "ours")
    colors = []
    for options in (theirs, ours):
        train(options)
        checkpoint = find_checkpoint(options.out / "mouth")
        assert checkpoint.document["config"]["rasterizer"] == options.rasterizer
        colors.append(checkpoint.load_head().mouth.gaussians.sh0)
    assert torch.allclose(*colors, atol=1e-2)
    assert not torch.equal(*colors)  # it was not ours that drew
    assert find_checkpoint(theirs.out / "fuse").step == STEPS
    line = failure(capsys, replace(ours, rasterizer=theirs.rasterizer))
    assert "other options" in line


def test_a_rasterizer_that_is_not_installed_is_told_first(tiny_subject, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gsplat", None)
    line = failure(capsys, TrainOptions("all", tiny_subject, tmp_path / "run", rasterizer="gsplat"))
    assert "--rasterizer gsplat: gsplat cannot be imported" in line
    assert "pip install gsplat" in line
    assert not (tmp_path / "run").exists()
