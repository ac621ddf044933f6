"""Each training learns from a folder of clips, goes on after a stop as if there had been none, and names bad files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from face_models import make_face_model
from safetensors.torch import load_file

from gaussian_head.errors import UserError
from gaussian_head.media.audio import write_wav
from gaussian_head.media.mat import write_deep3d, write_sadtalker
from gaussian_head.media.video import VideoWriter
from gaussian_head.networks.bfm import save_face_model
from gaussian_head.networks.sadtalker_expression import load_expression_network
from gaussian_head.oneshot.audio2coeff.data import Clips, Cut
from gaussian_head.oneshot.audio2coeff.landmarks import aperture
from gaussian_head.oneshot.audio2coeff.train_challenge import (
    ChallengeExpressionTrainingOptions,
    ChallengePoseTrainingOptions,
)
from gaussian_head.oneshot.audio2coeff.train_sadtalker_expression import ExpressionTrainingOptions
from gaussian_head.oneshot.audio2coeff.train_sadtalker_pose import PoseTrainingOptions
from gaussian_head.oneshot.fitting import FitConfig, _Update, fit

PASSED = Cut(25, 10)


def quiet(steps: Iterable[int], total: int, label: str, first: int = 0) -> Iterator[int]:
    yield from steps


def write_clip(path: Path, frames: int, fps: float = 25, seed: int = 0, seconds: float | None = None) -> None:
    """Write a sound whose loudness is what the expression follows, and coefficients."""
    rng = np.random.default_rng(seed)
    samples = round(16_000 * (frames / fps if seconds is None else seconds))
    loud = np.sin(np.arange(samples) / 16_000 * 5 + seed) ** 2
    write_wav(path.with_suffix(".wav"), 0.3 * loud * rng.standard_normal(samples), 16_000)
    times = np.arange(frames)[:, None] / fps
    rows = 0.1 * np.tile(rng.standard_normal((1, 257)), (frames, 1))
    rows[:, 80:144] += np.sin(times * 5 + seed) ** 2 * np.linspace(0, 2, 64)
    rows[:, 224:227] = 0.2 * np.sin(times + np.arange(3))
    rows[:, 254:] = 0.1 * np.cos(times + np.arange(3))
    transforms = np.tile([256, 256, 0.9, 128, 120], (frames, 1))
    write_deep3d(path.with_suffix(".mat"), rows, transforms)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two clips of five seconds."""
    folder = tmp_path / "data"
    for seed, name in enumerate(("one", "two")):
        write_clip(folder / name, 125, seed=seed)
    return folder


@pytest.fixture
def face_model(tmp_path: Path) -> Path:
    path = tmp_path / "face.safetensors"
    save_face_model(make_face_model(rings=8, identity=80, expression=64), path)
    return path


def train(options: Any, folder: Path, steps: int, **build: object) -> dict[str, list[float]]:  # noqa: ANN401
    """Train and return the losses of every step."""
    task = options.build(**build)
    seen: dict[str, list[float]] = {}
    inner = task.step

    def watched(batch: object, step: int, update: object) -> dict[str, torch.Tensor]:
        losses = inner(batch, step, update)
        for name, value in losses.items():
            seen.setdefault(name, []).append(value.item())
        return losses

    task.step = watched
    fit(task, folder, FitConfig(steps=steps, log_every=100, show_every=100, save_every=100), quiet)
    return seen


def expression(data: Path, **more: object) -> ExpressionTrainingOptions:
    return ExpressionTrainingOptions(data, frames=4, batch=2, learning_rate=1e-3, device="cpu", **more)


def pose(data: Path, **more: object) -> PoseTrainingOptions:
    return PoseTrainingOptions(data, batch=1, learning_rate=1e-3, device="cpu", **more)


def say(data: Path, **more: object) -> ChallengeExpressionTrainingOptions:
    return ChallengeExpressionTrainingOptions(data, batch=1, wav_fps=25.0, device="cpu", **more)


def turn(data: Path, **more: object) -> ChallengePoseTrainingOptions:
    return ChallengePoseTrainingOptions(data, batch=2, wav_fps=25.0, device="cpu", **more)


@pytest.mark.parametrize(
    ("make", "steps", "name", "factor"),
    [
        (expression, 10, "coefficients", 0.8),
        (pose, 5, "reconstruction", 0.8),
        (say, 6, "expression", 0.8),
        (turn, 40, "angles", 0.8),
    ],
)
def test_the_loss_falls(data: Path, tmp_path: Path, make: Any, steps: int, name: str, factor: float) -> None:  # noqa: ANN401
    losses = train(make(data), tmp_path / "run", steps)
    assert np.mean(losses[name][-3:]) < factor * losses[name][0]
    assert all(np.isfinite(values).all() for values in losses.values())
    assert (tmp_path / "run" / f"step_{steps:06d}").is_dir()


