"""Where another person's motion may come from."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gaussian_head.data.layout import SubjectLayout
from gaussian_head.data.subject import Subject
from gaussian_head.driving.borrowed import load_driver, sound_of
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.errors import UserError


@pytest.fixture
def motion(tiny_subject: Path) -> DrivingSequence:
    return DrivingSequence.from_subject(Subject(tiny_subject, 64), list(range(40)))


def test_a_saved_sequence(motion: DrivingSequence, tmp_path: Path) -> None:
    motion.save(tmp_path / "x.safetensors")
    torch.testing.assert_close(load_driver(tmp_path / "x.safetensors", tmp_path).landmarks, motion.landmarks)
    assert sound_of(tmp_path / "x.safetensors") is None
    (tmp_path / "x.wav").touch()
    assert sound_of(tmp_path / "x.safetensors") == tmp_path / "x.wav"


def test_another_rate_is_brought_to_25_a_second(motion: DrivingSequence, tmp_path: Path) -> None:
    replace(motion, fps=50).save(tmp_path / "x.safetensors")
    driver = load_driver(tmp_path / "x.safetensors", tmp_path)
    torch.testing.assert_close(driver.landmarks, motion.landmarks[::2])


def test_a_subject_folder_with_frames_without_a_face(
    tiny_subject: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layout = SubjectLayout(tmp_path / "gaps")
    shutil.copytree(tiny_subject, layout.root)
    document = json.loads(layout.transforms("train").read_text())
    document["frames"] = [frame for frame in document["frames"] if frame["img_id"] not in (0, 30, 31)]
    layout.transforms("train").write_text(json.dumps(document))
    driver, whole = load_driver(layout.root, tmp_path), load_driver(tiny_subject, tmp_path)
    assert len(driver) == len(whole) == 88
    assert "no face in 3 of 88 frames" in caplog.text
    np.testing.assert_allclose(driver.viewmats[30], whole.viewmats[30], atol=2e-3)
    torch.testing.assert_close(driver.viewmats[60], whole.viewmats[60])
    assert sound_of(layout.root) == layout.speech


def test_what_cannot_drive(motion: DrivingSequence, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.mp4 does not exist"):
        load_driver(tmp_path / "nowhere.mp4", tmp_path)
    path = tmp_path / "x.safetensors"
    landmarks = motion.landmarks.clone()
    landmarks[3, 7, 1] = torch.nan
    motion.with_landmarks(landmarks).save(path)
    with pytest.raises(UserError, match="not finite"):
        load_driver(path, tmp_path)
    DrivingSequence.join([motion]).with_landmarks(torch.zeros(40, 478, 3)).save(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="damaged"):
        load_driver(path, tmp_path)
