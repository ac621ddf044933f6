"""Folders of other tools: completed without a change to what is theirs, then read like our own."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from legacy_folder import LINEAGES, ORIGIN, make_legacy_folder, patch_detector

from data_utils.complete import complete, pictures_of_poses
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.data.subject import Subject
from gaussian_head.driving.features import load_features
from gaussian_head.driving.hearing import choose_extractor
from gaussian_head.errors import UserError
from gaussian_head.geometry.cameras import project
from gaussian_head.geometry.landmarks import LOWER_INNER_LIP, UPPER_INNER_LIP, mouth_aperture

SIZE = 64


@pytest.fixture(autouse=True)
def detector(tiny_subject: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patch_detector(monkeypatch, tiny_subject)


def contents(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("lineage", LINEAGES)
def test_nothing_of_theirs_is_changed_and_a_second_time_does_nothing(tiny_subject, tmp_path, lineage):
    layout = make_legacy_folder(tiny_subject, tmp_path / "tiny", lineage)
    before = contents(layout.root)
    assert complete(layout)
    after = contents(layout.root)
    assert before.items() <= after.items()
    added = {name.split("/")[0] for name in after.keys() - before.keys()}
    expected = {"lm3d.npy", "lm3d_valid.npy", "landmarks478.npy", "head_frame.json"}
    if lineage == "talking_gaussian":
        expected |= {"hair3d.npy"}
    if lineage == "ad_nerf":
        expected |= {"gt_imgs", "torso_imgs", "au.csv"}
    assert added == expected
    assert complete(layout) == []
    assert contents(layout.root) == after


@pytest.mark.parametrize("lineage", LINEAGES)
def test_without_completion_the_command_is_named(tiny_subject, tmp_path, lineage):
    layout = make_legacy_folder(tiny_subject, tmp_path / "tiny", lineage)
    with pytest.raises(FileNotFoundError, match=r"is missing.*python -m data_utils\.complete .*tiny"):
        Subject(layout.root, SIZE)


@pytest.mark.parametrize("lineage", LINEAGES)
def test_a_completed_folder_shows_the_same_person(tiny_subject, legacy_folders, lineage):
    ours, theirs = Subject(tiny_subject, SIZE), Subject(legacy_folders[lineage], SIZE)
    assert (theirs.train, theirs.val) == (ours.train, ours.val)
    for k in (0, 30, 87):
        true, _ = project(ours.landmarks[k].numpy(), ours.viewmats[k].numpy(), ours.K.numpy())
        seen, depth = project(theirs.landmarks[k].numpy(), theirs.viewmats[k].numpy(), theirs.K.numpy())
        assert (depth > 0).all()
        assert np.median(np.linalg.norm(seen - true, axis=-1)) < 0.5
    off = (theirs.landmarks - ours.landmarks + torch.from_numpy(ORIGIN).float()).norm(dim=-1)
    assert off.median() < 0.012  # a head that sways by three degrees at 64 px says little about depth
    widest = int(mouth_aperture(ours.landmarks.numpy()).argmax())
    here, there = ours.frame(widest), theirs.frame(widest)
    assert torch.equal(there.head, here.head)
    assert torch.equal(there.matte, here.matte)
    mine, other = here.mouth > 127, there.mouth > 127
    assert (mine & other).sum() > 0.6 * (mine | other).sum()
    assert not ((there.mouth > 127) & (there.face > 127)).any()


def test_closed_lips_are_no_mouth_where_the_parsing_does_not_mark_it(legacy_folders, tmp_path):
    layout = SubjectLayout(Path(shutil.copytree(legacy_folders["er_nerf"], tmp_path / "tiny")))
    landmarks = np.load(layout.landmarks_3d)
    landmarks[5, UPPER_INNER_LIP] = landmarks[5, LOWER_INNER_LIP]
    np.save(layout.landmarks_3d, landmarks)
    assert Subject(legacy_folders["er_nerf"], SIZE).frame(5).mouth.any()
    assert not Subject(layout.root, SIZE).frame(5).mouth.any()


@pytest.mark.parametrize("unit_m", [0.1, 0.001])
def test_transforms_in_another_unit(tiny_subject, tmp_path, legacy_folders, unit_m):
    layout = make_legacy_folder(tiny_subject, tmp_path / "tiny", "er_nerf", unit_m=unit_m)
    complete(layout)
    assert json.loads(layout.head_frame.read_text())["metres_per_unit"] == unit_m
    other, metres = Subject(layout.root, SIZE), Subject(legacy_folders["er_nerf"], SIZE)
    torch.testing.assert_close(other.viewmats, metres.viewmats, atol=1e-5, rtol=0)
    torch.testing.assert_close(other.landmarks, metres.landmarks, atol=1e-3, rtol=0)


def test_poses_counted_without_faceless_pictures_find_their_pictures(tiny_subject, tmp_path):
    ours = Subject(tiny_subject, SIZE)
    layout = make_legacy_folder(tiny_subject, tmp_path / "tiny", "er_nerf", without_face=(10, 11, 12, 50))
    complete(layout)
    subject = Subject(layout.root, SIZE)
    numbers = subject.train + subject.val
    assert sorted(numbers) == [k for k in range(88) if k not in (10, 11, 12, 50)]
    torch.testing.assert_close(subject.viewmats[60][:3, :3], ours.viewmats[60][:3, :3])
    assert np.flatnonzero(~np.load(layout.landmarks_3d_valid)).tolist() == [10, 11, 12, 50]


def test_ad_nerf_s_own_numbers_are_kept(tiny_subject, tmp_path):
    layout = make_legacy_folder(tiny_subject, tmp_path / "tiny", "ad_nerf", without_face=(10, 50))
    assert pictures_of_poses(layout, 88) is None


def test_deepspeech_under_either_name(legacy_folders):
    for lineage in LINEAGES:
        subject = Subject(legacy_folders[lineage], SIZE)
        assert choose_extractor(subject.layout) == "deepspeech"
        assert load_features(subject, "deepspeech").shape == (88, 16, 29)
    assert SubjectLayout(legacy_folders["ad_nerf"]).audio_features("deepspeech").name == "aud.npy"
    assert SubjectLayout(legacy_folders["er_nerf"]).audio_features("deepspeech").name == "aud_ds.npy"


def test_features_that_end_a_little_early_repeat_their_last_row(legacy_folders, tmp_path, caplog):
    layout = SubjectLayout(Path(shutil.copytree(legacy_folders["er_nerf"], tmp_path / "tiny")))
    path = layout.audio_features("deepspeech")
    whole = np.load(path)
    np.save(path, whole[:83])
    features = load_features(Subject(layout.root, SIZE), "deepspeech")
    np.testing.assert_array_equal(features[:83], whole[:83].astype(np.float32))
    assert (features[83:] == features[82]).all()
    assert len(features) == 88
    assert "ends 5 frames before the clip" in caplog.text
    np.save(path, whole[:82])
    with pytest.raises(UserError, match=r"must be \[88 or more, window, width\], got \[82, 16, 29\]"):
        load_features(Subject(layout.root, SIZE), "deepspeech")


@pytest.mark.parametrize(
    ("breaks", "told"),
    [
        (lambda layout: layout.background.unlink(), r"bc\.jpg is missing"),
        (lambda layout: layout.parsing(3).unlink(), r"3\.png is missing, but transforms_train\.json names frame 3"),
        (lambda layout: layout.frame(87).unlink(), r"87\.jpg is missing, but transforms_val\.json names frame 87"),
        (lambda layout: layout.transforms("val").unlink(), r"transforms_val\.json is missing"),
        (lambda layout: np.save(layout.mesh_landmarks, np.zeros((5, 478, 3))), r"must be \[88, 478, 3\].*delete it"),
        (lambda layout: layout.head_frame.write_text("{"), None),
    ],
)
def test_what_cannot_be_completed_is_told(tiny_subject, tmp_path, breaks, told):
    layout = make_legacy_folder(tiny_subject, tmp_path / "tiny", "er_nerf")
    breaks(layout)
    if told is None:  # a head frame that is damaged is made anew with the landmarks
        assert complete(layout)
        assert Subject(layout.root, SIZE).train
        return
    with pytest.raises((UserError, FileNotFoundError), match=told):
        complete(layout)
    assert not layout.landmarks_3d.exists()


def test_a_damaged_head_frame_is_told(tiny_subject, tmp_path):
    layout = make_legacy_folder(tiny_subject, tmp_path / "tiny", "er_nerf")
    complete(layout)
    for text in ("{", '{"format": 2}', '{"format": 1, "metres_per_unit": 0, "frames": null}'):
        layout.head_frame.write_text(text)
        with pytest.raises(UserError, match=r"head_frame\.json is damaged.*data_utils\.complete"):
            Subject(layout.root, SIZE)
