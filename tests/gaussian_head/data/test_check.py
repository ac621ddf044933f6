"""The check of a folder: each fault is named in a line, and it says that training fails exactly where it does."""

from __future__ import annotations

import csv
import json
import pickle
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from legacy_folder import LINEAGES, make_legacy_folder

from data_utils.check import ORDER, check, describe, fails, main
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.data.subject import Subject
from gaussian_head.driving.features import load_features
from gaussian_head.driving.hearing import choose_extractor
from gaussian_head.errors import UserError
from gaussian_head.media.audio import write_wav
from gaussian_head.media.image import read_rgb, write_jpeg, write_png

SIZE = 64


@pytest.fixture
def ours(tiny_subject: Path, tmp_path: Path) -> SubjectLayout:
    return SubjectLayout(Path(shutil.copytree(tiny_subject, tmp_path / "ours" / "tiny")))


@pytest.fixture
def theirs(legacy_folders: dict[str, Path], tmp_path: Path) -> SubjectLayout:
    return SubjectLayout(Path(shutil.copytree(legacy_folders["talking_gaussian"], tmp_path / "theirs" / "tiny")))


def read_all(layout: SubjectLayout) -> None:
    """Read what training reads."""
    subject = Subject(layout.root, SIZE)
    load_features(subject, choose_extractor(layout))
    for k in subject.train + subject.val:
        subject.frame(k)


