"""The command that lets a head speak."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_fit import TINY, trainer

from cuda_ext import diff_gaussian_rasterization as drop_in
from gaussian_head.data.layout import SPEECH_HZ, SubjectLayout
from gaussian_head.data.subject import Subject
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.geometry.coefficients import FaceCoefficients
from gaussian_head.geometry.landmarks import mouth_aperture
from gaussian_head.media.audio import load_audio, write_wav
from gaussian_head.media.image import read_rgb, read_rgba, write_png
from gaussian_head.media.mat import write_deep3d
from gaussian_head.media.video import VideoWriter, probe_video, read_frames
from gaussian_head.networks.wav2lip import Wav2Lip
from gaussian_head.oneshot.wav2lip.lip_sync import LipPainter, LipSyncConfig
from gaussian_head.synthesize import main
from gaussian_head.training.torso_fit import fit_torso

Call = Callable[..., int]


@pytest.fixture
def call(tiny_subject: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run the command with more flags; return its exit status."""

    def run(*flags: object, source: Path = tiny_subject) -> int:
        command = ["synthesize", "-S", source, "-M", tiny_run, *flags]
        monkeypatch.setattr(sys, "argv", [str(part) for part in command])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code

    return run


def last_line(capsys: pytest.CaptureFixture[str]) -> Path:
    return Path(capsys.readouterr().out.splitlines()[-1])


def frames_of(video: Path) -> list[np.ndarray]:
    return [rgb for _, rgb in read_frames(video)]


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    length = min(len(a), len(b))
    return float(np.corrcoef(a[:length], b[:length])[0, 1])


