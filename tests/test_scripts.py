"""The scripts parse, stop at the first failure, quote their paths, and say how they are used."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "scripts").glob("*.sh"))
THIN = ("process", "train", "synthesize", "evaluate", "prepare", "tensorboard", "vico_challenge")
COMMANDS = (
    "gaussian_head.train",
    "gaussian_head.synthesize",
    "gaussian_head.stream",
    "gaussian_head.evaluate",
    "gaussian_head.benchmark",
    "gaussian_head.export",
    "gaussian_head.prepare",
    "data_utils.process",
    "data_utils.complete",
    "data_utils.check",
    "data_utils.synthetic",
    "gaussian_head.oneshot.challenge",
    "gaussian_head.oneshot.train",
)
BASH = shutil.which("bash") or "bash"

RECORDER = """#!/usr/bin/env bash
# Stands in for python: writes down what it was asked to run.
printf '%s|' "${CUDA_VISIBLE_DEVICES:-}" "$@" >>"$RECORD"
echo >>"$RECORD"
"""


def run(*command: object, **options: object) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **options)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A folder with a space in its name that holds the scripts, a recording python and a set-up that does nothing."""
    house = tmp_path / "a house"
    shutil.copytree(ROOT / "scripts", house / "scripts")
    (house / "scripts/setup.sh").write_text("exit 0\n")
    python = house / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(RECORDER)
    python.chmod(0o755)
    return house


def recorded(house: Path, script: str, *arguments: str, cwd: Path | None = None) -> list[list[str]]:
    """Run a script in the house and return [CUDA_VISIBLE_DEVICES, arguments ...] of each call of python."""
    record = house / "record"
    environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"} | {"RECORD": str(record)}
    result = run(BASH, house / "scripts" / script, *arguments, env=environment, cwd=cwd or house.parent)
    assert result.returncode == 0, result.stderr
    return [line.split("|")[:-1] for line in record.read_text().splitlines()]


@pytest.mark.parametrize("path", [*SCRIPTS, ROOT / ".ci/run"], ids=lambda path: path.name)
def test_script_parses_and_stops_at_the_first_failure(path: Path) -> None:
    assert run(BASH, "-n", path).returncode == 0
    if path.name != "environment.sh":
        assert "set -euo pipefail" in path.read_text().splitlines()
        assert os.access(path, os.X_OK)


@pytest.mark.parametrize("name", THIN)
def test_thin_scripts_stay_thin(name: str) -> None:
    assert len((ROOT / f"scripts/{name}.sh").read_text().splitlines()) < 25


@pytest.mark.parametrize("path", [path for path in SCRIPTS if path.name != "environment.sh"], ids=lambda p: p.name)
def test_help_is_a_usage_line(path: Path) -> None:
    result = run(BASH, path, "--help")
    assert result.returncode == 0
    assert result.stdout.startswith(f"usage: scripts/{path.name}")


@pytest.mark.parametrize("name", ["process", "train", "synthesize", "evaluate", "vico_challenge"])
def test_missing_arguments_give_the_usage_line(name: str) -> None:
    for arguments in ([], ["--preset"]):
        result = run(BASH, ROOT / f"scripts/{name}.sh", *arguments)
        assert result.returncode == 2
        assert result.stderr.startswith("usage: ")


def test_train_takes_a_gpu_or_flags(house: Path) -> None:
    recorded(house, "train.sh", "data/my face", "output/x", "1", "--preset", "full")
    calls = recorded(house, "train.sh", "data/my face", "output/x", "--preset", "quick")
    module = ["-m", "gaussian_head.train", "all", "--data", "data/my face", "--out", "output/x", "--preset"]
    assert calls == [["1", *module, "full"], ["", *module, "quick"]]


def test_train_completes_a_folder_of_another_tool_first(house: Path) -> None:
    (house / "data/my face").mkdir(parents=True)
    calls = recorded(house, "train.sh", "data/my face", "output/x", cwd=house)
    assert [call[2] for call in calls] == ["data_utils.complete", "gaussian_head.train"]
    assert calls[0][1:] == ["-m", "data_utils.complete", "data/my face"]
    (house / "data/my face/manifest.json").touch()
    (house / "record").unlink()
    assert [call[2] for call in recorded(house, "train.sh", "data/my face", "output/x", cwd=house)] == [
        "gaussian_head.train"
    ]


def test_synthesize_and_evaluate_pass_their_arguments_on(house: Path) -> None:
    recorded(house, "synthesize.sh", "data/a", "output/a", "--audio", "my speech.wav")
    calls = recorded(house, "evaluate.sh", "data/a", "output/a")
    assert calls[0][1:] == [
        "-m", "gaussian_head.synthesize", "-S", "data/a", "-M", "output/a", "--audio", "my speech.wav",
    ]  # fmt: skip
    assert calls[1][1:] == ["-m", "gaussian_head.evaluate", "-S", "data/a", "-M", "output/a"]


