"""The process command: order, skipping, the user's own files, odd folder names."""

from pathlib import Path

import numpy as np
import pytest

from data_utils import process as process_module
from data_utils.process import ProcessOptions, process
from data_utils.stage import Manifest
from data_utils.stages import STAGE_NAMES, build_stages
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.errors import UserError
from gaussian_head.media.image import read_rgb, resize
from gaussian_head.media.video import VideoWriter, read_frames_at


@pytest.fixture(scope="module")
def short_clip(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty frames of real footage at 128 px, with sound."""
    path = tmp_path_factory.mktemp("short") / "my clip.mp4"
    frames = read_frames_at(clips / "talk_c_5s.mp4", 25)
    with VideoWriter(path, 25, 128, 128, audio=clips / "talk_c_5s.mp4") as writer:
        for _ in range(50):
            writer.write(resize(next(frames), 128, 128))
    return path


def test_every_stage_reads_what_an_earlier_one_writes(tmp_path: Path) -> None:
    layout = SubjectLayout(tmp_path)
    stages = build_stages(layout, size=512, crop="auto", extractor="mel")
    assert tuple(stages) == STAGE_NAMES
    there = {layout.video}
    for stage in stages.values():
        assert set(stage.inputs) <= there, stage.name
        assert not set(stage.outputs) & there, stage.name
        there |= set(stage.outputs)


@pytest.mark.slow
def test_whole_folder(short_clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mediapipe")
    options = ProcessOptions(short_clip, out=tmp_path / "some one", size=128)
    layout = process(options)
    assert layout.video.read_bytes() == short_clip.read_bytes()
    stages = build_stages(layout, size=128, crop="auto", extractor="mel")
    for stage in stages.values():
        for output in stage.outputs:
            found = len(list(layout.root.glob(output.relative_to(layout.root).as_posix())))
            assert found == (50 if "*" in output.name else 1), output
    assert np.load(layout.audio_features("mel")).shape == (50, 16, 80)
    assert read_rgb(layout.report).shape[1] > 1000
    capsys.readouterr()

    process(options)
    said = capsys.readouterr().out.splitlines()
    assert said[: len(STAGE_NAMES)] == [f"{name}: up to date" for name in STAGE_NAMES]

    text = layout.action_units.read_text()
    layout.action_units.write_text(text.replace("0.00", "0.01"))
    layout.parsing(7).unlink()
    process(options)
    said = capsys.readouterr().out
    assert "landmarks: up to date" in said
    assert "parsing: done" in said
    assert "background: up to date" in said  # parsing came out the same
    assert "action_units: kept your own" in said
    assert layout.action_units.read_text() == text.replace("0.00", "0.01")


def test_killed_in_a_stage_runs_it_again(short_clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ProcessOptions(short_clip, out=tmp_path / "x", size=64, only=("audio", "frames"), report=False)
    layout = process(options)
    stages = build_stages(layout, size=64, crop="auto", extractor="mel")
    Manifest(layout).start(stages["frames"])
    layout.frame(3).unlink()
    capsys.readouterr()
    process(options)
    said = capsys.readouterr().out
    assert "audio: up to date" in said
    assert "frames: done" in said
    assert layout.frame(3).is_file()


def test_options_belong_to_a_stage(short_clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for size, expected in ((64, "done"), (64, "up to date"), (32 * 3, "done")):
        process(ProcessOptions(short_clip, out=tmp_path / "x", size=size, only=("frames",), report=False))
        assert f"frames: {expected}" in capsys.readouterr().out
    process(ProcessOptions(short_clip, out=tmp_path / "x", size=96, only=("frames",), force=True, report=False))
    assert "frames: done" in capsys.readouterr().out


def test_video_in_its_folder_stays_there(short_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "data" / "who" / "who.mp4"
    inside.parent.mkdir(parents=True)
    inside.write_bytes(short_clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    only = {"only": ("audio",), "report": False}
    assert process(ProcessOptions(Path("data/who/who.mp4"), **only)).speech.is_file()
    assert process(ProcessOptions(short_clip, **only)).root == Path("data/my clip")
    monkeypatch.chdir(inside.parent)
    assert process(ProcessOptions(Path("who.mp4"), **only)).root == Path()


@pytest.mark.parametrize("size", [63, 65, 4096])
def test_size_is_checked(size: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"got {size}"):
        process(ProcessOptions(tmp_path / "x.mp4", size=size))


def test_progress_passes_everything_through() -> None:
    assert list(process_module.show_progress(range(5), 5, "x")) == [0, 1, 2, 3, 4]