@pytest.mark.parametrize(("make", "name"), [(pose, "pose"), (turn, "network")])
def test_a_resumed_training_ends_alike(data: Path, tmp_path: Path, make: Any, name: str) -> None:  # noqa: ANN401
    train(make(data), tmp_path / "whole", 2)
    train(make(data), tmp_path / "stopped", 1)
    train(make(data), tmp_path / "stopped", 2)
    one, two = (load_file(tmp_path / run / "step_000002" / f"{name}.safetensors") for run in ("whole", "stopped"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_landmarks_and_eyes_are_learned_with_a_face_model(data: Path, face_model: Path, tmp_path: Path) -> None:
    def reading(found: torch.Tensor, batch: object) -> torch.Tensor:
        return (found - batch.expression).abs().mean()

    options = expression(data, face_model=face_model)
    losses = train(options, tmp_path / "run", 8, reading=reading)
    assert set(losses) == {"coefficients", "landmarks", "eyes", "reading", "total"}
    for name in ("landmarks", "reading"):
        assert np.mean(losses[name][-3:]) < 0.8 * losses[name][0], name
    alone = replace(options, blinks="drawn", coefficient_weight=0, landmark_weight=0).build()
    batch, update = alone.batch(0, 0), _Update("eyes")
    eyes = [alone.step(batch, step, update)["eyes"].item() for step in range(12)]
    assert eyes[-1] < 0.8 * eyes[0]
    measured = options.build().batch(0, 0)
    assert 0 <= measured.closed.min() < measured.closed.max() <= 1
    task = options.build()
    points = task._face.points(measured.identity, measured.expression)
    as_wanted = measured._replace(opened=2 * aperture(points), closed=torch.full_like(measured.closed, 0.5))
    perfect = task.losses(measured.expression, as_wanted)
    assert perfect["coefficients"] == perfect["landmarks"] == 0
    assert perfect["eyes"] < 1e-6
    drawn = replace(options, blinks="drawn").build()
    batch = drawn.batch(0, 0)
    assert batch.closed.std() > 0.2
    assert "reading" not in drawn.losses(batch.expression, batch)


def test_without_a_face_model_blinks_do_nothing(data: Path, tmp_path: Path) -> None:
    train(expression(data), tmp_path / "run", 2)
    found = load_expression_network(tmp_path / "run" / "step_000002" / "expression.safetensors")
    assert (found.mapping1.weight[:, -1] == 0).all()
    going_on = expression(data, start=tmp_path / "run" / "step_000002" / "expression.safetensors").build()
    assert all(torch.equal(a, b) for a, b in zip(going_on.network.parameters(), found.parameters(), strict=True))
    assert all(parameter.requires_grad for parameter in going_on.network.parameters())


def test_the_latents_spread_is_learned_unless_the_old_fault_is_wanted(data: Path) -> None:
    for own_spread in (True, False):
        task = pose(data, own_spread=own_spread).build()
        batch = task.batch(0, 0)
        mean, spread = task.network.encode(batch.motion, batch.first, batch.style, torch.zeros(1, 32, 512))
        assert torch.equal(mean, spread) != own_spread


def test_batches_depend_on_seed_rank_and_step_alone(data: Path) -> None:
    one, two = turn(data).build(), turn(data).build()
    assert torch.equal(one.batch(7, 1).mels, two.batch(7, 1).mels)
    others = [one.batch(8, 1), one.batch(7, 0), turn(data, seed=1).build().batch(7, 1)]
    assert not any(torch.equal(one.batch(7, 1).mels, other.mels) for other in others)


def test_a_window_is_cut_at_one_moment(data: Path) -> None:
    """Sound and coefficients both follow the same wave, at either rate."""
    for fps, bands, columns in ((25, 80, 16), (30, 40, 5)):
        window = Clips(data, Cut(fps, 60, bands, columns, -columns // 10 if fps == 25 else 0)).draw(
            np.random.default_rng(0)
        )
        assert window.mels.shape == (60, bands, columns)
        moved = window.coefficients.expression[:, -1]
        assert np.corrcoef(moved, window.mels.mean((1, 2)))[0, 1] > 0.8


def test_videos_tell_their_rate_and_folders_are_speakers(tmp_path: Path) -> None:
    write_clip(tmp_path / "anna" / "clip", 90, fps=30)
    write_clip(tmp_path / "bert" / "clip", 90, fps=30)
    for name in ("anna", "bert"):
        sound = tmp_path / name / "clip.wav"
        with VideoWriter(tmp_path / name / "clip.mp4", 30, 32, 32, sound) as writer:
            for _ in range(90):
                writer.write(np.zeros((32, 32, 3), np.uint8))
        sound.unlink()
    clips = Clips(tmp_path, PASSED)
    assert [len(clips.clip(index).coefficients) for index in (0, 1)] == [75, 75]
    assert [clips.clip(index).speaker for index in (0, 1)] == [0, 1]


def test_bad_folders_are_refused_by_name(tmp_path: Path) -> None:
    def refused(match: str, cut: Cut = PASSED, **more: object) -> None:
        with pytest.raises((UserError, FileNotFoundError), match=match):
            Clips(tmp_path / "data", cut, **more).draw(np.random.default_rng(0))

    refused("is no folder")
    folder = tmp_path / "data"
    folder.mkdir()
    refused("holds no .mat")
    write_clip(folder / "a", 50)
    (folder / "b.mp4").touch()
    refused(r"b\.mp4 has no b\.mat")
    (folder / "b.mp4").unlink()
    (folder / "a.wav").rename(folder / "a.txt")
    refused(r"a\.mat has no sound")
    (folder / "a.txt").rename(folder / "a.wav")
    refused("no clip is as long as a window", Cut(25, 51))
    write_clip(folder / "a", 50, seconds=9)
    refused(r"a\.mat lasts 2\.00 s .* sound a\.wav 9\.00 s")
    write_sadtalker(folder / "a.mat", np.zeros((225, 70)), np.zeros((1, 257)))
    Clips(folder, PASSED).draw(np.random.default_rng(0))
    refused(r"a\.mat holds no crop", with_crop=True)
    (folder / "a.mat").write_bytes(b"nothing")
    refused(r"a\.mat is no readable \.mat")
