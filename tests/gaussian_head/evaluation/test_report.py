"""The report: what is written is what is read, and damage is told."""

from __future__ import annotations

import json
import math
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from sample_report import AWKWARD, ENTRIES, sample_report

from gaussian_head.errors import UserError
from gaussian_head.evaluation.measure import Measured
from gaussian_head.evaluation.metric import Figure
from gaussian_head.evaluation.registry import entries
from gaussian_head.evaluation.report import FORM, Report, Row, describe_machine, row_from

TOP = {"schema", "title", "rows", "entries", "compared", "versions", "machine", "weights"}
OF_A_HEAD = {"subject", "preset", "device", "timing_s", "render_fps", "peak_rss_mb", "condition", "speech", "neck_gap"}


def printed(report: Report, width: int) -> str:
    console = Console(width=width, record=True, file=StringIO())
    console.print(report.table())
    return console.export_text()


@pytest.mark.parametrize("trained", [True, False])
def test_what_is_saved_is_loaded(trained: bool, tmp_path: Path) -> None:
    report = sample_report(trained=trained)
    path = report.save(tmp_path)
    document = json.loads(path.read_text())
    assert set(document) == TOP | (OF_A_HEAD if trained else set())
    assert document["schema"] == 2
    loaded = Report.load(path)
    assert loaded.document() == document == report.document()
    assert loaded.entries["psnr"] == ENTRIES["psnr"]
    assert loaded.trained == report.trained
    figure = document["rows"]["oracle" if trained else "prediction"]["figures"]["lmd"]["mouth"]
    assert (figure["counted"], figure["excluded"], figure["reason"]) == (85, 5, "no face found")


def test_traces_lie_beside_the_report_with_null_for_gaps(tmp_path: Path) -> None:
    report = sample_report()
    report.save(tmp_path)
    traces = json.loads((tmp_path / "traces.json").read_text())
    assert traces == report.traces()
    assert len(traces["oracle"]["psnr"]["head"]) == 90
    assert traces["oracle"]["lmd"]["mouth"].count(None) == 5
    assert "aperture" not in traces["oracle"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "traces.json"]


def test_only_entries_that_occur_are_written() -> None:
    report = Report("a", {"row": Row({}, unavailable={"lpips": "needs a file"})}, ENTRIES, {})
    assert list(report.document()["entries"]) == ["lpips"]
    with pytest.raises(ValueError, match="without an entry: unheard"):
        Report("a", {"row": Row({}, unavailable={"unheard": ""})}, ENTRIES, {}).document()


def test_no_value_is_ever_nan(tmp_path: Path) -> None:
    figure = Figure("psnr", "full", math.nan, 0, 3, "", (1.0, math.inf, math.nan))
    report = Report("a", {"row": row_from(Measured((figure,), {}))}, ENTRIES, {})
    path = report.save(tmp_path)
    kept = json.loads(path.read_text())["rows"]["row"]["figures"]["psnr"]["full"]
    assert (kept["value"], kept["reason"]) == (None, "not finite")
    assert report.traces()["row"]["psnr"]["full"] == [1.0, None, None]


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("schema", 1, "schema 1, expected 2"),
        ("title", None, "lacks 'title'"),
        ("rows", [], "rows is of type list"),
        ("machine", {"cores": True}, "machine.cores is of type bool"),
        ("stranger", 1, "unknown fields: stranger"),
        ("render_fps", "fast", "render_fps is of type str"),
        ("entries", {}, "without an entry"),
        ("entries", {"psnr": {"title": "P", "unit": "", "better": "up", "needs": [], "reference": "", "form": "{}"}},
         "better is up"),
        ("entries", {"psnr": {"title": "P", "unit": "", "better": "higher", "needs": [], "reference": "",
                              "form": "{:.99999999f}"}}, "form is"),
    ],
)  # fmt: skip
def test_a_damaged_report_is_refused(key: str, value: object, told: str, tmp_path: Path) -> None:
    path = sample_report().save(tmp_path)
    document = json.loads(path.read_text())
    document[key] = value
    if value is None:
        del document[key]
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match=told) as error:
        Report.load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00", '{"schema": 2}', '{"schema": NaN}', "[" * 100_000])
def test_what_is_no_report_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(UserError, match=r"report\.json"):
        Report.load(tmp_path / "report.json")


def test_a_report_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    path = sample_report().save(tmp_path)
    whole = path.read_bytes().rstrip()
    for cut in range(0, len(whole), 997):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError):
            Report.load(path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Report.load(tmp_path / "elsewhere.json")


def test_table_has_a_line_for_each_figure_and_region() -> None:
    report = sample_report()
    text = printed(report, 100)
    assert max(map(len, text.splitlines())) <= 100
    lines = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "│" in line]
    assert [line[:2] for line in lines][:3] == [["PSNR, dB ↑", "full"], ["", "head"], ["", "mouth"]]
    assert lines[0][2] == f"{report.figure('oracle', 'psnr').value:.2f}"
    assert "px ↓" in text
    assert "LPIPS" not in text
    for title in ("SSIM", "LMD", "Aperture correlation", "Best shift", "Blinks"):
        assert text.count(title) == 1


def test_remarks_tell_truths_exclusions_and_what_is_missing() -> None:
    remarks = sample_report().remarks()
    assert "oracle: from ground truth: pose, landmarks" in remarks
    assert "oracle: LMD (mouth): 5 of 90 frames left out (no face found)" in remarks
    assert "unavailable: LPIPS: needs alexnet-owt-7be5be79.pth, see scripts/prepare.sh" in remarks
    assert "time: process 107 s, face 162 s" in remarks
    assert remarks[-1] == "render loop 96.4 frames/s, peak memory 785 MB"


def test_entries_with_the_same_need_share_a_remark() -> None:
    rows = {
        "a": Row({"psnr": {"full": Figure("psnr", "full", 1.0, 1)}}, unavailable={"ssim": "needs x", "lmd": "needs x"}),
        "b": Row({}, unavailable=dict.fromkeys(ENTRIES, "no sound")),
    }
    remarks = Report("t", rows, ENTRIES, {}).remarks()
    assert remarks == [
        "a: from ground truth: nothing",
        "a: unavailable: SSIM, LMD: needs x",
        "b: unavailable: no sound",
    ]


def test_machine_names_no_host_and_no_path() -> None:
    import platform

    told = describe_machine()
    assert set(told) == {"processor", "cores", "memory", "system"}
    assert platform.node() not in told.values()
    assert not any("/home" in value or "/tmp" in value for value in told.values())  # noqa: S108


@pytest.mark.parametrize("entry", [*ENTRIES.values(), *entries().values()], ids=lambda entry: entry.name)
def test_forms_can_be_read_back(entry: object) -> None:
    assert FORM.fullmatch(entry.form)
    assert "{" not in entry.form.format(-1.5)


def test_awkward_strings_survive(tmp_path: Path) -> None:
    assert Report.load(sample_report(trained=False).save(tmp_path)).title == f"clip {AWKWARD}"
