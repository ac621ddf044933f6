"""Folders of other tools through every command, with DeepSpeech features alone: no mel is in them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from legacy_folder import LINEAGES
from tiny_fit import TINY

from gaussian_head import train as command
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.driving.predictor import load_predictor
from gaussian_head.errors import UserError
from gaussian_head.evaluate import EvaluateOptions, evaluate
from gaussian_head.media.audio import write_wav
from gaussian_head.media.video import read_frames
from gaussian_head.model.checkpoint import find_checkpoint
from gaussian_head.synthesize import SynthesizeOptions, synthesize
from gaussian_head.train import TrainOptions, train

CONDITIONS = dict(zip(LINEAGES, ("landmarks", "both", "landmarks"), strict=True))


@pytest.fixture(scope="module")
def runs(legacy_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("legacy_runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(command.PRESETS, "quick", TINY)
        for lineage, folder in legacy_folders.items():
            assert not SubjectLayout(folder).audio_features("mel").exists()
            train(TrainOptions("all", folder, root / lineage, condition=CONDITIONS[lineage]))
    return {lineage: root / lineage for lineage in legacy_folders}


@pytest.mark.parametrize("lineage", LINEAGES)
def test_every_stage_is_trained_and_hears_deepspeech(runs, lineage):
    for stage in ("mouth", "face", "fuse", "torso"):
        assert find_checkpoint(runs[lineage] / stage).step > 0
    facts = load_predictor(runs[lineage] / "driving").facts
    assert (facts.extractor, tuple(facts.feature_shape)) == ("deepspeech", (16, 29))
    config = find_checkpoint(runs[lineage] / "fuse").load_head().config
    assert config.audio_features == ("deepspeech" if CONDITIONS[lineage] == "both" else None)


@pytest.mark.parametrize("lineage", LINEAGES)
def test_evaluate_measures_all_rows(runs, legacy_folders, lineage):
    evaluate(EvaluateOptions(legacy_folders[lineage], runs[lineage], metrics=("psnr",)))
    rows = json.loads((runs[lineage] / "report.json").read_text())["rows"]
    for row in ("oracle", "predicted", "synthetic"):
        assert np.isfinite(rows[row]["figures"]["psnr"]["full"]["value"])


@pytest.mark.parametrize("lineage", LINEAGES)
def test_deepspeech_of_other_sound_is_spoken(runs, legacy_folders, tmp_path, lineage):
    np.save(tmp_path / "x.npy", np.random.default_rng(1).normal(size=(12, 16, 29)))
    write_wav(tmp_path / "x.wav", 0.1 * np.sin(np.arange(12 * 640) * 0.3), 16_000)
    out = tmp_path / "x.mp4"
    synthesize(SynthesizeOptions(legacy_folders[lineage], runs[lineage], audio=tmp_path / "x.npy", out=out))
    assert len(list(read_frames(out))) == 12


def test_sound_itself_needs_its_features(runs, legacy_folders, tmp_path):
    write_wav(tmp_path / "x.wav", 0.1 * np.sin(np.arange(16_000) * 0.3), 16_000)
    with pytest.raises(UserError, match=r"hears deepspeech features.*give --audio an x\.npy"):
        synthesize(SynthesizeOptions(
            legacy_folders["er_nerf"], runs["er_nerf"], audio=tmp_path / "x.wav", out=tmp_path / "x.mp4"
        ))  # fmt: skip
