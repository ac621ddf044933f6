"""The page: well-formed, harmless, complete; and what a browser makes of it."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from sample_report import AWKWARD, ENTRIES, sample_report

from gaussian_head.evaluation.metric import Figure
from gaussian_head.evaluation.page import write_page
from gaussian_head.evaluation.report import Report, Row
from gaussian_head.media.image import read_rgb

VOID = {"meta", "img", "br", "link", "input", "hr"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DARK = "--blink-settings=preferredColorScheme=0"


class Strict(HTMLParser):
    """Parses a page; fails on a tag that is not closed in its turn; gathers what the tests ask for."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"<{tag}> has an attribute twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self.open, f"<{tag}/> outside of a plot"
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


def parse(path: Path) -> Strict:
    parser = Strict()
    parser.feed(path.read_text())
    parser.close()
    assert parser.open == []
    return parser


def write(path: Path, *, trained: bool = True, frames: int = 90) -> Path:
    report = sample_report(trained=trained, frames=frames)
    picture = np.tile(np.linspace(0, 255, 640).astype(np.uint8)[None, :, None], (240, 1, 3))
    write_page(report, report.traces(), {f"oracle {AWKWARD}": picture}, path)
    return path


@pytest.mark.parametrize("trained", [True, False])
def test_page_is_well_formed_and_refers_to_nothing_outside(trained: bool, tmp_path: Path) -> None:
    page = parse(write(tmp_path / "page.html", trained=trained))
    assert not {"script", "link", "iframe", "object", "base", "form"} & {tag for tag, _ in page.tags}
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "href"):
            target = attributes.get(name)
            assert target is None or target.startswith("data:image/jpeg;base64,") or target[1:] in ids
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_page_tells_what_the_report_tells(tmp_path: Path) -> None:
    report = sample_report(trained=False)
    page = parse(write(tmp_path / "page.html", trained=False))
    text = " ".join(" ".join(page.text).split())
    for told in ("92", "shortest", "PyAV 18.1.0", "pose, landmarks", "512 × 512", "ab" * 32, report.versions["torch"],
                 report.machine["processor"], "needs alexnet-owt-7be5be79.pth", "5 of 90 frames left out",
                 f"{report.figure('prediction', 'psnr', 'mouth').value:.2f}", AWKWARD):  # fmt: skip
        assert told in text, told
    assert text.index("What was compared") < text.index("Taken from ground truth") < text.index("PSNR ↑")
    hints = [attributes["title"] for tag, attributes in page.tags if tag == "abbr"]
    assert any("specs/metrics.md section 2" in hint and "higher is better" in hint for hint in hints)


def test_every_trace_and_curve_is_plotted_with_its_rows(tmp_path: Path) -> None:
    page = parse(write(tmp_path / "page.html"))
    plots = [attributes["aria-label"] for tag, attributes in page.tags if tag == "svg"]
    assert plots == [
        "PSNR, whole picture, frame by frame", "SSIM, whole picture, frame by frame",
        "PSNR, head, frame by frame", "PSNR, mouth, frame by frame", "LMD, mouth, frame by frame",
        "Best shift over delay of the prediction, frames",
    ]  # fmt: skip
    inks = [attributes["class"] for tag, attributes in page.tags if tag == "path"]
    assert inks.count("line line-2") == 2 * 5  # the second row's line and its place in the legend, in five plots


def test_a_row_that_could_not_be_measured_and_no_figures_at_all(tmp_path: Path) -> None:
    report = Report("t", {"row": Row({}, unavailable=dict.fromkeys(ENTRIES, "no sound"))}, ENTRIES, {})
    write_page(report, report.traces(), {}, tmp_path / "page.html")
    text = " ".join(parse(tmp_path / "page.html").text)
    assert "No figure could be computed." in text
    assert "Everything" in text
    assert "no sound" in text
    write_page(Report("t", {}, {}, {}), {}, {}, tmp_path / "page.html")
    parse(tmp_path / "page.html")


def test_a_long_clip_makes_no_large_page(tmp_path: Path) -> None:
    assert write(tmp_path / "page.html", frames=5_000).stat().st_size < 400_000


def test_a_value_nobody_could_measure_is_a_dash_with_its_reason(tmp_path: Path) -> None:
    figures = {row: {"lmd": {"mouth": Figure("lmd", "mouth", value, 0, 9, "no face found")}}
               for row, value in (("a", None), ("b", 1.0))}  # fmt: skip
    report = Report("t", {row: Row(figures[row]) for row in figures}, ENTRIES, {})
    write_page(report, {}, {}, tmp_path / "page.html")
    content = (tmp_path / "page.html").read_text()
    assert re.search(r'title="0 frames counted, 9 left out: no face found">-<', content)
    assert "LMD (a)" in content


def chromium(tmp_path: Path, page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run the browser once on a page."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    fixed = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=2000",
             "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}")  # fmt: skip
    environment = {**os.environ, "HOME": str(tmp_path)}
    command = [CHROMIUM, *fixed, *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=environment)


def console_lines(run: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in run.stderr.splitlines() if ":CONSOLE" in line]


@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_the_page_in_light_and_dark(dark: bool, tmp_path: Path) -> None:
    page, shot = write(tmp_path / "page.html"), tmp_path / "shot.png"
    flags = [f"--screenshot={shot}", "--window-size=1280,3600", *([DARK] if dark else [])]
    run = chromium(tmp_path, page, *flags)
    assert console_lines(run) == []
    seen = read_rgb(shot)
    assert seen.shape == (3600, 1280, 3)
    background = int(np.median(seen))
    assert background < 40 if dark else background > 240
    ink = np.abs(seen.astype(int) - background).max(2) > 60
    assert 0.01 < ink.mean() < 0.4
    assert np.convolve(ink.any(1), np.ones(200), "valid").min() > 0, "more than 200 px of the page are blank"
    blue, orange = ((108, 176, 238), (242, 161, 92)) if dark else ((36, 104, 168), (208, 106, 18))
    for color in (blue, orange):
        assert (np.abs(seen.astype(int) - color).max(2) < 12).sum() > 500, "a row's line is not drawn"


def test_a_browser_runs_nothing_that_a_name_smuggles_in(tmp_path: Path) -> None:
    page = write(tmp_path / "page.html", trained=False)
    run = chromium(tmp_path, page, "--dump-dom")
    assert console_lines(run) == []
    assert "<script" not in run.stdout
    assert "a.example" in html.unescape(run.stdout)
    assert run.stdout.count("<svg") == 6


def test_a_phone_sees_the_page_without_scrolling_sideways(tmp_path: Path) -> None:
    page = write(tmp_path / "page.html", trained=False)
    # a headless window is never narrower than 500 px, a frame may be; the outer page runs the script, not ours
    frame = tmp_path / "frame.html"
    frame.write_text(
        "<!DOCTYPE html><body><iframe id=f width=400 height=4000 srcdoc='' style='border:0'></iframe><script>"
        "f.onload = () => { const d = f.contentDocument.documentElement;"
        " document.title = d.scrollWidth + ' of ' + d.clientWidth; };"
        f"f.srcdoc = {json.dumps(page.read_text())};</script>"
    )
    found = re.search(r"<title>(\d+) of (\d+)</title>", chromium(tmp_path, frame, "--dump-dom").stdout)
    assert found, "the frame did not load"
    assert found[1] == found[2] == "400"