def test_prepare_passes_its_arguments_on(house: Path) -> None:
    recorded(house, "prepare.sh")
    calls = recorded(house, "prepare.sh", "--status")
    assert [call[1:] for call in calls] == [
        ["-m", "gaussian_head.prepare"],
        ["-m", "gaussian_head.prepare", "--status"],
    ]


def test_demo_goes_from_the_video_to_the_report(house: Path) -> None:
    video = house.parent / "clip of me.mov"
    video.touch()
    calls = recorded(house, "demo.sh", video.name)
    assert [call[2] for call in calls] == [
        "data_utils.process",
        "gaussian_head.train",
        "gaussian_head.synthesize",
        "gaussian_head.evaluate",
    ]
    assert calls[0][3:] == [str(video), "--out", "data/clip of me"]
    assert calls[1][3:] == ["all", "--data", "data/clip of me", "--out", "output/clip of me", "--preset", "quick"]


def test_demo_without_a_video_makes_the_procedural_subject(house: Path) -> None:
    calls = recorded(house, "demo.sh")
    assert calls[0][1:] == ["-m", "data_utils.synthetic", "data/demo"]
    assert calls[1][1:] == ["-m", "data_utils.process", "data/demo/demo.mp4", "--out", "data/demo"]


def test_benchmark_runs_the_demo_on_each_subject_and_writes_page_and_picture(house: Path) -> None:
    videos = [house.parent / name for name in ("a b.mp4", "c.mov")]
    for path in (*videos, house / "output/demo/contact_sheet.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    calls = recorded(house, "benchmark.sh", *(video.name for video in videos))
    processed = [call[3] for call in calls if call[2] == "data_utils.process"]
    assert processed == ["data/demo/demo.mp4", *(str(video) for video in videos)]
    assert (house / "docs/images/demo.png").is_file()
    runs = [f"{house}/output/{name}" for name in ("demo", "a b", "c")]
    assert calls[-1][1:] == ["-m", "gaussian_head.benchmark", *runs, "--out", f"{house}/docs/benchmarks.md"]


GPU_STAND_IN = """#!/usr/bin/env bash
# Stands in for a python that sees a GPU, whose tests fail and whose benchmark passes.
case "$*" in
*get_device_capability*) echo 90 ;;
*gpu_page.py*) exec "$REAL_PYTHON" "$@" ;;
*pytest*) echo "3 failed, 7 passed" && exit 1 ;;
*--help*) exit 1 ;;
*) echo "did: $*" ;;
esac
"""


def test_gpu_check_goes_on_after_a_failure_and_writes_its_page(house: Path, tmp_path: Path) -> None:
    (house / ".venv/bin/python").write_text(GPU_STAND_IN)
    for folder in ("docs", "benchmarks"):
        (house / folder).mkdir()
    shutil.copy(ROOT / "benchmarks/gpu_page.py", house / "benchmarks")
    out = tmp_path / "out"
    out.mkdir()
    environment = {**os.environ, "OUT": str(out), "REAL_PYTHON": sys.executable}
    result = run(BASH, house / "scripts/gpu_check.sh", env=environment)
    assert result.returncode == 1, result.stderr
    page = (house / "docs/gpu.md").read_text()
    assert re.search(r"\| tests \| failed \| \d+ \| 3 failed, 7 passed \|", page)
    assert re.search(r"\| benchmark \| passed \| \d+ \| did: benchmarks/rasterize_cuda.py --json .* \|", page)
    assert "| train | skipped |" in page
    assert "not yet run" not in page
    assert {path.name for path in out.iterdir()} == {"gpu.md", "gpu.json", "gpu_check.log"}
    assert "3 failed, 7 passed" in (out / "gpu_check.log").read_text()


def test_demo_names_a_missing_video(house: Path) -> None:
    result = run(BASH, house / "scripts/demo.sh", "nowhere.mp4")
    assert result.returncode != 0
    assert "nowhere.mp4" in result.stderr
    assert not (house / "data").exists()


def test_setup_says_which_python_it_needs(tmp_path: Path) -> None:
    house = tmp_path / "house"
    shutil.copytree(ROOT / "scripts", house / "scripts")
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("cat", "dirname"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    old = tools / "python3"
    old.write_text(f"#!{BASH}\n[[ $1 == --version ]] && echo 'Python 3.8.0' || exit 1\n")
    old.chmod(0o755)
    result = run(BASH, house / "scripts/setup.sh", env={"PATH": str(tools)})
    assert result.returncode == 1
    assert "Python 3.11 or 3.12 is needed, found Python 3.8.0" in result.stderr
    assert not (house / ".venv").exists()


@pytest.mark.parametrize("module", COMMANDS)
def test_commands_explain_themselves(module: str) -> None:
    path = ROOT / module.replace(".", "/")
    if not (path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()):
        pytest.skip(f"{module} is not written yet")
    shown = run(sys.executable, "-m", module, "--help", cwd=ROOT)
    assert shown.returncode == 0, shown.stderr
    assert "usage:" in shown.stdout
    wrong = run(sys.executable, "-m", module, "--no-such-flag", cwd=ROOT)
    assert wrong.returncode == 2
    assert "usage:" in wrong.stderr.lower() or "--help" in wrong.stderr
