"""Bad input of the process command: one clear line, status 2, earlier results untouched."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_utils.process import ProcessOptions, process
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.errors import EXIT_BAD_INPUT, UserError, run_command
from gaussian_head.media.audio import write_wav
from gaussian_head.media.video import VideoWriter

ROOT = Path(__file__).resolve().parents[2]


def make_video(path: Path, frames: int = 60, *, sound: bool = True) -> Path:
    tone = path.with_suffix(".wav")
    write_wav(tone, 0.3 * np.sin(np.arange(48_000) * 0.2), 16_000)
    noise = np.random.default_rng(0)
    with VideoWriter(path, 25, 64, 64, audio=tone if sound else None) as writer:
        for _ in range(frames):
            writer.write(noise.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    return path


def bad_video(kind: str, folder: Path) -> Path:
    path = folder / f"{kind}.mp4"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("no video " * 500)
    elif kind == "silent":
        make_video(path, sound=False)
    elif kind == "short":
        make_video(path, frames=30)
    elif kind in ("cut_tail", "cut_head"):
        content = make_video(path).read_bytes()
        path.write_bytes(content[: len(content) * 6 // 10] if kind == "cut_tail" else content[len(content) // 2 :])
    return path


KINDS = {
    "missing": "does not exist",
    "empty": "is empty",
    "text": "not a readable media file",
    "cut_tail": "truncated",
    "cut_head": "not a readable media file",
    "silent": "has no sound",
    "short": "at least 50 are needed",
}


@pytest.mark.parametrize("kind", KINDS)
def test_bad_video_is_refused_before_anything_is_written(kind: str, tmp_path: Path) -> None:
    with pytest.raises((UserError, FileNotFoundError), match=KINDS[kind]):
        process(ProcessOptions(bad_video(kind, tmp_path), out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_command_prints_one_line(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "data_utils/process.py",
        str(bad_video("empty", tmp_path)),
        "--out",
        str(tmp_path / "out"),
    ]
    options = {"capture_output": True, "text": True, "check": False, "cwd": ROOT}
    options["env"] = os.environ | {"PYTHONPATH": str(ROOT)}  # as if installed
    done = subprocess.run(command, **options)
    assert done.returncode == EXIT_BAD_INPUT
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    debugged = subprocess.run([*command, "--debug"], **options)
    assert "Traceback" in debugged.stderr


def test_another_video_does_not_replace_the_first(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4")
    make_video(tmp_path / "b.mp4", frames=70)
    options = {"out": tmp_path / "out", "only": ("audio",), "report": False}
    process(ProcessOptions(tmp_path / "a.mp4", **options))
    with pytest.raises(UserError, match="already holds another video"):
        process(ProcessOptions(tmp_path / "b.mp4", **options))
    assert (tmp_path / "out" / "out.mp4").read_bytes() == (tmp_path / "a.mp4").read_bytes()


def test_a_folder_of_another_tool_is_left_alone(tmp_path: Path) -> None:
    layout = SubjectLayout(tmp_path / "theirs")
    layout.root.mkdir()
    layout.transforms("train").write_text("{}")
    with pytest.raises(UserError, match="made by another tool.*train it as it is"):
        process(ProcessOptions(make_video(tmp_path / "a.mp4"), out=layout.root, size=64))
    assert [path.name for path in layout.root.iterdir()] == ["transforms_train.json"]


def test_faceless_video_leaves_an_earlier_one_s_results(clips: Path, tmp_path: Path) -> None:
    pytest.importorskip("mediapipe")
    layout = SubjectLayout(tmp_path / "who")
    layout.root.mkdir()
    layout.video.write_bytes((clips / "talk_c_5s.mp4").read_bytes())
    intake = ("audio", "frames", "landmarks")
    process(ProcessOptions(layout.video, size=128, only=intake, report=False))
    before = {path: path.read_bytes() for path in layout.root.rglob("*") if path.is_file() and path != layout.video}
    layout.video.write_bytes(make_video(tmp_path / "noise.mp4").read_bytes())
    with pytest.raises(UserError, match="no face found"):
        process(ProcessOptions(layout.video, size=128, report=False))
    after = {path: path.read_bytes() for path in layout.root.rglob("*") if path.is_file() and path != layout.video}
    assert after == before


def full_disk(kind: type[OSError]) -> None:
    raise kind(errno.ENOSPC, "No space left on device", "out/ori_imgs/3.jpg")


def test_full_disk_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    import av

    for kind in (OSError, av.error.OSError):
        with pytest.raises(SystemExit) as left:
            run_command(lambda kind=kind: full_disk(kind))
        assert left.value.code == EXIT_BAD_INPUT
        assert "the disk is full while writing out/ori_imgs/3.jpg" in capsys.readouterr().err


def test_full_disk_leaves_earlier_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from data_utils import frames

    video = make_video(tmp_path / "a.mp4")
    layout = SubjectLayout(tmp_path / "out")
    process(ProcessOptions(video, out=layout.root, size=64, only=("frames",), report=False))
    before = layout.frame(59).read_bytes()
    written = []

    def write_until_full(path: Path, *_: object) -> None:
        written.append(path)
        if len(written) > 10:
            full_disk(OSError)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"new")

    monkeypatch.setattr(frames, "write_jpeg", write_until_full)
    with pytest.raises(OSError, match="No space left"):
        process(ProcessOptions(video, out=layout.root, size=64, only=("frames",), force=True, report=False))
    assert layout.frame(59).read_bytes() == before
    assert not list(layout.root.glob(".*"))


def test_defects_of_ours_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 // 0)
