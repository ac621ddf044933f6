"""Training data from videos to windows, and the three trainings on a few drawn clips."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_talker import draw_person, find_skin, speech_of, write_person
from torch.utils.tensorboard import SummaryWriter

from gaussian_head.errors import UserError
from gaussian_head.media.audio import load_audio, write_wav
from gaussian_head.media.files import write_bytes
from gaussian_head.media.image import read_rgb, write_jpeg
from gaussian_head.media.time_bases import SPEECH_HZ
from gaussian_head.media.wav2lip_mel import wav2lip_mel
from gaussian_head.networks.wav2lip import Wav2Lip
from gaussian_head.networks.wav2lip_expert import SyncExpert, agreement, sync_loss
from gaussian_head.networks.wav2lip_quality import QualityDiscriminator
from gaussian_head.oneshot.fitting import FitConfig, fit, load_trained
from gaussian_head.oneshot.wav2lip import prepare as preparing
from gaussian_head.oneshot.wav2lip.clips import TrainingClips, find_clips
from gaussian_head.oneshot.wav2lip.prepare import PrepareOptions, main, prepare
from gaussian_head.oneshot.wav2lip.training import (
    ExpertConfig,
    ExpertTask,
    LipsConfig,
    LipsGanConfig,
    LipsGanTask,
    LipsTask,
)  # fmt: skip
from gaussian_head.progress import track

FRAMES = 48


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips of faces whose mouths open with the sound; the second lacks frame 20."""
    root = tmp_path_factory.mktemp("clips")
    for clip in range(3):
        folder = root / "speaker" / f"{clip}"
        opened = np.random.default_rng(clip).choice([0.0, 0.5, 1.0], FRAMES // 3).repeat(3)  # no two moments are alike
        for k in range(FRAMES):
            if (clip, k) != (1, 20):
                write_jpeg(folder / f"{k}.jpg", draw_person(0, opened[k])[26:90, 31:79])
        write_wav(folder / "audio.wav", speech_of(FRAMES, 25, opened), SPEECH_HZ)
    write_wav(root / ".killed.1" / "audio.wav", speech_of(5, 25), SPEECH_HZ)
    return root


def test_clips_are_found_and_one_is_kept_for_judging(clips: Path, tmp_path: Path) -> None:
    learned, judged = find_clips(clips)
    assert [folder.name for folder in learned] == ["1", "2"]
    assert [folder.name for folder in judged] == ["0"]
    with pytest.raises(UserError, match=r"no clips of 16 faces.*wav2lip.prepare"):
        find_clips(tmp_path)


def test_windows_are_of_one_moment_and_cross_no_hole(clips: Path) -> None:
    folder = find_clips(clips)[0][0]
    data = TrainingClips([folder])
    mel = wav2lip_mel(load_audio(folder / "audio.wav"), padding="reflect")
    stills = np.stack([
        read_rgb(folder / f"{k}.jpg").astype(float).mean() if k != 20 else np.nan for k in range(FRAMES)
    ])  # fmt: skip
    starts = []
    batch = data.lips_batch(np.random.default_rng(1), 14)
    for heard, speech, faces, truth in zip(batch.heard, batch.speech, batch.faces, batch.truth, strict=True):
        (start,) = [k for k in range(FRAMES) if np.array_equal(mel[int(80 * k / 25) :][:16].T, speech[0].numpy())]
        starts.append(start)
        for j in range(5):
            first = int(80 * (start + j) / 25)
            np.testing.assert_array_equal(heard[j, 0], mel[first : first + 16].T)
        assert not {20} & set(range(start, start + 5))
        seen = 255 * truth.mean((0, 2, 3)).numpy()
        np.testing.assert_allclose(seen, stills[start : start + 5], atol=1.0)
        assert not faces[:3, :, 48:].any()
        assert torch.equal(faces[:3, :, :48], truth[:, :, :48])
        assert not torch.equal(faces[3:], truth)
    assert len(set(starts)) > 7
    early = TrainingClips([folder], offset_frames=-1).lips_batch(np.random.default_rng(1), 8)
    for heard in early.heard:
        assert any(np.array_equal(mel[int(80 * k / 25) :][:16].T, heard[1, 0].numpy()) for k in range(FRAMES))


def test_half_of_the_experts_windows_do_not_belong_together(clips: Path) -> None:
    data = TrainingClips(find_clips(clips)[0])
    batch = data.expert_batch(np.random.default_rng(0), 60)
    assert 18 < batch.together.sum() < 42
    again = data.expert_batch(np.random.default_rng(0), 60)
    assert torch.equal(batch.clips, again.clips)
    assert torch.equal(batch.speech, again.speech)


def expert_task(clips: Path, **options: object) -> ExpertTask:
    torch.manual_seed(0)
    config = ExpertConfig(data=clips, batch_size=8, judged_batches=2, device="cpu", learning_rate=3e-3, **options)
    return ExpertTask(config, SyncExpert(width=4))


def run(task: ExpertTask | LipsTask, steps: int, first: int = 0) -> dict[str, list[float]]:
    """Train without the loop; return the losses by name."""

    def update(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    found: dict[str, list[float]] = {}
    for step in range(first, first + steps):
        for name, value in task.step(task.batch(step, 0), step, update).items():
            assert torch.isfinite(value), (name, step)
            found.setdefault(name, []).append(value.item())
    return found


def test_batches_depend_on_seed_rank_and_step_alone(clips: Path) -> None:
    task = expert_task(clips)
    first = task.batch(3, 0).clips
    assert torch.equal(first, expert_task(clips).batch(3, 0).clips)
    for other in (task.batch(3, 1), task.batch(4, 0), expert_task(clips, seed=1).batch(3, 0)):
        assert not torch.equal(first, other.clips)


def test_the_expert_learns(clips: Path) -> None:
    task = expert_task(clips)
    shown = TrainingClips(find_clips(clips)[0]).expert_batch(np.random.default_rng(7), 40)

    @torch.no_grad()
    def judge() -> tuple[float, float]:
        cosine = agreement(task.networks["expert"].train(), shown.speech, shown.clips)
        fits = shown.together > 0.5
        return sync_loss(cosine, shown.together).item(), (cosine[fits].mean() - cosine[~fits].mean()).item()

    before, _ = judge()
    run(task, 25)
    after, margin = judge()
    assert after < 0.85 * before
    assert after < 0.66  # knowing nothing, 0.69 is the best
    assert margin > 0.1


class Believer(SyncExpert):
    """An expert who finds that everything fits, and can be asked how often it was asked."""

    cosine = 1.0
    asked = 0

    def forward(self, speech: torch.Tensor, lips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked += 1
        direction = torch.full((len(lips), 4), 0.5) + 0 * lips.mean((1, 2, 3))[:, None]
        return direction, self.cosine * direction


def lips_options(clips: Path, **options: object) -> dict:
    given = {"batch_size": 1, "judged_batches": 1, "device": "cpu", "learning_rate": 1e-2, "judge_every": 4}
    return given | {"data": clips} | options


def test_the_generator_learns_and_then_listens_to_the_expert(clips: Path) -> None:
    torch.manual_seed(0)
    expert = Believer(width=1)
    expert.cosine = 0.3  # a loss of 1.2
    task = LipsTask(LipsConfig(**lips_options(clips)), Wav2Lip(width=2), expert)
    losses = run(task, 12)
    assert set(losses) == {"l1"}
    assert np.mean(losses["l1"][-3:]) < 0.8 * np.mean(losses["l1"][:2])
    expert.cosine = 0.5  # a loss of 0.69
    losses = run(task, 2, first=12)
    assert len(losses["sync"]) == 2
    np.testing.assert_allclose(losses["sync"], -np.log(0.5), rtol=1e-4)
    drawn, batch = torch.rand(1, 3, 5, 96, 96), task.batch(0, 0)
    total, parts = task._mixed(drawn, batch, {"more": (0.2, torch.tensor(3.0))})
    assert total.item() == pytest.approx(0.79 * parts["l1"].item() + 0.01 * parts["sync"].item() + 0.2 * 3, rel=1e-5)


def test_both_learn_in_the_gan_training_and_go_on_after_a_stop(clips: Path, tmp_path: Path) -> None:
    def task() -> LipsGanTask:
        torch.manual_seed(0)
        config = LipsGanConfig(**lips_options(clips, learning_rate=3e-4))
        assert (config.sync_weight, config.quality_weight) == (0.03, 0.07)
        return LipsGanTask(config, Wav2Lip(width=1), Believer(width=1), QualityDiscriminator(width=4))

    losses = run(task(), 8)
    assert set(losses) == {"l1", "quality", "sync", "discriminator_filmed", "discriminator_drawn"}
    assert np.mean(losses["l1"][-2:]) < 0.99 * np.mean(losses["l1"][:2])
    judged = np.add(losses["discriminator_filmed"], losses["discriminator_drawn"])
    assert judged[-2:].mean() < 0.95 * judged[0]
    for folder, stops in (("straight", [4]), ("stopped", [2, 4])):
        for steps in stops:
            fit(task(), tmp_path / folder, FitConfig(steps, log_every=1, show_every=4, save_every=2), track)
    for name in ("generator", "quality", "stage"):
        straight, stopped = (load_trained(tmp_path / folder, name) for folder in ("straight", "stopped"))
        assert all(torch.equal(straight[key], stopped[key]) for key in straight)
    assert load_trained(tmp_path / "straight", "stage")["expert_listens"]


def test_held_out_clips_are_judged_and_shown(clips: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    lips = LipsTask(LipsConfig(**lips_options(clips)), Wav2Lip(width=1), Believer(width=1))
    before = {name: value.clone() for name, value in lips.networks["generator"].state_dict().items()}
    with SummaryWriter(str(tmp_path)) as writer:
        lips.show(1, writer)
        expert_task(clips).show(1, writer)
    assert lips.judge()[1] == pytest.approx(0, abs=1e-5)
    assert all(torch.equal(before[name], value) for name, value in lips.networks["generator"].state_dict().items())
    assert next(tmp_path.glob("events*")).stat().st_size > 5_000


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda data: ExpertConfig(data=data, batch_size=0), "above 0"),
        (lambda data: LipsConfig(data=data, sync_weight=1.0), "--sync-weight"),
        (lambda data: LipsGanConfig(data=data, quality_weight=0.98), "--quality-weight"),
        (lambda data: LipsConfig(data=data, expert=data / "none.pth").build(), "is no file"),
        (lambda data: ExpertConfig(data=data / "empty", start=None, device="cpu").build(), "holds no clips"),
    ],
)
def test_impossible_options(clips: Path, make: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(clips)


def test_videos_become_clips_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture
) -> None:
    videos, out = tmp_path / "videos", tmp_path / "clips"
    (videos / "b").mkdir(parents=True)
    write_person(videos / "b" / "talk.mp4", 36, 30, hidden=(*range(8, 10), *range(24, 33)))
    write_person(videos / "wall.mp4", 20, 25, hidden=tuple(range(20)))
    write_bytes(videos / "broken.mp4", b"nothing")
    searched = 0

    def detect(pictures: list[np.ndarray]) -> list[np.ndarray]:
        nonlocal searched
        searched += len(pictures)
        return find_skin(pictures)

    monkeypatch.setattr(preparing, "choose_detector", lambda *_: detect)
    prepare(PrepareOptions(videos, out))
    assert capsys.readouterr().out.splitlines() == ["1 clips, 2 videos left out", str(out)]
    assert "wall.mp4: a face is seen in 0 frames, 16 are needed" in caplog.text
    assert "broken.mp4 is not a readable media file" in caplog.text
    folder = out / "b" / "talk"
    there = sorted(int(file.stem) for file in folder.glob("*.jpg"))
    assert there == [k for k in range(30) if k not in range(20, 28)] == sorted(there)  # at 25 frames a second
    assert json.loads((folder / "clip.json").read_text())["faces"] == len(there)
    face = read_rgb(folder / "12.jpg")
    assert np.abs(np.array(face.shape[:2]) - (65, 49)).max() <= 3
    np.testing.assert_allclose(len(load_audio(folder / "audio.wav")), 36 / 30 * SPEECH_HZ, atol=1200)
    assert not (out / "wall").exists()
    made, searched = (folder / "0.jpg").stat().st_mtime_ns, 0
    prepare(PrepareOptions(videos / "b", out / "b"))
    assert (searched, (folder / "0.jpg").stat().st_mtime_ns) == (0, made)
    (folder / "clip.json").unlink()  # as if the folder had come from elsewhere
    prepare(PrepareOptions(videos / "b", out / "b"))
    assert searched == 30
    monkeypatch.setattr(sys, "argv", ["prepare", str(videos / "wall.mp4"), str(out)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "not one of the 1 videos" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="does not exist"):
        prepare(PrepareOptions(tmp_path / "nowhere", out))
    with pytest.raises(UserError, match="holds no videos"):
        prepare(PrepareOptions(out, out))
