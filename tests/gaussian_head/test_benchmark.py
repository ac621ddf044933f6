"""The page of several runs' reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gaussian_head.benchmark import BenchmarkOptions, write_page
from gaussian_head.errors import UserError
from gaussian_head.evaluation.metric import Entry, Figure
from gaussian_head.evaluation.report import Report, Row, TrainedFacts

ENTRIES = {
    "psnr": Entry("psnr", "PSNR", "dB", "higher", frozenset({"truth"}), "the logarithm", "{:.2f}"),
    "lmd": Entry("lmd", "LMD", "px", "lower", frozenset({"truth"}), "the lips", "{:.2f}"),
    "fid": Entry("fid", "FID", "", "lower", frozenset({"truth"}), "the distance", "{:.1f}"),
}
MACHINE = {"processor": "a fast one", "cores": "2", "memory": "24 GiB", "system": "Linux x86_64"}


def report(run: Path, subject: str, machine: dict[str, str] = MACHINE, **values: float | None) -> Path:
    figures = {
        name: {"mouth": Figure(name, "mouth", value, 9, 0, "" if value else "no face")}
        for name, value in values.items()
    }
    speech = {"predictor": "network", "network_val_aperture_correlation": 0.51} if subject == "anna" else {}
    facts = TrainedFacts(
        subject,
        "quick",
        "cpu",
        {"process": 60.4, "face": None},
        31.5,
        900.0,
        speech=speech,
        neck_gap={"footage": 0.0164},
    )
    row = Row(figures, ("pose", "hair_points"), {"fid": "needs a file"})
    Report(subject, {"oracle": row}, ENTRIES, {}, trained=facts, machine=machine).save(run)
    return run


def tables(page: Path) -> list[list[dict[str, str]]]:
    """The page's tables, each line by its headings."""
    found: list[list[list[str]]] = [[]]
    for line in page.read_text().splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif found[-1]:
            found.append([])
    return [[dict(zip(table[0], line, strict=True)) for line in table[2:]] for table in found if table]


def test_every_run_has_its_figures_and_times(tmp_path: Path) -> None:
    runs = (report(tmp_path / "a", "anna", psnr=30.126, lmd=None), report(tmp_path / "b", "ben", psnr=None, lmd=0.5))
    write_page(BenchmarkOptions(runs, tmp_path / "page.md"))
    quality, heard, times = tables(tmp_path / "page.md")
    assert heard == [
        {"figure": "predictor", "anna (quick)": "network", "ben (quick)": "-"},
        {"figure": "network val aperture correlation", "anna (quick)": "0.510", "ben (quick)": "-"},
    ]
    assert quality == [
        {"metric": "PSNR ↑", "unit": "dB", "region": "mouth", "anna (quick)": "30.13", "ben (quick)": "-"},
        {"metric": "LMD ↓", "unit": "px", "region": "mouth", "anna (quick)": "-", "ben (quick)": "0.50"},
    ]
    assert list(times[0].values()) == ["anna (quick)", "cpu", "60", "-", "60", "32", "900", "1.64%", "-"]
    page = (tmp_path / "page.md").read_text()
    assert page.count("a fast one, 2 cores, 24 GiB, Linux x86_64") == 1
    assert "From ground truth: pose, hair points." in page
    assert "FID (needs a file)" in page


def test_machines_that_differ_are_told_apart(tmp_path: Path) -> None:
    other = MACHINE | {"processor": "a slow one"}
    runs = (report(tmp_path / "a", "anna", psnr=30.0), report(tmp_path / "b", "ben", other, psnr=29.0))
    write_page(BenchmarkOptions(runs, tmp_path / "page.md"))
    page = (tmp_path / "page.md").read_text()
    assert "anna: a fast one" in page
    assert "ben: a slow one" in page


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="report.json does not exist"):
        write_page(BenchmarkOptions((tmp_path,), tmp_path / "page.md"))
    run = report(tmp_path / "a", "anna", psnr=30.0)
    (run / "report.json").write_text(json.dumps({"schema": 9}))
    with pytest.raises(UserError, match="schema 9"):
        write_page(BenchmarkOptions((run,), tmp_path / "page.md"))
    Report("a video", {}, {}, {}).save(run)
    with pytest.raises(UserError, match="not of a trained head"):
        write_page(BenchmarkOptions((run,), tmp_path / "page.md"))
    assert not (tmp_path / "page.md").exists()
