"""A head that hears, through every command: what it is given is what it was trained with."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_fit import TINY

from gaussian_head import train as command
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.errors import UserError
from gaussian_head.evaluate import EvaluateOptions, evaluate
from gaussian_head.export import ExportOptions, export
from gaussian_head.media.video import read_frames
from gaussian_head.synthesize import SynthesizeOptions, synthesize
from gaussian_head.train import TrainOptions, train
from gaussian_head.training.presets import FitConfig

# Sound moves what it moves strongly, after a few steps.
EAGER = replace(TINY.face, rates=replace(TINY.face.rates, networks=3e-2), motion_weight=0.0)


@pytest.fixture(scope="module")
def runs(tiny_subject: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("hearing")
    config: FitConfig = replace(TINY, face=EAGER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(command.PRESETS, "quick", config)
        for condition in ("audio", "both"):
            train(TrainOptions("all", tiny_subject, root / condition, condition=condition))
    return {condition: root / condition for condition in ("audio", "both")}


def pictures(path: Path) -> np.ndarray:
    return np.stack([rgb for _, rgb in read_frames(path)]).astype(int)


@pytest.mark.parametrize("condition", ["audio", "both"])
def test_every_command_gives_it_the_sound(runs: dict[str, Path], tiny_subject: Path, tmp_path: Path, condition: str):
    run = runs[condition]
    synthesize(SynthesizeOptions(tiny_subject, run, out=tmp_path / "val.mp4"))
    assert len(pictures(tmp_path / "val.mp4")) == 8
    export(ExportOptions(tiny_subject, run, tmp_path / "ply", frames="0:2"))
    assert len(list((tmp_path / "ply").glob("*.ply"))) == 2
    evaluate(EvaluateOptions(tiny_subject, run, metrics=("psnr",)))
    rows = json.loads((run / "report.json").read_text())["rows"]
    psnr = {row: rows[row]["figures"]["psnr"]["full"]["value"] for row in ("oracle", "predicted")}
    given = {row: rows[row]["from_ground_truth"] for row in psnr}
    if condition == "audio":  # lips are never taken from anywhere but the sound; of the cheeks a rest is
        assert psnr["oracle"] == pytest.approx(psnr["predicted"], abs=0.1)
        assert "landmarks" not in given["oracle"]
    else:
        assert psnr["oracle"] != psnr["predicted"]
        assert "landmarks" in given["oracle"]


def test_another_sound_moves_an_audio_head(runs: dict[str, Path], tiny_subject: Path, tmp_path: Path) -> None:
    shown = []
    for name, loudness in (("quiet", -1.0), ("loud", 0.8)):
        features = np.full((10, 16, 80), loudness, np.float32)
        np.save(tmp_path / f"{name}.npy", features)
        out = tmp_path / f"{name}.mp4"
        synthesize(SynthesizeOptions(
            tiny_subject, runs["audio"], audio=tmp_path / f"{name}.npy", pose="still", blink_rate=0.0, out=out
        ))  # fmt: skip
        shown.append(pictures(out))
    assert shown[0].shape == shown[1].shape
    assert np.abs(shown[0] - shown[1]).max() > 8


def test_features_of_another_extractor_are_refused(runs: dict[str, Path], tiny_subject: Path, tmp_path: Path) -> None:
    twin = Path(shutil.copytree(tiny_subject, tmp_path / "tiny"))
    SubjectLayout(twin).audio_features("mel").with_suffix(".json").write_text('{"extractor": "hubert"}')
    with pytest.raises(UserError, match="holds hubert features, but this head was trained with mel"):
        synthesize(SynthesizeOptions(twin, runs["both"], out=tmp_path / "x.mp4"))
