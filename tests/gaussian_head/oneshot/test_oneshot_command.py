"""The command: portraits of all kinds, sound of all kinds, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from procedural_portrait import procedural_portrait

from data_utils.synthetic.utterances import utter
from gaussian_head.errors import UserError
from gaussian_head.geometry.landmarks import MESH_TO_68
from gaussian_head.media.audio import load_audio, write_wav
from gaussian_head.media.image import write_png
from gaussian_head.media.video import probe_video, read_frames
from gaussian_head.networks.weights import TABLE
from gaussian_head.oneshot import pipelines
from gaussian_head.oneshot.__main__ import OneShotOptions, speak
from gaussian_head.oneshot.mesh import head as mesh_head
from gaussian_head.oneshot.mesh.head import read_portrait
from gaussian_head.oneshot.source.detect import FoundFace


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Stand-ins for MediaPipe, which know where the procedural face is in a picture that shows it alone."""
    told = {"faces": 1}

    class Finder:
        name = "told"

        def find(self, rgb: np.ndarray) -> FoundFace | None:
            if not told["faces"]:
                return None
            landmarks = procedural_portrait(rgb.shape[0]).landmarks
            return FoundFace(landmarks[MESH_TO_68, :2], told["faces"], landmarks)

    monkeypatch.setattr(mesh_head, "MediaPipeFinder", Finder)
    monkeypatch.setattr(mesh_head, "person_mask", lambda rgb: procedural_portrait(rgb.shape[0]).person)
    return told


@pytest.fixture
def portrait(tmp_path: Path) -> Path:
    path = tmp_path / "face.png"
    write_png(path, procedural_portrait().rgb)
    return path


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "voice.wav"
    speech, _ = utter(1.6, np.random.default_rng(4))
    write_wav(path, speech, 16_000)
    return path


def test_a_portrait_speaks(
    seen: dict[str, int], portrait: Path, voice: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "new" / "spoken.mp4"
    speak(OneShotOptions(portrait, voice, out, size=200))
    told = capsys.readouterr().out
    assert "built-in baseline" in told
    assert told.splitlines()[-1] == str(out)
    info = probe_video(out)
    assert (info.width, info.height, info.fps, info.has_audio) == (224, 224, 25.0, True)
    frames = [frame for _, frame in read_frames(out)]
    assert len(frames) == 40
    sound = load_audio(out)
    assert abs(len(sound) - 1.6 * 16_000) < 2000
    original = load_audio(voice)
    shared = min(len(sound), len(original))
    assert np.corrcoef(sound[:shared], original[:shared])[0, 1] > 0.8  # muxed in time
    assert [path.name for path in out.parent.iterdir()] == ["spoken.mp4"]
    changes = [np.abs(frame.astype(int) - frames[0]).mean() for frame in frames]
    assert max(changes) > 0.5


def test_small_pictures_are_enlarged_and_large_ones_are_not(
    seen: dict[str, int], portrait: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert read_portrait(portrait, 448).rgb.shape == (448, 448, 3)
    assert read_portrait(portrait, 100).rgb.shape == (224, 224, 3)
    assert read_portrait(portrait, 2048).rgb.shape == (896, 896, 3)  # at most four times
    huge = portrait.with_name("huge.png")
    write_png(huge, cv2.resize(procedural_portrait().rgb, (2400, 2400)))
    assert max(read_portrait(huge).rgb.shape) < 1200
    with caplog.at_level(logging.WARNING):
        small = portrait.with_name("small.png")
        write_png(small, cv2.resize(procedural_portrait().rgb, (150, 150)))
        enlarged = read_portrait(small, 300)
    assert "blurred" in caplog.text
    assert enlarged.rgb.shape == (300, 300, 3)
    assert np.ptp(enlarged.landmarks[:, 1]) == pytest.approx(np.ptp(procedural_portrait(300).landmarks[:, 1]), rel=1e-6)


def test_what_is_transparent_becomes_white(
    seen: dict[str, int], portrait: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rgb = procedural_portrait().rgb
    alpha = np.full(rgb.shape[:2], 255, np.uint8)
    alpha[:20] = 0
    write_png(portrait, np.dstack([rgb, alpha]))
    with caplog.at_level(logging.WARNING):
        read = read_portrait(portrait, 200)
    assert (read.rgb[:20] == 255).all()
    np.testing.assert_array_equal(read.rgb[20:], rgb[20:])
    assert "transparent" in caplog.text


def test_of_several_faces_the_largest_speaks(
    seen: dict[str, int], portrait: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen["faces"] = 3
    with caplog.at_level(logging.WARNING):
        read_portrait(portrait)
    assert "3 faces; the largest" in caplog.text


def test_pictures_without_a_usable_face_are_refused(seen: dict[str, int], portrait: Path, tmp_path: Path) -> None:
    tiny = tmp_path / "tiny.png"
    write_png(tiny, cv2.resize(procedural_portrait().rgb, (48, 48)))
    with pytest.raises(UserError, match=r"px high, 40 px are needed"):
        read_portrait(tiny)
    seen["faces"] = 0
    with pytest.raises(UserError, match="no face"):
        read_portrait(portrait)
    with pytest.raises(FileNotFoundError, match="none.png"):
        read_portrait(tmp_path / "none.png")


def test_sound_that_cannot_be_used(seen: dict[str, int], portrait: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        speak(OneShotOptions(portrait, tmp_path / "none.wav", tmp_path / "v.mp4"))
    short = tmp_path / "short.wav"
    write_wav(short, np.zeros(100, np.float32), 16_000)
    speak(OneShotOptions(portrait, short, tmp_path / "short.mp4", size=64))
    assert len(list(read_frames(tmp_path / "short.mp4"))) == 1  # shorter than any window, one frame all the same


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"size": 20}, "--size"),
        ({"seed": -1}, "--seed"),
        ({"motion": 3.0}, "--motion"),
        ({"mouth_gain": -1.0}, "--mouth-gain"),
        ({"blink_rate": 90.0}, "--blink-rate"),
        ({"out": Path("x.avi")}, "--out"),
        ({"renderer": "oracle"}, "--renderer must be auto or one of .*mesh"),
    ],
)
def test_options_that_make_no_sense(portrait: Path, voice: Path, changed: dict[str, object], match: str) -> None:
    with pytest.raises(UserError, match=match):
        speak(OneShotOptions(portrait, voice, **changed))


def test_every_weight_that_a_pipeline_names_is_known() -> None:
    for pipeline in pipelines.PIPELINES.values():
        assert set(pipeline.weights) <= set(TABLE)