def test_val_is_the_default_and_has_its_own_sound(
    call: Call, tiny_subject: Path, tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call() == 0
    out = last_line(capsys)
    assert out == tiny_run / "val.mp4"
    assert len(frames_of(out)) == 8
    speech = load_audio(SubjectLayout(tiny_subject).speech)
    assert similarity(load_audio(out), speech[80 * 640 : 88 * 640]) > 0.95
    assert json.loads((tiny_run / "timing.json").read_text())["synthesize"] > 0


def test_rendered_val_looks_like_the_person(call: Call, tiny_subject: Path, tiny_run: Path) -> None:
    assert call("--eval") == 0
    truth = read_rgb(SubjectLayout(tiny_subject).gt_image(84)).astype(float)
    frame = frames_of(tiny_run / "val.mp4")[4].astype(float)
    assert np.sqrt(np.mean((frame - truth) ** 2)) < 45


def test_train_split_at_another_size(call: Call, tmp_path: Path) -> None:
    assert call("--use_train", "--size", 48, "--out", tmp_path / "t.mp4") == 0
    info = probe_video(tmp_path / "t.mp4")
    assert (info.width, info.height, info.has_audio) == (48, 48, True)
    assert len(frames_of(tmp_path / "t.mp4")) == 80


def test_new_sound_decides_the_length(call: Call, tiny_run: Path, tiny_subject: Path, tmp_path: Path) -> None:
    speech = load_audio(SubjectLayout(tiny_subject).speech)[: 2 * SPEECH_HZ]
    write_wav(tmp_path / "hello.wav", speech, SPEECH_HZ)
    assert call("--audio", tmp_path / "hello.wav") == 0
    assert len(frames_of(tiny_run / "hello.mp4")) == 50
    assert similarity(load_audio(tiny_run / "hello.mp4"), speech) > 0.95


@pytest.mark.parametrize("form", ["stereo 48 kHz", "float64", "mp3", "clipped", "silent"])
def test_sound_of_any_form(
    call: Call, tiny_run: Path, tiny_subject: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    import soundfile

    speech = load_audio(SubjectLayout(tiny_subject).speech)[: SPEECH_HZ // 2]
    path = tmp_path / "x.wav"
    if form == "stereo 48 kHz":
        soundfile.write(path, np.repeat(np.stack([speech, 0 * speech], 1), 3, axis=0), 48_000)
    elif form == "float64":
        soundfile.write(path, speech.astype(np.float64), SPEECH_HZ, subtype="DOUBLE")
    elif form == "mp3":
        path = tmp_path / "x.mp3"
        soundfile.write(path, speech, SPEECH_HZ)
    else:
        write_wav(path, speech * (100 if form == "clipped" else 0), SPEECH_HZ)
    assert call("--audio", path) == 0
    frames = len(frames_of(tiny_run / "x.mp4"))
    assert 13 <= frames <= (16 if form == "mp3" else 13)  # mp3 pads its ends
    assert len(load_audio(tiny_run / "x.mp4")) == pytest.approx(frames * 640, abs=1024)


def test_how_the_head_is_held_and_the_seed(call: Call, tiny_run: Path, tiny_subject: Path, tmp_path: Path) -> None:
    write_wav(tmp_path / "x.wav", load_audio(SubjectLayout(tiny_subject).speech)[:SPEECH_HZ], SPEECH_HZ)
    poses = json.loads(SubjectLayout(tiny_subject).transforms("train").read_text())["frames"][:5]
    (tmp_path / "track.json").write_text(json.dumps([frame["transform_matrix"] for frame in poses]))
    ways = (["still"], ["walk", "--seed", 5, "--blink-rate", 60, "--gaze", "camera"], [tmp_path / "track.json"])
    clips = []
    for flags in ways:
        assert call("--audio", tmp_path / "x.wav", "--pose", *flags) == 0
        clips.append(np.stack(frames_of(tiny_run / "x.mp4")).astype(float))
    assert all(len(clip) == 25 for clip in clips)
    forehead = (slice(None), slice(14, 26), slice(26, 38))  # moved by nothing but the pose
    still, walked = (clip[forehead].std(0).mean() for clip in clips[:2])
    assert still < walked


def test_the_torso_of_the_model(
    call: Call, tiny_run: Path, tiny_subject: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--torso", "model") == 2
    assert "gaussian_head.train torso" in capsys.readouterr().err
    write_wav(tmp_path / "x.wav", load_audio(SubjectLayout(tiny_subject).speech)[: SPEECH_HZ // 4], SPEECH_HZ)
    pose = np.array(json.loads(SubjectLayout(tiny_subject).transforms("train").read_text())["frames"][0][
        "transform_matrix"])  # fmt: skip
    pose[1, 3] -= 0.06  # the camera goes down: the head rises
    (tmp_path / "track.json").write_text(json.dumps([pose.tolist()]))
    spoken = ("--audio", tmp_path / "x.wav", "--alpha", "--pose", tmp_path / "track.json")

    def coverage(*flags: str) -> np.ndarray:
        assert call(*spoken, *flags, "--out", tmp_path / "out") == 0
        return read_rgba(tmp_path / "out" / "3.png")[..., 3]

    footage = coverage()  # without a torso of the model's
    fit_torso(Subject(tiny_subject, TINY.size), tiny_run, TINY, "tiny", trainer(tiny_run))
    assert np.array_equal(coverage("--torso", "footage"), footage)
    model = coverage()
    assert np.array_equal(coverage("--torso", "model"), model)
    assert model[42:50, 28:37].min() > 200  # between the risen chin and the shirt
    assert footage[42:50, 28:37].min() < 50


def test_feature_array_without_sound_beside_it(call: Call, tiny_run: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((12, 16, 80), np.float32))
    assert call("--audio", tmp_path / "x.npy") == 0
    assert len(frames_of(tiny_run / "x.mp4")) == 12
    assert not probe_video(tiny_run / "x.mp4").has_audio


def test_transparent_pictures(call: Call, tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--alpha") == 0
    folder = last_line(capsys)
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{k}.png" for k in range(8))
    image = read_rgba(folder / "3.png")
    assert image[0, 0, 3] == 0
    assert image[32, 32, 3] == 255
    assert call("--alpha") == 0  # again, in place of the earlier
    assert not list(tiny_run.glob(".*"))


def test_another_background(call: Call, tiny_run: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "green.png", np.full((30, 50, 3), (0, 200, 0), np.uint8))
    assert call("--background", tmp_path / "green.png") == 0
    corner = frames_of(tiny_run / "val.mp4")[0][2, 2].astype(int)
    assert corner[1] > 170
    assert max(corner[0], corner[2]) < 40


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--eval", "--use_train"], "two splits"),
        (["--alpha", "--background", "x.png"], "give one"),
        (["--audio", "nowhere.wav"], "nowhere.wav does not exist"),
        (["--audio", "nowhere.npy"], "nowhere.npy does not exist"),
        (["--background", "nowhere.png"], "nowhere.png is missing"),
        (["--out", "clip.gif"], "must end in .mp4"),
        (["--size", "3"], "--size must be"),
        (["--pose", "still"], "--pose: only a head that speaks"),
        (["--audio", "x.wav", "--pose", "dance"], "--pose must be walk, still, or a file"),
        (["--audio", "x.wav", "--pose", "nowhere.json"], "nowhere.json does not exist"),
        (["--audio", "x.wav", "--blink-rate", "61"], "--blink-rate must be 0..60"),
        (["--audio", "x.wav", "--mouth-gain", "-1"], "--mouth-gain must be 0..3"),
        (["--audio", "x.wav", "--seed", "-1"], "--seed must be 0 or more"),
        (["--drive", "nowhere.mp4"], "nowhere.mp4 does not exist"),
        (["--drive", "x.mp4", "--audio", "x.wav"], "--drive gives motion and sound of its own"),
        (["--drive", "x.mp4", "--eval"], "--drive gives motion and sound of its own"),
        (["--drive", "x.mp4", "--use_train"], "--drive gives motion and sound of its own"),
        (["--drive-pose", "own"], "--drive-pose says how another person"),
        (["--drive", "x.mp4", "--drive-fps", "30"], "--drive-fps is the rate of coefficients"),
        (["--drive", "x.mat", "--drive-fps", "0"], "--drive-fps must be 1..1000, got 0"),
        (["--drive", "nowhere.mat"], "nowhere.mat is missing"),
    ],
)
def test_bad_input_is_one_line(call: Call, capsys: pytest.CaptureFixture[str], flags: list[str], told: str) -> None:
    assert call(*flags) == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("pose", ["transfer", "own"])
def test_another_person_moves_the_head(
    call: Call, tiny_subject: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], pose: str
) -> None:
    subject = Subject(tiny_subject, 64)
    driver = DrivingSequence.from_subject(subject, list(range(30, 52)))
    driver.with_landmarks(driver.landmarks * torch.tensor([0.9, 1.1, 1.0])).save(tmp_path / "other.safetensors")
    speech = load_audio(SubjectLayout(tiny_subject).speech)[30 * 640 : 52 * 640]
    write_wav(tmp_path / "other.wav", speech, SPEECH_HZ)
    assert call("--drive", tmp_path / "other.safetensors", "--drive-pose", pose) == 0
    out = last_line(capsys)
    assert out == tiny_run / "driven_by_other.mp4"
    frames = frames_of(out)
    assert len(frames) == 22
    assert similarity(load_audio(out), speech) > 0.95
    darkness = [255 - float(frame[38:46, 26:38].mean()) for frame in frames]
    assert np.corrcoef(darkness, mouth_aperture(driver.landmarks.numpy()))[0, 1] > 0.7


def test_a_subject_folder_may_drive(call: Call, tiny_subject: Path, tiny_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "somebody.else"
    shutil.copytree(tiny_subject, other)
    assert call("--drive", other, "--alpha") == 0
    assert len(list((tiny_run / "driven_by_somebody.else_rgba").glob("*.png"))) == 88


def test_coefficients_may_drive(
    call: Call, tiny_subject: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("GAUSSIAN_HEAD_CHECKPOINTS", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data" / "tiny"
    shutil.copytree(tiny_subject, folder)
    opening = mouth_aperture(Subject(folder, 64).landmarks.numpy())

    def of(opening_m: np.ndarray) -> FaceCoefficients:
        vector = np.zeros((len(opening_m), 257), np.float32)
        vector[:, 90:93] = 100 * opening_m[:, None] + (0.3, -0.2, 0.1)
        return FaceCoefficients.from_vector(vector, np.ones((len(opening_m), 3), np.float32))

    write_deep3d(tmp_path / "speech.mat", *of(opening[20:50]).deep3d())
    assert call("--drive", tmp_path / "speech.mat", source=folder) == 2
    assert "data_utils.coefficients" in capsys.readouterr().err
    write_deep3d(SubjectLayout(folder).coefficients, *of(opening).deep3d())
    speech = load_audio(SubjectLayout(folder).speech)[20 * 640 : 45 * 640]
    write_wav(tmp_path / "speech.wav", speech, SPEECH_HZ)
    assert call("--drive", tmp_path / "speech.mat", "--drive-fps", "30", source=folder) == 0
    out = last_line(capsys)
    assert out == tiny_run / "driven_by_speech.mp4"
    frames = frames_of(out)
    assert len(frames) == 25
    assert similarity(load_audio(out), speech) > 0.95
    darkness = [255 - float(frame[38:46, 26:38].mean()) for frame in frames]
    wanted = np.interp(np.arange(25) * 30 / 25, np.arange(30), opening[20:50])
    assert np.corrcoef(darkness, wanted)[0, 1] > 0.7


def test_a_drive_video_without_a_face(call: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mediapipe")
    with VideoWriter(tmp_path / "wall.mp4", 25, 96, 64) as writer:
        for _ in range(52):
            writer.write(np.full((64, 96, 3), 120, np.uint8))
    assert call("--drive", tmp_path / "wall.mp4") == 2
    error = capfd.readouterr().err
    assert "wall.mp4: no face found" in error
    assert len(error.strip().splitlines()) == 1


def test_features_of_another_width(call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", np.zeros((12, 16, 29), np.float32))
    assert call("--audio", tmp_path / "x.npy") == 2
    assert "[frames, 16, 80]" in capsys.readouterr().err


def test_a_damaged_subject_leaves_the_earlier_clip(
    call: Call, tiny_subject: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call() == 0
    before = (tiny_run / "val.mp4").read_bytes()
    damaged = tmp_path / "tiny"
    shutil.copytree(tiny_subject, damaged)
    SubjectLayout(damaged).torso_image(84).write_bytes(b"")
    assert call(source=damaged) == 2
    assert "84.png" in capsys.readouterr().err
    assert (tiny_run / "val.mp4").read_bytes() == before
    assert not list(tiny_run.glob(".*"))


def test_a_run_that_is_not_finished(call: Call, tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(tiny_run / "fuse")
    assert call() == 2
    assert "continue the training" in capsys.readouterr().err


def test_another_rasterizer_gives_the_same_pictures(
    call: Call, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, drop_in.NAME, None)
    flags = ("--alpha", "--rasterizer", "diff-gaussian-rasterization", "--out", tmp_path / "theirs")
    assert call(*flags) == 2
    assert "install it" in capsys.readouterr().err
    drop_in.install(replace=True)
    assert call(*flags) == 0
    assert call("--alpha", "--out", tmp_path / "ours") == 0
    for k in range(8):
        ours, theirs = (read_rgba(tmp_path / name / f"{k}.png").astype(int) for name in ("ours", "theirs"))
        assert np.abs(ours - theirs).max() <= 1


def test_refined_by_wav2lip(
    call: Call, tiny_subject: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class White(Wav2Lip):
        def forward(self, speech: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
            assert speech.shape == (8, 1, 80, 16)
            return torch.ones_like(faces[:, :3])

    def painter(config: LipSyncConfig, *_: object) -> LipPainter:
        return LipPainter(White(width=1), lambda pictures: [np.array([[16.0, 8, 48, 48]])] * len(pictures), config)

    assert call("--out", tmp_path / "plain.mp4") == 0
    with monkeypatch.context() as patch:
        patch.setattr("gaussian_head.synthesize.load_painter", painter)
        assert call("--refine", "wav2lip", "--out", tmp_path / "refined.mp4") == 0
        assert call("--refine", "wav2lip", "--alpha") == 2
        assert "--refine draws into whole pictures" in capsys.readouterr().err
    plain, refined = (np.stack(frames_of(tmp_path / f"{name}.mp4")).astype(int) for name in ("plain", "refined"))
    assert plain.shape == refined.shape
    assert refined[:, 44, 32].min() > 230
    assert np.abs(refined - plain)[:, :20].mean() < 2
    monkeypatch.setenv("GAUSSIAN_HEAD_CHECKPOINTS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("gaussian_head.synthesize.load_trained", lambda _: pytest.fail("weights are looked for first"))
    assert call("--refine", "wav2lip") == 2
    told = capsys.readouterr().err
    assert "wav2lip_gan.pth" in told
    assert "scripts/prepare.sh" in told
