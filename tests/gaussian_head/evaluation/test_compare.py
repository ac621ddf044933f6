"""The guard: what counts as a drop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gaussian_head.errors import UserError
from gaussian_head.evaluation.compare import find_drops, how_much_worse, parse_limits, unguarded
from gaussian_head.evaluation.metric import Entry, Figure
from gaussian_head.evaluation.report import Report, Row

RECORDED = Path(__file__).parent / "recorded" / "demo_quick.json"
"""The procedural subject's quick preset, as measured with the command."""
KNOWN = ("psnr", "ssim", "lmd")


@pytest.fixture
def before() -> Report:
    return Report.load(RECORDED)


def changed(report: Report, row: str, entry: str, region: str, value: float | None) -> Report:
    """The report with one figure changed; None: taken away."""
    figures = {name: dict(regions) for name, regions in report.rows[row].figures.items()}
    if value is None:
        del figures[entry][region]
    else:
        figures[entry][region] = replace(figures[entry][region], value=value)
    return replace(report, rows=report.rows | {row: replace(report.rows[row], figures=figures)})


def test_a_report_is_no_worse_than_itself(before: Report) -> None:
    limits = parse_limits("psnr=0,psnr@head=0,psnr@mouth=0,ssim=0,lmd=0%", before.entries)
    assert find_drops(before, before, limits) == []
    assert unguarded(before, limits) == []


def test_limits_are_read() -> None:
    limits = parse_limits(" psnr=0.3, psnr@mouth=0.5 ,lmd=5%,", KNOWN)
    assert [(x.name, x.region, x.amount, x.relative) for x in limits] == [
        ("psnr", "full", 0.3, False),
        ("psnr@mouth", "mouth", 0.5, False),
        ("lmd", "full", 0.05, True),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("vmaf=1", "vmaf is no entry of the two reports; they have: lmd, psnr, ssim"),
        ("psnr", "expected entry=amount"),
        ("psnr=", "expected entry=amount"),
        ("psnr=much", "expected entry=amount"),
        ("psnr=-1", "0 or more"),
        ("psnr=nan", "0 or more"),
        ("psnr=inf%", "0 or more"),
        ("psnr@nose=1", "one of full, head, mouth, not nose"),
        ("psnr=1,psnr@full=2", "names psnr twice"),
        ("=1", "no entry"),
        ("", "is empty"),
        (" , ", "is empty"),
    ],
)
def test_a_wrong_limit_is_told(text: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        parse_limits(text, KNOWN)


def test_a_drop_beyond_the_limit_is_found_in_its_row(before: Report) -> None:
    was = before.figure("predicted", "psnr").value
    limits = parse_limits("psnr=0.3,psnr@mouth=0.3", before.entries)
    assert find_drops(changed(before, "predicted", "psnr", "full", was - 0.3), before, limits) == []
    assert find_drops(changed(before, "predicted", "psnr", "full", was + 9), before, limits) == []
    (drop,) = find_drops(changed(before, "predicted", "psnr", "full", was - 0.31), before, limits)
    assert str(drop) == f"predicted: psnr: was {was:.2f} dB, is {was - 0.31:.2f}: worse by 0.31, allowed 0.3"


def test_percent_is_of_the_earlier_value_and_lower_is_better_for_lmd(before: Report) -> None:
    was = before.figure("oracle", "lmd", "full").value
    limits = parse_limits("lmd=5%", before.entries)
    assert find_drops(changed(before, "oracle", "lmd", "full", was * 1.049), before, limits) == []
    assert find_drops(changed(before, "oracle", "lmd", "full", was * 0.5), before, limits) == []
    (drop,) = find_drops(changed(before, "oracle", "lmd", "full", was * 1.06), before, limits)
    assert str(drop).endswith("allowed 5 %")


def test_a_figure_that_is_gone_is_a_drop_and_a_new_one_is_not(before: Report) -> None:
    limits = parse_limits("psnr@head=1", before.entries)
    less = changed(before, "oracle", "psnr", "head", None)
    (drop,) = find_drops(less, before, limits)
    was = before.figure("oracle", "psnr", "head").value
    assert f"oracle: psnr@head: was {was:.2f} dB, has no value now" in str(drop)
    assert find_drops(before, less, limits) == []
    (gone,) = find_drops(replace(before, rows={"oracle": before.rows["oracle"]}), before, limits)
    assert "the row is missing now" in str(gone)


def test_why_a_figure_is_gone_is_told(before: Report) -> None:
    figures = {name: regions for name, regions in before.rows["oracle"].figures.items() if name != "lmd"}
    blind = replace(before.rows["oracle"], figures=figures, unavailable={"lmd": "needs mediapipe"})
    now = replace(before, rows=before.rows | {"oracle": blind})
    (drop,) = find_drops(now, before, parse_limits("lmd=1", before.entries))
    assert str(drop).endswith("has no value now (needs mediapipe)")


def test_a_limit_that_guards_nothing_is_told(before: Report) -> None:
    limits = parse_limits("psnr=1,lmd@head=1", before.entries)
    assert unguarded(before, limits) == ["lmd@head"]


@pytest.mark.parametrize(
    ("better", "now", "worse"),
    [("higher", 2, 1), ("higher", 4, -1), ("lower", 2, -1), ("lower", 4, 1), ("zero", -4, 1), ("zero", 0, -3),
     ("zero", -3, 0), ("neither", 4, 1), ("neither", 2, 1)],
)  # fmt: skip
def test_what_worse_means_is_the_entrys_direction(better: str, now: float, worse: float) -> None:
    entry = Entry("x", "X", "", better, frozenset(), "")
    assert how_much_worse(float(now), 3.0, entry) == worse


def test_a_value_that_became_none_is_a_drop() -> None:
    entry = {"x": Entry("x", "X", "", "zero", frozenset(), "")}

    def report(value: float | None) -> Report:
        return Report("t", {"row": Row({"x": {"full": Figure("x", "full", value, 0, 3, "no face found")}})}, entry, {})

    limits = parse_limits("x=1", entry)
    (drop,) = find_drops(report(None), report(0.5), limits)
    assert "has no value now (no face found)" in str(drop)
    assert find_drops(report(0.5), report(None), limits) == []


def test_the_recorded_report_is_of_the_present_schema() -> None:
    assert json.loads(RECORDED.read_text())["schema"] == 2
