"""The whole inference on drawn footage: frames, their order, what is left alone, and when the lips move."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from drawn_talker import HEIGHT, WIDTH, draw_person, find_skin, openness, speech_of, write_person

from gaussian_head.errors import UserError
from gaussian_head.media.audio import load_audio, write_wav
from gaussian_head.media.image import write_png
from gaussian_head.media.time_bases import SPEECH_HZ
from gaussian_head.media.video import probe_video, read_frames
from gaussian_head.networks.wav2lip import Wav2Lip
from gaussian_head.networks.weights import WeightsMissingError
from gaussian_head.oneshot.wav2lip.__main__ import main
from gaussian_head.oneshot.wav2lip.faces import mouth_mask
from gaussian_head.oneshot.wav2lip.footage import open_footage
from gaussian_head.oneshot.wav2lip.lip_sync import LipPainter, LipSync, LipSyncConfig
from gaussian_head.oneshot.wav2lip.loading import load_painter
from gaussian_head.talking_head import TalkingHead


def frames_of(video: Path) -> list[np.ndarray]:
    return [rgb for _, rgb in read_frames(video)]


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (before != after).any(-1)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """44 frames at 30 a second; no face in frames 10-12 (bridged) and 20-29 (too long)."""
    return write_person(tmp_path_factory.mktemp("footage") / "a.b.mp4", 44, 30, (*range(10, 13), *range(20, 30)))


@pytest.mark.parametrize("cycle", ["bounce", "repeat"])
def test_longer_sound_plays_the_video_on_and_only_mouths_change(video: Path, loudness: Wav2Lip, cycle: str) -> None:
    config = LipSyncConfig(cycle=cycle, longest_gap_s=0.1, batch_size=7, detector_batch_size=5)
    head = LipSync(open_footage(video), LipPainter(loudness, find_skin, config))
    assert isinstance(head, TalkingHead)
    assert head.fps == 30
    speech = np.tile(speech_of(30, 30), 4)
    spoken, source = list(head.speak(speech)), frames_of(video)
    assert len(spoken) == head.frames_for(speech) == 120
    back = list(range(42, -1, -1)) if cycle == "bounce" else range(44)
    order = [*range(44), *back, *(range(1, 44) if cycle == "bounce" else range(44))][:120]
    for k, (now, frame) in enumerate(zip(order, spoken, strict=True)):
        rows, columns = np.nonzero(changed(source[now], frame))
        if 20 <= now < 30:
            assert len(rows) == 0, f"frame {k} shows no face and changed"
            continue
        assert len(rows) > 200
        assert abs(columns.mean() - (55 + now)) < 4  # the face drifts; where it is hidden, its place is known
        assert rows.min() >= 26 + 0.4 * 64 - 1
        assert rows.max() < 58 + 32 + 10


def test_outside_the_mask_frames_are_exact_and_inside_an_echo_is_near(video: Path, echo: Wav2Lip) -> None:
    painter = LipPainter(echo, find_skin, LipSyncConfig(longest_gap_s=0.1))
    source = frames_of(video)
    located = list(painter.locate(source, 30))
    for (frame, box), (now, _) in zip(located, enumerate(source), strict=True):
        assert frame is source[now]
        assert (box is None) == (20 <= now < 30)
    spoken = list(painter.refine(source, 44, 30, speech_of(44, 30)))
    for (frame, box), out in zip(located, spoken, strict=True):
        mask = np.zeros((HEIGHT, WIDTH))
        if box is not None:
            left, top, right, bottom = box.tolist()
            mask[top:bottom, left:right] = mouth_mask(bottom - top, right - left)
        np.testing.assert_array_equal(out[mask == 0], frame[mask == 0])
        assert np.abs(out.astype(int) - frame).mean() < 2


@pytest.mark.parametrize("fps", [25, 30])
def test_lips_move_when_the_sound_does(loudness: Wav2Lip, fps: int) -> None:
    frames = [draw_person(0, 0.2)] * 90
    painter = LipPainter(loudness, find_skin, LipSyncConfig(paste="hard"))
    bright = np.array([frame[80, 55].mean() for frame in painter.refine(frames, 90, fps, speech_of(90, fps))])
    truth = openness(96, fps)
    # the first three columns of a window are centred on 0, 12.5 and 25 ms
    scores = [np.corrcoef(bright[5:80], truth[5 + lag : 80 + lag])[0, 1] for lag in range(-4, 5)]
    assert int(np.argmax(scores)) - 4 in (0, 1)
    assert max(scores) > 0.8


def test_a_picture_is_shown_for_as_long_as_the_sound_lasts(tmp_path: Path, loudness: Wav2Lip) -> None:
    write_png(tmp_path / "p.PNG", draw_person(3, 0.0))
    head = LipSync(open_footage(tmp_path / "p.PNG", picture_fps=20), LipPainter(loudness, find_skin))
    spoken = np.stack(list(head.speak(speech_of(20, 20))))
    assert len(spoken) == 20
    assert spoken[:, 80, 58].std(0).mean() > 5
    np.testing.assert_array_equal(spoken[:, :40], np.broadcast_to(draw_person(3, 0.0)[:40], (20, 40, WIDTH, 3)))
    with pytest.raises(UserError, match="--crop are for videos"):
        open_footage(tmp_path / "p.PNG", turn_deg=90)


def test_a_static_video_is_its_first_frame(video: Path, echo: Wav2Lip) -> None:
    footage = open_footage(video, static=True)
    first = frames_of(video)[0]
    spoken = list(LipSync(footage, LipPainter(echo, find_skin)).speak(speech_of(6, 30)))
    assert (footage.fps, len(spoken)) == (30, 6)
    assert all((frame[:50] == first[:50]).all() for frame in spoken)


def test_without_a_face_anywhere_it_says_so(echo: Wav2Lip) -> None:
    painter = LipPainter(echo, find_skin)
    shown = []
    with pytest.raises(UserError, match=r"no face was found in any of the 9 frames.*--box"):
        shown.extend(painter.refine([draw_person(0, 0, shown=False)] * 9, 9, 25, speech_of(9, 25)))
    assert len(shown) == 9


def test_memory_does_not_grow_with_the_video(echo: Wav2Lip) -> None:
    taken = 0

    def source() -> Iterator[np.ndarray]:
        nonlocal taken
        for k in range(160):
            taken += 1
            yield draw_person(k, 0.5, shown=not 50 <= k < 55)

    config = LipSyncConfig(batch_size=4, detector_batch_size=4, longest_gap_s=0.2)
    for given, _ in enumerate(LipPainter(echo, find_skin, config).refine(source(), 160, 25, speech_of(160, 25))):
        assert taken - given <= 4 + 4 + 5 + 2 + 1


def test_footage_is_shrunk_turned_and_cropped_in_this_order(video: Path) -> None:
    footage = open_footage(video, resize_factor=2, turn_deg=90, crop=(5, 75, 2, -1))
    assert (footage.width, footage.height) == (58, 70)
    source = [
        np.rot90(cv2.resize(frame, (80, 60), interpolation=cv2.INTER_AREA), -1)[5:75, 2:] for frame in frames_of(video)
    ]
    np.testing.assert_array_equal(np.stack(list(footage.forwards())), source)
    np.testing.assert_array_equal(np.stack(list(footage.backwards(30))), source[30::-1])
    np.testing.assert_array_equal(np.stack(list(footage.forwards(41))), source[41:])
    with pytest.raises(UserError, match="must lie inside the frame of 160 x 120"):
        open_footage(video, crop=(0, 121, 0, -1))
    with pytest.raises(UserError, match="too few for a face"):
        open_footage(video, crop=(0, 20, 0, -1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pads": (0, -1, 0, 0)}, "--pads"),
        ({"box": (50, 40, 0, 10)}, "TOP < BOTTOM"),
        ({"longest_gap_s": 11.0}, "0..10 s"),
        ({"batch_size": 0}, "--batch-size"),
        ({"detector_px": 10}, "--detector-px"),
    ],
)
def test_impossible_options(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        LipSyncConfig(**options)


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of weights."""
    monkeypatch.setenv("GAUSSIAN_HEAD_CHECKPOINTS", str(tmp_path / "weights"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def call(monkeypatch: pytest.MonkeyPatch, *flags: object) -> int:
    monkeypatch.setattr(sys, "argv", ["wav2lip", *(str(flag) for flag in flags)])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code


def test_the_command(
    no_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    video = write_person(tmp_path / "v.mp4", 9, 30)
    write_wav(tmp_path / "a.wav", speech_of(12, 30), SPEECH_HZ)
    flags = ("--video", video, "--audio", tmp_path / "a.wav", "--out", tmp_path / "o.mp4")
    assert call(monkeypatch, *flags, "--box", 26, 98, 31, 80) == 2
    told = capsys.readouterr().err
    assert "wav2lip_gan.pth" in told
    assert "scripts/prepare.sh" in told
    torch.manual_seed(0)
    # as the authors' training saves it: wrapped, from DataParallel, beside an optimizer
    state = {f"module.{name}": value for name, value in Wav2Lip().state_dict().items()}
    torch.save({"state_dict": state, "optimizer": {"state": {}}, "global_step": 7}, no_weights / "wav2lip_gan.pth")
    assert call(monkeypatch, *flags, "--box", 26, 98, 31, 80) == 0
    info, out = probe_video(tmp_path / "o.mp4"), frames_of(tmp_path / "o.mp4")
    assert (info.fps, len(out), info.has_audio) == (30, 12, True)
    heard = load_audio(tmp_path / "o.mp4")
    np.testing.assert_allclose(len(heard), 12 / 30 * SPEECH_HZ, atol=1100)
    assert np.corrcoef(heard[:6000], speech_of(12, 30)[:6000])[0, 1] > 0.9
    source = frames_of(video)
    assert np.abs(out[8][:40].astype(int) - source[8][:40]).mean() < 4  # encoded twice
    assert np.abs(out[8][70:90, 45:66].astype(int) - source[8][70:90, 45:66]).mean() > 15
    for more, message in (
        (("--box", 26, 400, 31, 80), "reaches beyond the frame of 160 x 120"),
        (("--out", video), "is the input"),
        (("--out", tmp_path / "o.avi"), "must end in .mp4"),
        (("--box", 26, 98, 31, 80, "--weights", tmp_path / "nothing.pth"), "is no file"),
        (("--smoothing", "off", "--pads", -1, 0, 0, 0), "--pads must be"),
    ):
        assert call(monkeypatch, *flags, *more) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(WeightsMissingError, match="s3fd-619a316812.pth"):
        load_painter(LipSyncConfig(), None, "s3fd", torch.device("cpu"))


def test_help_explains(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--help") == 0
    told = " ".join(capsys.readouterr().out.split())
    for word in ("wav2lip_gan.pth", "prepare.sh", "--longest-gap-s", "--ending reference", "chin must be inside"):
        assert word in told
