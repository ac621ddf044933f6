"""The page of several runs' reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gaussian_head.benchmark import BenchmarkOptions, write_page
from gaussian_head.errors import UserError
from gaussian_head.evaluation.report import Report


def report(run: Path, subject: str, psnr_db: float | None, **row: object) -> Path:
    figures = {"full": {"psnr_db": psnr_db, "ssim": 0.9}, "head": {"psnr_db": 28.0}, "mouth": {"psnr_db": 27.0},
               "lips": {"lmd_px": 0.5, **row}}  # fmt: skip
    Report(subject, "quick", "cpu", {"oracle": figures}, {"process": 60.4, "face": None}, 31.5, 900.0).save(run)
    return run


def test_every_run_has_its_figures_and_times(tmp_path: Path) -> None:
    runs = (report(tmp_path / "a", "anna", 30.126), report(tmp_path / "b", "ben", None, aperture_correlation=0.71))
    write_page(BenchmarkOptions(runs, tmp_path / "page.md"))
    rows = [line.strip("| ").split(" | ") for line in (tmp_path / "page.md").read_text().splitlines() if "|" in line]
    table = {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows if len(row) == len(rows[0])}
    assert table["anna"]["full PSNR"] == "30.13 dB"
    assert table["anna"]["aperture correlation"] == "-"
    assert table["ben"]["full PSNR"] == "-"
    assert table["ben"]["aperture correlation"] == "0.71"
    times = [row for row in rows if row[0] == "anna"][1]
    assert times == ["anna", "60", "-", "60", "32", "900"]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="report.json does not exist"):
        write_page(BenchmarkOptions((tmp_path,), tmp_path / "page.md"))
    run = report(tmp_path / "a", "anna", 30.0)
    (run / "report.json").write_text(json.dumps({"schema": 9}))
    with pytest.raises(UserError, match="schema 9"):
        write_page(BenchmarkOptions((run,), tmp_path / "page.md"))
    assert not (tmp_path / "page.md").exists()
