"""The one object that moves a head."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from gaussian_head.data.subject import Subject
from gaussian_head.driving.features import load_features
from gaussian_head.driving.ping_pong import ping_pong
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.errors import UserError
from gaussian_head.model.audio_code import audio_windows


@pytest.fixture
def tracked(tiny_subject: Path) -> DrivingSequence:
    return DrivingSequence.from_subject(Subject(tiny_subject, 64), list(range(10, 40)))


def test_save_and_load_give_the_same(tracked: DrivingSequence, tmp_path: Path) -> None:
    tracked.save(tmp_path / "motion.safetensors")
    loaded = DrivingSequence.load(tmp_path / "motion.safetensors")
    for f in fields(tracked):
        before, after = getattr(tracked, f.name), getattr(loaded, f.name)
        assert torch.equal(before, after) if isinstance(before, torch.Tensor) else before == after, f.name


def test_fades_are_kept_and_sequences_without_stay_readable_by_older_versions(
    tracked: DrivingSequence, tmp_path: Path
) -> None:
    pair = torch.tensor([0, 5]), torch.tensor([9, 20])
    faded = tracked.blended(*pair, torch.tensor([0.25, 0.0]))
    faded.save(tmp_path / "faded.safetensors")
    loaded = DrivingSequence.load(tmp_path / "faded.safetensors")
    assert loaded.fade_index.tolist() == [19, 30]
    assert loaded.fade.tolist() == [0.25, 0.0]
    for name, form in (("faded", "driving-sequence-2"), ("plain", "driving-sequence-1")):
        if name == "plain":
            tracked.save(tmp_path / "plain.safetensors")
        with safe_open(tmp_path / f"{name}.safetensors", framework="pt") as file:
            assert file.metadata()["format"] == form
    with pytest.raises(UserError, match="both fade_index and fade"):
        replace(faded, fade=None)


def test_blended_frames_lie_between(tracked: DrivingSequence) -> None:
    mixed = tracked.blended(torch.tensor([3]), torch.tensor([12]), torch.tensor([0.25]))
    assert torch.allclose(mixed.landmarks[0], 0.75 * tracked.landmarks[3] + 0.25 * tracked.landmarks[12], atol=1e-6)
    assert mixed.frame_index.tolist() == [13]
    rotation = mixed.viewmats[0, :3, :3]
    assert torch.allclose(rotation @ rotation.T, torch.eye(3), atol=1e-5)


def test_joined_pieces_are_the_whole(tracked: DrivingSequence) -> None:
    index = torch.arange(len(tracked))
    faded = tracked.blended(index, index.flip(0), torch.linspace(0, 1, len(tracked)))
    pieces = [replace(faded, **{k: v[part] for k, v in faded.parts().items()}) for part in (slice(7), slice(7, None))]
    for name, part in DrivingSequence.join(pieces).parts().items():
        assert torch.equal(part, faded.parts()[name]), name


def test_a_hand_made_track_is_as_good_as_a_tracked_one(tracked: DrivingSequence, tmp_path: Path) -> None:
    still = replace(tracked, viewmats=tracked.viewmats[:1].repeat(len(tracked), 1, 1))
    still.save(tmp_path / "still.safetensors")
    assert torch.equal(DrivingSequence.load(tmp_path / "still.safetensors").viewmats[7], tracked.viewmats[0])


def test_parts_of_different_lengths_are_refused(tracked: DrivingSequence) -> None:
    with pytest.raises((UserError, TypeError), match="landmarks"):  # TypeError where types are checked at run time
        tracked.with_landmarks(tracked.landmarks[1:])


@pytest.mark.parametrize("content", [b"", b"not safetensors at all"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="write it again"):
        DrivingSequence.load(tmp_path / "x.safetensors")


def test_another_safetensors_file_is_refused(tmp_path: Path) -> None:
    save_file({"K": torch.eye(3)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="driving-sequence-1"):
        DrivingSequence.load(tmp_path / "x.safetensors")


def test_stretching_to_the_same_positions_changes_nothing(tracked: DrivingSequence) -> None:
    same = tracked.stretched(torch.arange(len(tracked), dtype=torch.float32))
    assert torch.allclose(same.viewmats, tracked.viewmats, atol=1e-6)
    assert torch.equal(same.landmarks, tracked.landmarks)
    assert torch.equal(same.frame_index, tracked.frame_index)


def test_between_frames_poses_stay_rotations(tracked: DrivingSequence) -> None:
    between = tracked.stretched(torch.linspace(0, len(tracked) - 1, 77))
    rotation = between.viewmats[:, :3, :3]
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3).expand_as(rotation), atol=1e-5)
    assert torch.all(torch.linalg.det(rotation) > 0.99)
    assert between.frame_index.min() == 10
    assert between.frame_index.max() == 39


@pytest.mark.parametrize(("clip", "frames"), [(2, 9), (3, 40), (31, 400), (400, 31), (31, 1)])
def test_ping_pong_stays_inside_and_never_jumps(clip: int, frames: int) -> None:
    positions = ping_pong(clip, frames).numpy()
    assert len(positions) == frames
    assert positions[0] == pytest.approx(0, abs=1e-6)
    assert positions.min() >= 0
    assert positions.max() <= clip - 1
    assert np.abs(np.diff(positions)).max(initial=0) <= 1 + 1e-5


def test_ping_pong_reaches_far_and_turns_smoothly() -> None:
    positions = ping_pong(50, 300).numpy()
    assert positions.max() > 44
    assert np.abs(np.diff(positions, 2)).max() < 0.3  # a bare turn would be 2
    assert np.allclose(positions[:20], np.arange(20), atol=1e-3)


def test_ping_pong_of_one_frame_stands_still() -> None:
    assert torch.equal(ping_pong(1, 5), torch.zeros(5))


@pytest.fixture
def heard(tiny_subject: Path) -> DrivingSequence:
    return DrivingSequence.from_subject(Subject(tiny_subject, 64), list(range(10, 40)), "mel")


def test_sound_comes_along_where_it_is_wanted(tracked: DrivingSequence, heard: DrivingSequence, tiny_subject: Path):
    assert tracked.audio is None
    features = load_features(Subject(tiny_subject, 64), "mel")
    assert torch.equal(heard.audio, audio_windows(features)[10:40])  # of the whole recording: nothing ends at the cut
    assert torch.equal(heard.frame(3)[4], heard.audio[3])
    assert tracked.frame(3)[4] is None


def test_sound_is_saved_joined_and_kept_with_another_face(heard: DrivingSequence, tmp_path: Path) -> None:
    heard.save(tmp_path / "heard.safetensors")
    with safe_open(tmp_path / "heard.safetensors", framework="pt") as file:
        assert file.metadata()["format"] == "driving-sequence-3"
    assert torch.equal(DrivingSequence.load(tmp_path / "heard.safetensors").audio, heard.audio)
    pieces = [replace(heard, **{k: v[part] for k, v in heard.parts().items()}) for part in (slice(7), slice(7, None))]
    assert torch.equal(DrivingSequence.join(pieces).audio, heard.audio)
    assert torch.equal(heard.with_landmarks(heard.landmarks + 1).audio, heard.audio)
    with pytest.raises((UserError, TypeError), match="audio"):
        replace(heard, audio=heard.audio[1:])


def test_between_frames_the_nearer_one_is_heard(heard: DrivingSequence) -> None:
    mixed = heard.blended(torch.tensor([3, 3]), torch.tensor([12, 12]), torch.tensor([0.25, 0.75]))
    assert torch.equal(mixed.audio, heard.audio[[3, 12]])
    slow = heard.stretched(torch.tensor([0.0, 0.4, 0.6, 28.9, 29.0]))
    assert torch.equal(slow.audio, heard.audio[[0, 0, 1, 29, 29]])
    assert slow.frame_index.tolist() == [10, 10, 11, 39, 39]
