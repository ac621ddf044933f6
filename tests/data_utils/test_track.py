"""The track command: what it writes drives a head, and is kept while the video is the same."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from data_utils.synthetic.subject import load_truth, make_subject
from data_utils.track import TrackOptions, main, track
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.driving.borrowed import load_driver, sound_of
from gaussian_head.errors import UserError
from gaussian_head.geometry.landmarks import mouth_aperture
from gaussian_head.media.video import VideoWriter, read_frames

SIZE = 128


@pytest.fixture(scope="module")
def somebody(tmp_path_factory: pytest.TempPathFactory) -> SubjectLayout:
    """Two seconds of a procedural person."""
    pytest.importorskip("mediapipe")
    layout = SubjectLayout(tmp_path_factory.mktemp("track") / "somebody")
    make_subject(layout, seconds=2.0, size=SIZE, seed=1)
    return layout


def make_noise(path: Path, frames: int) -> Path:
    noise = np.random.default_rng(0)
    with VideoWriter(path, 25, 96, 64) as writer:
        for _ in range(frames):
            writer.write(noise.integers(0, 256, (64, 96, 3), dtype=np.uint8))
    return path


@pytest.mark.slow
def test_a_video_becomes_a_driving_sequence(
    somebody: SubjectLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tracks" / "x.safetensors"
    # Without sound and with two frames that show no face.
    silent = tmp_path / "x.mp4"
    with VideoWriter(silent, 25, SIZE, SIZE) as writer:
        for k, (_, rgb) in enumerate(read_frames(somebody.video)):
            writer.write(np.full_like(rgb, 90) if k in (20, 21) else rgb)
    monkeypatch.setattr(sys, "argv", ["track", str(silent), "--out", str(out), "--size", str(SIZE)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    motion = load_driver(out, tmp_path)
    assert len(motion) == 50
    assert sound_of(silent) is None
    truth = load_truth(somebody)[1]["mouth"][:, 0]
    assert np.corrcoef(mouth_aperture(motion.landmarks.numpy()), truth)[0, 1] > 0.8
    assert 0 <= float(motion.action_units.min()) <= float(motion.action_units.max()) <= 5
    seen = (motion.landmarks.mean(0) @ motion.viewmats[0, :3, :3].T + motion.viewmats[0, :3, 3]) @ motion.K.T
    pixels = seen[:, :2] / seen[:, 2:]
    assert (pixels > 0).all()
    assert (pixels < SIZE).all()

    before = out.stat().st_mtime_ns
    track(TrackOptions(silent, out, SIZE))
    assert "tracked already" in capsys.readouterr().out
    assert out.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"out": Path("x.npz")}, "--out must end in .safetensors"),
        ({"size": 63}, "--size must be"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        track(TrackOptions(tmp_path / "x.mp4", **options))


def test_a_video_that_cannot_drive(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"x.mp4 does not exist"):
        track(TrackOptions(tmp_path / "x.mp4"))
    with pytest.raises(UserError, match="at least 50 are needed"):
        track(TrackOptions(make_noise(tmp_path / "short.mp4", 20)))
    assert not list(tmp_path.glob("*.safetensors"))