def edit_json(path: Path, change) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def edit_rows(path: Path, change) -> None:
    with path.open(newline="") as file:
        rows = change(list(csv.reader(file)))
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def cut(path: Path, share: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def repaint(layout: SubjectLayout, change) -> None:
    for k in range(88):
        write_png(layout.parsing(k), change(read_rgb(layout.parsing(k))))


def features(layout: SubjectLayout, change) -> None:
    path = layout.audio_features("deepspeech")
    np.save(path, change(np.load(path)))


def landmarks(layout: SubjectLayout, change) -> None:
    np.save(layout.landmarks_3d, change(np.load(layout.landmarks_3d)))


def name_frame(layout: SubjectLayout, number: int) -> None:
    edit_json(layout.transforms("val"), lambda d: d["frames"][3].update(img_id=number))


ERRORS = {
    "no train split": (lambda t: t.transforms("train").unlink(), r"transforms_train.json: expected a file, found none"),
    "no val split": (lambda t: t.transforms("val").unlink(), r"transforms_val.json: expected a file, found none"),
    "half a json": (lambda t: cut(t.transforms("val")), r"transforms_val.json: expected focal_len, and frames"),
    "no matrix": (
        lambda t: edit_json(t.transforms("val"), lambda d: d["frames"][0].pop("transform_matrix")),
        r"transforms_val.json: expected.*found 'transform_matrix'",
    ),
    "a frame twice": (lambda t: name_frame(t, 81), r"transforms_val.json:.*frame 81 comes twice"),
    "empty split": (
        lambda t: edit_json(t.transforms("val"), lambda d: d.update(frames=[])),
        r"transforms_val.json: expected frames, found none",
    ),
    "frame that does not exist": (
        lambda t: name_frame(t, 999),
        r"gt_imgs/999.jpg: expected a picture, as transforms_val.json names frame 999, found none",
    ),
    "negative frame": (lambda t: name_frame(t, -3), r"transforms_val.json:.*img_id must be 0 or more, got -3"),
    "no target": (lambda t: t.gt_image(83).unlink(), r"gt_imgs/83.jpg: expected a picture.*found none"),
    "no torsos": (
        lambda t: shutil.rmtree(t.torso_image(0).parent),
        r"torso_imgs/0.png: expected a picture.*found none \(88 frames are so\)",
    ),
    "no parsing": (lambda t: t.parsing(7).unlink(), r"parsing/7.png: expected a picture.*found none"),
    "target of another size": (
        lambda t: write_jpeg(t.gt_image(5), np.zeros((48, 64, 3), np.uint8)),
        r"gt_imgs/5.jpg: expected 64 x 64 px like most targets, found 64 x 48",
    ),
    "torso of another size": (
        lambda t: write_png(t.torso_image(5), np.zeros((64, 32, 4), np.uint8)),
        r"torso_imgs/5.png: expected 64 x 64 px.*found 32 x 64",
    ),
    "no picture": (lambda t: t.parsing(5).write_bytes(b"P" * 300), r"parsing/5.png: expected a picture, found one that"),
    "half a picture": (lambda t: cut(t.gt_image(5), 0.8), r"gt_imgs/5.jpg: expected a picture, found one that cannot"),
    "picture without its end": (lambda t: cut(t.parsing(5), 0.97), r"parsing/5.png: expected a picture, found one that"),
    "no background": (lambda t: t.background.unlink(), r"bc.jpg: expected the static background, found no file"),
    "broken background": (lambda t: t.background.write_bytes(b"\xff\xd8"), r"bc.jpg: expected a picture"),
    "teeth of another size": (
        lambda t: np.save(t.teeth_mask(4), np.zeros((64, 65), bool)),
        r"teeth_mask/4.npy: expected \[64, 64\] like the frame, found \[64, 65\]",
    ),
    "truncated teeth": (lambda t: cut(t.teeth_mask(4)), r"teeth_mask/4.npy: expected bool.*damaged"),
    "no landmarks": (lambda t: t.landmarks_3d.unlink(), r"lm3d.npy: expected 478 landmarks.*data_utils.complete"),
    "truncated landmarks": (lambda t: cut(t.landmarks_3d), r"lm3d.npy: expected float32.*damaged.*data_utils.complete"),
    "short landmarks": (lambda t: landmarks(t, lambda x: x[:60]), r"lm3d.npy: expected \[88 or more.*\[60, 478, 3\]"),
    "landmarks of 68 points": (lambda t: landmarks(t, lambda x: x[:, :68]), r"lm3d.npy: expected.*\[88, 68, 3\]"),
    "hair of another clip": (
        lambda t: np.save(t.hair_3d, np.zeros((80, 3, 3), np.float32)),
        r"hair3d.npy: expected \[88, points, 3\], found \[80, 3, 3\]",
    ),
    "broken head frame": (lambda t: t.head_frame.write_text("{"), r"head_frame.json: expected metres_per_unit"),
    "no action units": (lambda t: t.action_units.unlink(), r"au.csv: expected action units, a row a frame, found no file"),
    "short csv": (
        lambda t: edit_rows(t.action_units, lambda rows: rows[:50]),
        r"au.csv: expected 88 rows, one a frame, found 49",
    ),
    "csv without blinks": (
        lambda t: edit_rows(t.action_units, lambda rows: [row[:-1] for row in rows]),
        r"au.csv: expected OpenFace's columns.*AU45_r",
    ),
    "csv of failures": (
        lambda t: edit_rows(t.action_units, lambda rows: [rows[0], *([*r[:3], "0", "0", *r[5:]] for r in rows[1:])]),
        r"au.csv: .*found a face in none of 88 frames",
    ),
    "no features": (
        lambda t: t.audio_features("deepspeech").unlink(),
        r"aud_mel.npy: expected audio features of some kind, found none of aud_mel.npy, aud_ds.npy",
    ),
    "truncated features": (lambda t: cut(t.audio_features("deepspeech")), r"aud_ds.npy: expected.*damaged"),
    "short features": (lambda t: features(t, lambda x: x[:60]), r"aud_ds.npy: expected \[88 or more.*\[60, 16, 29\]"),
    "flat features": (lambda t: features(t, lambda x: x[:, 0]), r"aud_ds.npy: expected.*\[88, 29\]"),
    "features of nan": (lambda t: features(t, lambda x: x * np.nan), r"aud_ds.npy: expected finite numbers"),
}
"""What is done to a completed folder of another tool, and what must be said."""

WARNINGS = {
    "broken features beside mel": (
        lambda t: [cut(t.audio_features("deepspeech")), np.save(t.audio_features("mel"), np.zeros((88, 16, 80)))],
        r"warning: aud_ds.npy: expected.*damaged",
    ),
    "no blinks": (
        lambda t: edit_rows(t.action_units, lambda rows: [rows[0], *([*row[:-1], "0.1"] for row in rows[1:])]),
        r"au.csv: expected blinks \(AU45\), found at most 0.1",
    ),
    "units beyond 5": (
        lambda t: edit_rows(t.action_units, lambda rows: [*rows[:5], [*rows[5][:5], "9", *rows[5][6:]], *rows[6:]]),
        r"au.csv: expected intensities 0..5, found 0.3 to 9",
    ),
    "long csv": (lambda t: edit_rows(t.action_units, lambda rows: [*rows, *([str(k), *rows[3][1:]] for k in range(89, 99))]),
                 r"au.csv: expected 88 rows, one a frame, found 98"),
    "features a little short": (lambda t: features(t, lambda x: x[:86]), r"aud_ds.npy: expected 88 rows.*found 86"),
    "no sound": (lambda t: t.speech.unlink(), r"aud.wav: expected the sound, 16 kHz, found no file"),
    "sound of another length": (
        lambda t: write_wav(t.speech, np.full(16_000, 0.1), 16_000), r"aud.wav: expected 3.52 s.*found 1.00 s"
    ),
    "both splits": (
        lambda t: edit_json(t.transforms("val"), lambda d: d["frames"][0].update(img_id=3)),
        r"transforms_val.json: expected frames that are not trained on, found 1 of the train split, the first is 3",
    ),
    "another focal length": (
        lambda t: edit_json(t.transforms("val"), lambda d: d.update(focal_len=150)),
        r"transforms_val.json: expected focal_len 130 as in train, found 150",
    ),
    "principal point": (
        lambda t: edit_json(t.transforms("train"), lambda d: d.update(cx=20)),
        r"transforms_train.json: expected cx, cy in the middle.*found 20, 32",
    ),
    "30 fps": (lambda t: edit_json(t.transforms("train"), lambda d: d.update(fps=30)), r"expected 25 fps, found 30"),
    "decimetres": (
        lambda t: [edit_json(t.transforms(s), far_away) for s in ("train", "val")],
        r"transforms_train.json: expected cameras 0.2 to 6 m from the head, found 6.* m",
    ),
    "landmarks elsewhere": (lambda t: landmarks(t, lambda x: x + [0.05, 0, 0]), r"0.lms: expected landmarks where"),
    "landmarks in decimetres": (lambda t: landmarks(t, lambda x: x * 10), r"lm3d.npy: expected a face 0.08 to 0.25 m"),
    "few faces": (lambda t: np.save(t.landmarks_3d_valid, np.arange(88) < 40), r"lm3d_valid.npy: expected at least 80%"),
    "red and blue exchanged": (lambda t: repaint(t, lambda p: np.ascontiguousarray(p[..., ::-1])), r"the nose to be head"),
    "smooth parsing": (lambda t: repaint(t, lambda p: p // 2 + 30), r"no head in any"),
    "empty torsos": (
        lambda t: [write_png(t.torso_image(k), np.zeros((SIZE, SIZE, 4), np.uint8)) for k in range(88)],
        r"torso_imgs: expected neck and torso, found empty pictures; the torso is left out",
    ),
    "some teeth": (lambda t: t.teeth_mask(4).unlink(), r"teeth_mask: expected a mask of every frame, or none, found 87"),
    "background of another size": (
        lambda t: write_jpeg(t.background, np.zeros((32, 64, 3), np.uint8)), r"bc.jpg: expected 64 x 64.*found 64 x 32"
    ),
    "code in the track": (
        lambda t: t.track_params.write_bytes(pickle.dumps({"euler": print}, protocol=2)),
        r"track_params.pt: expected tensors euler, trans, focal, found no such file of tensors",
    ),
    "track in another unit": (
        lambda t: torch.save({"euler": torch.zeros(88, 3), "trans": torch.full((88, 3), 400.0)}, t.track_params),
        r"track_params.pt: expected trans in tenths",
    ),
}  # fmt: skip


def far_away(document: dict) -> None:
    for frame in document["frames"]:
        for row in frame["transform_matrix"][:3]:
            row[3] *= 10


@pytest.mark.parametrize("case", ERRORS)
def test_what_training_fails_at_is_an_error(theirs, case):
    breaks, told = ERRORS[case]
    breaks(theirs)
    lines = describe(check(theirs)).splitlines()
    with pytest.raises((UserError, FileNotFoundError)):
        read_all(theirs)
    assert fails(check(theirs))
    errors = [line for line in lines if line.startswith("error: ")]
    assert any(re.search(told, line) for line in errors), errors
    assert all("; " in line for line in errors)  # each says what to do


@pytest.mark.parametrize("case", WARNINGS)
def test_what_training_gets_over_is_a_warning(theirs, case):
    breaks, told = WARNINGS[case]
    breaks(theirs)
    found = check(theirs)
    lines = describe(found).splitlines()
    assert any(re.search(told, line) for line in lines), lines
    if case == "smooth parsing":  # readable, but there is nothing to train
        assert fails(found)
        return
    read_all(theirs)
    assert not fails(found)


def test_a_sound_folder_has_no_fault_and_all_of_the_table(ours, theirs):
    for layout in (ours, theirs):
        found = check(layout)
        assert found.faults == []
        assert set(ORDER) == set(found.summary)
    assert found.summary["frames"] == "88 with a camera, 0 to 87"
    assert found.summary["splits"] == "train 80, val 8"
    assert found.summary["features"] == "deepspeech [88, 16, 29]"
    assert "AU45 0.3..2.4" in found.summary["action units"]
    assert "mouth 1%" in found.summary["parsing"]
    assert found.summary["optional, missing"] == "matte, manifest.json"


@pytest.mark.parametrize("lineage", LINEAGES)
def test_a_raw_legacy_folder_is_told_what_to_run(tiny_subject, tmp_path, lineage):
    layout = make_legacy_folder(tiny_subject, tmp_path / "tiny", lineage)
    found = check(layout)
    errors = [fault for fault in found.faults if fault.severity == "error"]
    missing = {"lm3d.npy"} | ({"gt_imgs/0.jpg", "torso_imgs/0.png", "au.csv"} if lineage == "ad_nerf" else set())
    assert {fault.file for fault in errors} == missing
    assert all(f"python -m data_utils.complete {layout.root}" in fault.remedy for fault in errors)


def test_ours_is_told_to_process_again(ours):
    ours.landmarks_3d.unlink()
    (error,) = check(ours).faults
    assert f"python -m data_utils.process {ours.video} --only tracking" in error.remedy


@pytest.mark.parametrize(("breaks", "status"), [(lambda t: None, 0), (lambda t: t.background.unlink(), 1)])
def test_exit_status(theirs, monkeypatch, capsys, breaks, status):
    breaks(theirs)
    monkeypatch.setattr(sys, "argv", ["check", str(theirs.root)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == status
    assert ("training would fail" if status else "training can begin") in capsys.readouterr().out.splitlines()[-1]


def test_no_folder_and_help(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["check", str(tmp_path / "nobody")])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "nobody is no subject folder" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["check", "--help"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    assert "exit status is 1 if training would fail" in " ".join(capsys.readouterr().out.replace("│", " ").split())
