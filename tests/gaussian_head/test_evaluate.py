"""The command that measures a head."""

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
from gaussian_head.evaluation.report import Report
from gaussian_head.media.image import read_rgb

SCHEMA = {"schema", "title", "rows", "entries", "compared", "versions", "machine", "weights",
          "subject", "preset", "device", "timing_s", "render_fps", "peak_rss_mb"}  # fmt: skip


class BlindDetector:
    """A machine without mediapipe."""

    def __init__(self) -> None:
        raise UserError("mediapipe is needed")


class StaticDetector:
    """Always sees the same lips."""

    def __enter__(self) -> StaticDetector:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        return np.arange(40.0).reshape(20, 2)


@pytest.fixture
def report(tiny_subject: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.setattr(command, "LipDetector", StaticDetector)
    evaluate(EvaluateOptions(tiny_subject, tiny_run))
    return json.loads((tiny_run / "report.json").read_text())


def test_report_follows_the_schema(report: dict, tiny_run: Path) -> None:
    assert set(report) == SCHEMA
    assert report["schema"] == 2
    assert (report["subject"], report["preset"]) == ("tiny", "quick")
    assert set(report["rows"]) == {"oracle", "predicted"}
    assert report["compared"] == {"split": "val", "frames": 8, "size_px": [64, 64]}
    for row in report["rows"].values():
        figures = row["figures"]
        assert set(figures["psnr"]) == {"full", "head", "mouth"}
        assert 5 < figures["psnr"]["head"]["value"] < 60
        assert 5 < figures["psnr"]["mouth"]["value"] < 60
        assert figures["psnr"]["full"]["counted"] == 8
        assert figures["lmd"]["mouth"]["value"] == 0
    assert "aperture_correlation" in report["rows"]["predicted"]["figures"]
    assert Report.load(tiny_run / "report.json").trained.subject == "tiny"
    assert len(json.loads((tiny_run / "traces.json").read_text())["oracle"]["psnr"]["full"]) == 8
    assert "landmarks" in report["rows"]["oracle"]["from_ground_truth"]
    assert "landmarks" not in report["rows"]["predicted"]["from_ground_truth"]
    assert report["timing_s"] == {"process": 4.0, "mouth": 1.0, "face": 2.0, "fuse": 3.0, "synthesize": None}
    assert report["render_fps"] > 0
    assert report["peak_rss_mb"] == 1e6  # the training's, larger than this process's


def test_pictures_are_beside_the_report(report: dict, tiny_run: Path) -> None:
    assert read_rgb(tiny_run / "contact_sheet.png").shape == (22 + 3 * 256 + 22, 8 * 256, 3)
    assert read_rgb(tiny_run / "contact_sheet_predicted.png").shape[1] == 8 * 256
    assert read_rgb(tiny_run / "aperture.png").std() > 5


def test_page_is_beside_the_report(report: dict, tiny_run: Path) -> None:
    page = (tiny_run / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2
    assert f"{report['rows']['predicted']['figures']['psnr']['full']['value']:.2f}" in page


def test_a_drop_leaves_with_status_1_and_one_line_each(
    report: dict, tiny_subject: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = tmp_path / "earlier.json"
    report["rows"]["oracle"]["figures"]["psnr"]["full"]["value"] += 2
    earlier.write_text(json.dumps(report))
    evaluate(EvaluateOptions(tiny_subject, tiny_run, compare=earlier, max_drop="psnr=2.1,lmd@mouth=0"))
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        evaluate(EvaluateOptions(tiny_subject, tiny_run, compare=earlier, max_drop="psnr=1.9,lmd@mouth=0,ssim@head=1"))
    assert left.value.code == 1
    told = capsys.readouterr().err.splitlines()
    assert "ssim@head: the earlier report has no value; nothing is guarded" in told
    assert len([line for line in told if line.startswith("oracle: psnr: was ")]) == 1
    assert not any(line.startswith("predicted: ") for line in told)


def test_a_guard_that_cannot_work_is_refused_before_measuring(
    tiny_subject: Path, tiny_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="belong together"):
        evaluate(EvaluateOptions(tiny_subject, tiny_run, max_drop="psnr=1"))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        evaluate(EvaluateOptions(tiny_subject, tiny_run, compare=tmp_path / "none.json", max_drop="psnr=1"))
    assert not (tiny_run / "report.json").exists()


def test_what_cannot_be_measured_is_unavailable_with_the_reason(
    tiny_subject: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "LipDetector", BlindDetector)
    shutil.rmtree(tiny_run / "driving")
    evaluate(EvaluateOptions(tiny_subject, tiny_run))
    rows = json.loads((tiny_run / "report.json").read_text())["rows"]
    assert rows["oracle"]["unavailable"] == {"lmd": "mediapipe is needed"}
    assert "lmd" not in rows["oracle"]["figures"]
    assert rows["predicted"]["figures"] == {}
    assert "regression.json" in rows["predicted"]["unavailable"]["psnr"]
    printed = capsys.readouterr().out
    assert "mediapipe is needed" in printed
    assert "predicted: unavailable" in printed
    assert printed.splitlines()[-1] == str(tiny_run / "report.json")


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
