"""The command that measures heads, videos and folders of videos."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from gaussian_head import evaluate as command
from gaussian_head.errors import UserError
from gaussian_head.evaluate import EvaluateOptions, evaluate
from gaussian_head.evaluation import measure_clip, registry
from gaussian_head.media.image import read_rgb, write_png

WEIGHT_FREE = {"psnr", "ssim", "psnr_vico", "ssim_vico", "ssim_skimage", "lmd", "flmd", "liplmd", "psnr_shift"}


class BlindDetector:
    """A machine without mediapipe."""

    def __init__(self, views: tuple) -> None:
        raise UserError("mediapipe is needed")


class StaticDetector:
    """Always sees the same face."""

    def __init__(self, views: tuple) -> None:
        pass

    def __enter__(self) -> StaticDetector:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def detect(self, picture: np.ndarray) -> np.ndarray:
        return np.random.default_rng(0).uniform(10, 50, (478, 3))


@pytest.fixture
def report(tiny_subject: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.setattr(measure_clip, "FaceMeshDetector", StaticDetector)
    evaluate(EvaluateOptions(tiny_subject, tiny_run))
    return json.loads((tiny_run / "report.json").read_text())


def value(row: dict, entry: str, region: str = "full") -> float | None:
    return row["figures"][entry][region]["value"]


def test_report_of_a_head(report: dict) -> None:
    assert report["schema"] == 2
    assert (report["subject"], report["preset"]) == ("tiny", "quick")
    assert list(report["rows"]) == ["ground truth", "oracle", "predicted", "synthetic"]
    for name in ("oracle", "predicted", "synthetic"):
        row = report["rows"][name]
        assert set(row["figures"]) >= WEIGHT_FREE
        for region in ("full", "head", "mouth"):
            assert 5 < value(row, "psnr", region) < 60
        assert value(row, "lmd") == 0
        assert "syncnet_v2.model" in row["unavailable"]["sync_c"] or "128 px" in row["unavailable"]["sync_c"]
    assert "landmarks" in report["rows"]["oracle"]["from_ground_truth"]
    assert "landmarks" not in report["rows"]["predicted"]["from_ground_truth"]
    assert report["rows"]["synthetic"]["from_ground_truth"] == ["background"]
    assert "psnr" not in report["rows"]["ground truth"]["figures"]
    assert value(report["rows"]["ground truth"], "frame_mse") is not None
    assert report["timing_s"] == {
        "process": 4.0,
        "landmarks": None,
        "mouth": 1.0,
        "face": 2.0,
        "fuse": 3.0,
        "torso": None,
        "synthesize": None,
    }
    assert report["render_fps"] > 0
    assert report["peak_rss_mb"] == 1e6  # the training's, larger than this process's


def test_page_and_pictures_are_beside_the_report(report: dict, tiny_run: Path) -> None:
    assert read_rgb(tiny_run / "contact_sheet.png").shape == (22 + 3 * 256 + 22, 8 * 256, 3)
    for row in ("predicted", "synthetic"):
        assert read_rgb(tiny_run / f"contact_sheet_{row}.png").shape[1] == 8 * 256
    assert "tiny" in (tiny_run / "report.html").read_text()
    traces = json.loads((tiny_run / "traces.json").read_text())
    assert len(traces["oracle"]["psnr"]["mouth"]) == 8


def test_what_cannot_be_measured_is_unavailable_with_the_reason(
    tiny_subject: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure_clip, "FaceMeshDetector", BlindDetector)
    shutil.rmtree(tiny_run / "driving")
    evaluate(EvaluateOptions(tiny_subject, tiny_run, metrics=("psnr", "lmd")))
    rows = json.loads((tiny_run / "report.json").read_text())["rows"]
    assert rows["oracle"]["unavailable"]["lmd"] == "mediapipe is needed"
    assert value(rows["oracle"], "psnr", "mouth") > 5  # regions come from the subject, not from the pictures
    assert "regression.json" in rows["predicted"]["unavailable"]["psnr"]
    printed = capsys.readouterr().out
    assert "mediapipe is needed" in printed
    assert "predicted: unavailable" in printed
    assert printed.splitlines()[-1] == str(tiny_run / "report.json")


@pytest.fixture
def clip(tiny_subject: Path, tmp_path: Path) -> Path:
    """Twenty frames as a folder."""
    folder = tmp_path / "clip"
    for k in range(20):
        write_png(folder / f"{k}.png", read_rgb(tiny_subject / "gt_imgs" / f"{k}.jpg"))
    return folder


def test_a_video_against_itself_is_ideal(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_clip, "FaceMeshDetector", StaticDetector)
    evaluate(EvaluateOptions(pred=clip, gt=clip, out=tmp_path / "out", metrics=("psnr", "ssim", "lmd", "cpbd")))
    document = json.loads((tmp_path / "out/report.json").read_text())
    row = document["rows"]["clip"]
    assert (value(row, "psnr"), value(row, "lmd")) == (100.0, 0.0)
    assert value(row, "ssim") == pytest.approx(1, abs=1e-5)
    assert set(row["figures"]) == {"psnr", "ssim", "lmd", "cpbd"}
    assert document["compared"]["compared_frames"] == 20
    assert (tmp_path / "out/report.html").is_file()
    assert read_rgb(tmp_path / "out/contact_sheet.png").shape[0] == 22 + 3 * 256 + 22


def test_the_guard_lets_equals_pass_and_stops_what_got_worse(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure_clip, "FaceMeshDetector", StaticDetector)
    good = EvaluateOptions(pred=clip, gt=clip, out=tmp_path / "good", metrics=("psnr",))
    evaluate(good)
    before = tmp_path / "good/report.json"
    evaluate(EvaluateOptions(**vars(good) | {"compare": before, "max_drop": "psnr=0.3,psnr@mouth=1%"}))
    worse = tmp_path / "worse" / "clip"
    for k in range(20):
        write_png(worse / f"{k}.png", read_rgb(clip / f"{k}.png") // 2)
    with pytest.raises(SystemExit) as left:
        evaluate(EvaluateOptions(pred=worse, gt=clip, out=tmp_path / "b", metrics=("psnr",), compare=before,
                                 max_drop="psnr=0.3"))  # fmt: skip
    assert left.value.code == 1
    assert "clip: psnr: was 100.00 dB" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "give -S"),
        ({"model": Path("run")}, "give -S"),
        ({"source": Path("a"), "model": Path("b"), "gt": Path("c")}, "one or the other"),
        ({"pred": Path("a"), "annotations": Path("b")}, "--protocol too"),
        ({"pred": Path("a"), "metrics": ("psnrr",)}, "no metric psnrr"),
        ({"pred": Path("a"), "compare": Path("b")}, "belong together"),
        ({"pred": Path("a"), "protocol": "self", "metrics": ("psnr",)}, "says itself what is measured"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        evaluate(EvaluateOptions(**options))


def test_protocols_name_registered_metrics_only() -> None:
    named = {entry for p in command.PROTOCOLS.values() for task in p.tasks for entry in p.entries(task)}
    assert named <= set(registry.entries())


def test_a_head_of_another_subject_is_refused(
    tiny_subject: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    shutil.copytree(tiny_subject, tmp_path / "another")
    monkeypatch.setattr(sys, "argv", ["evaluate", "-S", str(tmp_path / "another"), "-M", str(tiny_run)])
    with pytest.raises(SystemExit) as left:
        command.main()
    assert left.value.code == 2
    assert "trained on tiny, not on another" in capsys.readouterr().err
    assert not (tiny_run / "report.json").exists()
