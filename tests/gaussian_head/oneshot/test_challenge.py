"""The six steps hand files over, come out right, go on where they were stopped, and name what fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from challenge_stand_ins import POINTS, SIDE, SMEAR, Workers, brow_at, get, loudness, portrait, turn_at
from numpy import ndarray

from gaussian_head.errors import UserError
from gaussian_head.geometry.coefficients import FaceCoefficients
from gaussian_head.media.audio import load_audio, write_wav
from gaussian_head.media.image import read_rgb, write_png
from gaussian_head.media.mat import read_deep3d
from gaussian_head.media.video import VideoWriter, probe_video, read_frames
from gaussian_head.networks.challenge_expression import ChallengeExpression
from gaussian_head.networks.challenge_pose import ChallengePose
from gaussian_head.oneshot.audio2coeff.challenge import ChallengeMotion
from gaussian_head.oneshot.challenge.keypoints import read_keypoints
from gaussian_head.oneshot.challenge.layout import find_clips
from gaussian_head.oneshot.challenge.pipeline import run_challenge

ROOT = Path(__file__).resolve().parents[3]
LENGTHS = {"aaa": 1.0, "b.b": 0.52, "ccc": 0.7}
"""Seconds; 0.52 s are 15 frames and a part of one."""
OPTIONS = {"renderer": "stand-in"}


def sound(seconds: float, seed: int) -> ndarray:
    rng = np.random.default_rng(seed)
    swell = 0.5 + 0.4 * np.sin(np.arange(round(seconds * 16_000)) / 2500)
    return swell * rng.uniform(-1, 1, len(swell))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for k, (uuid, seconds) in enumerate(LENGTHS.items()):
        write_wav(tmp_path / f"data/audios/{uuid}.wav", sound(seconds, k), 16_000)
        write_png(tmp_path / f"data/first_frames/{uuid}.speaker.png", portrait(lips=0.1 * k))
    return tmp_path / "data"


@pytest.fixture
def workers(tmp_path: Path) -> Workers:
    made = Workers(tmp_path / "weights")
    made.folder.mkdir()
    for name in made.calls():
        (made.folder / f"{name}.weights").touch()
    return made


def silent(items, total: int, label: str):  # noqa: ANN201
    yield from items


def run(data: Path, workers: Workers, only: int | None = None, method: int = 2) -> list[Path]:
    return run_challenge(data, data.parent / "out", workers, method, only, silent, OPTIONS)


def coefficients(path: Path) -> FaceCoefficients:
    return FaceCoefficients.from_deep3d(*read_deep3d(path))


def tree(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file()}


def test_six_steps_give_the_lips_of_step_4_and_the_head_of_step_5_on_the_original_picture(data, workers):
    made = run(data, workers)
    out = data.parent / "out"
    assert made == [out / f"submissions/method2/{uuid}.speaker.mp4" for uuid in LENGTHS]
    for uuid, seconds in LENGTHS.items():
        name, count = f"{uuid}.speaker", int(seconds * 30)
        first = coefficients(out / f"recons/first_frames/{name}.mat")
        lipped = coefficients(out / f"recons/wav2lip_gan/{name}.mat")
        result = coefficients(out / f"recons/method2/{name}.mat")
        assert len(lipped) == len(result) == count
        speech = load_audio(data / f"audios/{uuid}.wav")
        frames = np.arange(count)
        np.testing.assert_allclose(result.expression[:, 0], loudness(speech, count), atol=0.04)
        np.testing.assert_allclose(result.expression[:, 1], brow_at(frames), atol=0.04)
        np.testing.assert_array_equal(result.expression, lipped.expression)
        np.testing.assert_allclose(result.angles[:, 1], first.angles[0, 1] + turn_at(frames), atol=1e-5)
        np.testing.assert_array_equal(result.translation, np.repeat(first.translation, count, 0))
        np.testing.assert_array_equal(result.crop, np.repeat(first.crop, count, 0))
        info = probe_video(out / f"submissions/method2/{name}.mp4")
        assert (info.fps, info.frames, info.width, info.has_audio) == (30, count, SIDE, True)
        for k, (time_s, picture) in enumerate(read_frames(out / f"submissions/method2/{name}.mp4")):
            assert time_s == pytest.approx(k / 30)
            assert get(picture, "lips") == pytest.approx(loudness(speech, count)[k], abs=0.04)
            assert get(picture, "yaw") == pytest.approx(first.angles[0, 1] + turn_at(k), abs=0.04)
            assert picture[SMEAR].min() > 100, "Wav2Lip's pictures themselves are not in the result"
        heard = load_audio(out / f"submissions/method2/{name}.mp4")
        assert abs(len(heard) - count * 16_000 / 30) < 1500
        assert np.corrcoef(heard[2000:8000], speech[2000:8000])[0, 1] > 0.9


def test_files_are_handed_over_in_the_challenge_layout(data, workers):
    run(data, workers)
    out, count = data.parent / "out", 30
    numbers = (out / "keypoints/first_frames/aaa.speaker.txt").read_text().split("\n")
    assert [float(number) for number in numbers[:136]] == pytest.approx(POINTS.reshape(-1))
    assert numbers[136:] == [""]
    found = read_keypoints(out / "keypoints/wav2lip_gan/aaa.speaker.txt")
    assert [k for k, points in enumerate(found) if points is None] == [workers.lips.lost]
    text = (out / "keypoints/wav2lip_gan/aaa.speaker.txt").read_text().split("\n")
    assert text[136 * workers.lips.lost : 136 * (workers.lips.lost + 1)] == ["-1"] * 136
    for stage, frames in (("first_frames", 1), ("audio", count), ("wav2lip_gan", count), ("method2", count)):
        coeff, transforms = read_deep3d(out / f"recons/{stage}/aaa.speaker.mat")
        assert (coeff.shape, transforms.shape) == ((frames, 257), (frames, 5))
        assert (transforms[:, :2] == SIDE).all()
    still = coefficients(out / "recons/audio/aaa.speaker.mat")
    assert np.ptp(still.motion(crop=True)[:, 64:], axis=0).max() == 0, "in step 2 the head stays"
    for stage in ("audio", "wav2lip_gan", "method2"):
        info = probe_video(out / f"videos/{stage}/aaa.speaker.mp4")
        assert (info.fps, info.frames, info.has_audio) == (30, count, False)


def test_what_is_up_to_date_is_skipped(data, workers):
    run(data, workers)
    before, calls = tree(data.parent / "out"), workers.calls()
    assert set(calls.values()) == {3, 6}
    run(data, workers)
    assert tree(data.parent / "out") == before
    assert workers.calls() == calls


@pytest.mark.parametrize("damage", ["cut", "gone", "short", "text"])
def test_what_is_broken_is_made_again_for_that_clip_alone(data, workers, damage):
    run(data, workers)
    out = data.parent / "out"
    before = tree(out)
    path = out / "videos/wav2lip_gan/b.b.speaker.mp4"
    redone = {"videos/wav2lip_gan", "keypoints/wav2lip_gan", "recons/wav2lip_gan", "videos/method2", "recons/method2",
              "submissions/method2"}  # fmt: skip
    if damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    elif damage == "gone":
        path.unlink()
    elif damage == "short":
        with VideoWriter(path, 30, SIDE, SIDE) as writer:
            writer.write(portrait())
    else:
        redone.remove("videos/wav2lip_gan")
        (out / "keypoints/wav2lip_gan/b.b.speaker.txt").write_text("1\n2\n")
    calls = workers.calls()
    run(data, workers)
    after = tree(out)
    assert after.keys() == before.keys()
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {f"{folder}/b.b.speaker.{suffix(folder)}" for folder in redone}
    assert workers.calls()["lips"] == calls["lips"] + (damage != "text")
    assert workers.calls()["expression"] == calls["expression"]
    assert probe_video(path).frames == 15


def suffix(folder: str) -> str:
    return {"keypoints": "txt", "recons": "mat"}.get(folder.split("/")[0], "mp4")


def test_newer_inputs_and_weights_are_seen(data, workers):
    run(data, workers)
    out = data.parent / "out"
    before = tree(out)
    write_wav(data / "audios/aaa.wav", sound(1.3, 9), 16_000)
    run(data, workers)
    after = tree(out)
    changed = {name for name in after if after[name] != before[name]}
    assert {name for name in changed if "aaa" not in name} == set()
    assert not any("first_frames" in name for name in changed)
    assert probe_video(out / "submissions/method2/aaa.speaker.mp4").frames == 39
    os.utime(workers.folder / "pose.weights")
    calls = workers.calls()
    run(data, workers)
    assert workers.calls()["pose"] == calls["pose"] + 3
    assert workers.calls()["lips"] == calls["lips"]


def test_steps_run_alone(data, workers):
    with pytest.raises(UserError, match=r"2, aaa\.speaker: .*first_frames/aaa\.speaker\.png is missing; .*--step 1"):
        run(data, workers, only=2)
    for number in range(1, 7):
        made = run(data, workers, only=number)
        assert all(path.is_file() for path in made)
    assert [path.parent.name for path in made] == ["method2"] * 3
    with pytest.raises(UserError, match="method 1 has the steps 1, 2, 5, 6, got --step 3"):
        run(data, workers, only=3, method=1)


def test_method_1_renders_the_expression_networks_lips(data, workers):
    run(data, workers, method=1)
    out = data.parent / "out"
    assert workers.calls()["lips"] == 0
    assert not (out / "videos/audio").exists()
    result = coefficients(out / "recons/method1/ccc.speaker.mat")
    assert np.abs(result.expression[:, 0]).max() < 1e-6
    np.testing.assert_allclose(result.expression[:, 1], brow_at(np.arange(21)), atol=1e-6)
    assert np.ptp(result.angles[:, 1]) > 0.2
    first = tree(out)
    run(data, workers, method=2)
    assert {name: first[name] for name in first if "method1" in name or "first_frames" in name}.items() <= tree(
        out
    ).items(), "one method does not undo the other's work"


def test_a_clip_that_fails_is_named_and_the_others_are_done(data, workers):
    write_png(data / "first_frames/aaa.speaker.png", portrait(face=False))
    (data / "audios/ddd.wav").write_bytes(b"no sound at all")
    write_png(data / "first_frames/ddd.speaker.png", portrait())
    (data / "first_frames/b.b.speaker.png").unlink()
    with pytest.raises(UserError) as caught:
        run(data, workers)
    message = str(caught.value)
    assert message.startswith("3 of 4 clips failed: ")
    for part in (
        "step 1, aaa.speaker: no face found in",
        "step 1, b.b.speaker:",
        "first_frames/b.b.speaker.png is missing; put it there",
        "step 2, ddd.speaker:",
        "audios/ddd.wav",
    ):
        assert part in message
    assert "\n" not in message
    out = data.parent / "out"
    assert (out / "keypoints/first_frames/aaa.speaker.txt").read_text() == "-1\n" * 136
    assert [path.name for path in (out / "submissions/method2").iterdir()] == ["ccc.speaker.mp4"]
    write_png(data / "first_frames/aaa.speaker.png", portrait())
    with pytest.raises(UserError, match="2 of 4 clips failed"):
        run(data, workers)
    assert (out / "submissions/method2/aaa.speaker.mp4").is_file()


def test_a_table_chooses_the_clips_and_a_video_gives_the_first_frame(data, workers):
    (data / "data.csv").write_text("video_id,uuid,speaker_id\nx,ccc,1\ny,aaa,2\n")
    (data / "first_frames/ccc.speaker.png").unlink()
    with VideoWriter(data / "videos/ccc.speaker.mp4", 30, 80, SIDE, crf=1) as writer:
        for yaw in (-0.2, 0.5):
            writer.write(np.pad(portrait(yaw=yaw), ((0, 0), (8, 8), (0, 0)), mode="edge"))
    assert [clip.uuid for clip in find_clips(data)] == ["aaa", "ccc"]
    run(data, workers, only=1)
    square = read_rgb(data.parent / "out/first_frames/ccc.speaker.png")
    assert square.shape == (SIDE, SIDE, 3)
    assert square[0, SIDE // 2] == pytest.approx(np.array([200, 150, 120]), abs=6)
    (data / "data.csv").write_text("video_id\nx\n")
    with pytest.raises(UserError, match=r"data\.csv must have a column uuid"):
        find_clips(data)
    (data / "data.csv").write_text("uuid\n../../x\n")
    with pytest.raises(UserError, match=r"must be the name of a file"):
        find_clips(data)


def test_other_options_are_not_mixed(data, workers):
    run(data, workers, only=1)
    assert json.loads((data.parent / "out/options.json").read_text()) == OPTIONS
    with pytest.raises(UserError, match=r"was made with.*another OUT"):
        run_challenge(data, data.parent / "out", workers, 2, 1, silent, {"renderer": "another"})


def test_long_sound_is_without_jumps_where_blocks_meet(data, workers):
    torch.manual_seed(0)
    workers.expression = ChallengeMotion(ChallengeExpression(), None)
    workers.pose = ChallengeMotion(None, ChallengePose())
    (data / "data.csv").write_text("uuid\nlong\n")
    write_wav(data / "audios/long.wav", sound(8, 5), 16_000)
    write_png(data / "first_frames/long.speaker.png", portrait())
    run(data, workers, method=1)
    result = coefficients(data.parent / "out/recons/method1/long.speaker.mat")
    assert len(result) == 240
    for part in (result.expression, result.angles):
        steps = np.abs(np.diff(part, axis=0)).max(1)
        borders = np.zeros(len(steps), bool)
        for block in (60, 89, 90, 120, 150, 179, 180, 210):
            borders[block - 2 : block + 2] = True
        assert steps[borders].max() < 1.5 * steps[~borders][1:].max()
        assert steps[1:].max() < 0.5 * np.ptp(part, axis=0).max() + 1e-4


def command(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    empty = {"TORCH_HOME": "/nonexistent", "HF_HUB_CACHE": "/nonexistent", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "gaussian_head.oneshot.challenge", *map(str, words)],
        capture_output=True, text=True, check=False, env=os.environ | empty | environment, cwd=environment.get("PWD"),
    )  # fmt: skip


def test_missing_weights_are_named_before_any_work(data):
    out = data.parent / "out"
    result = command(data, out, PWD=str(data))
    assert result.returncode == 2
    line = result.stderr.strip().splitlines()[-1]
    names = ("epoch_20.pth", "transformer_Epoch", "lstm_Epoch", "SadTalker_V0.0.2_256", "wav2lip_gan.pth", "prepare.sh")
    assert line.startswith("error: ")
    assert [name for name in names if name not in line] == []
    assert not out.exists()
    assert command("--help").stdout.count("--step") == 1
