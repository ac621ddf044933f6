"""The subject folder as tensors: what is read, how much memory it takes, and what is said of a folder that is wrong."""

from __future__ import annotations

import csv
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from gaussian_head.data.layout import SubjectLayout
from gaussian_head.data.subject import Subject
from gaussian_head.errors import UserError
from gaussian_head.geometry.cameras import project
from gaussian_head.geometry.landmarks import FACE_OVAL
from gaussian_head.media.image import read_rgb, write_jpeg, write_png

SIZE = 64


@pytest.fixture
def copy(tiny_subject: Path, tmp_path: Path) -> SubjectLayout:
    """The made-up subject, free to break."""
    return SubjectLayout(Path(shutil.copytree(tiny_subject, tmp_path / "tiny")))


def edit_transforms(layout: SubjectLayout, split: str, **changes: object) -> None:
    path = layout.transforms(split)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite_action_units(layout: SubjectLayout, edit) -> None:
    with layout.action_units.open(newline="") as file:
        rows = list(csv.reader(file))
    with layout.action_units.open("w", newline="") as file:
        csv.writer(file).writerows(edit(rows))


def test_splits_cameras_and_landmarks(tiny_subject):
    subject = Subject(tiny_subject, SIZE)
    assert subject.train == list(range(80))
    assert subject.val == list(range(80, 88))
    assert (subject.width, subject.height, subject.frames) == (SIZE, SIZE, 88)
    assert subject.landmarks.shape == (88, 478, 3)
    assert subject.action_units.shape == (88, 6)


def test_teeth_are_mouth_and_never_face(copy: SubjectLayout) -> None:
    """On lips the parsing has face there, between them mouth: where the field's masks would say face (a.5)."""
    before = Subject(copy.root, SIZE).frame(7)
    face, mouth = (region[0].numpy() == 255 for region in (before.face, before.mouth))
    assert mouth.any()
    teeth = np.zeros((SIZE, SIZE), bool)
    rows, columns = np.nonzero(face)
    teeth[rows[:9], columns[:9]] = True
    teeth |= mouth
    assert teeth.sum() > mouth.sum()
    np.save(copy.teeth_mask(7), teeth)
    after = Subject(copy.root, SIZE).frame(7)
    assert np.array_equal(after.face[0].numpy() == 255, face & ~teeth)
    assert np.array_equal(after.mouth[0].numpy() == 255, mouth | teeth)
    assert torch.equal(after.hair, before.hair)
    copy.teeth_mask(7).unlink()
    assert torch.equal(Subject(copy.root, SIZE).frame(7).face, before.face)
    np.save(copy.teeth_mask(7), teeth[:-1])
    with pytest.raises(UserError, match=r"7\.npy must be \[64, 64\] like the frame, got \[63, 64\].*--only teeth"):
        Subject(copy.root, SIZE).frame(7)


@pytest.mark.parametrize("size", [64, 32, 96])
def test_cameras_fit_the_working_size(tiny_subject, size):
    subject = Subject(tiny_subject, size)
    frame = subject.frame(7)
    oval, depth = project(subject.landmarks[7].numpy()[FACE_OVAL], subject.viewmats[7].numpy(), subject.K.numpy())
    assert frame.image.shape == (3, size, size)
    assert (depth > 0).all()
    rows, columns = np.nonzero((frame.face + frame.mouth)[0].numpy() > 127)
    drawn = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert np.abs(drawn - [*oval.min(0), *oval.max(0)])[[0, 2, 3]].max() < 2 * max(
        1, size / SIZE
    )  # hair may cover the top


def test_background_is_torso_over_the_plate(tiny_subject):
    frame = Subject(tiny_subject, SIZE).frame(0)
    shirt, wall = frame.background[:, 60, 32].float(), frame.background[:, 5, 5].float()
    torch.testing.assert_close(shirt, torch.tensor([40.0, 60, 120]), atol=2, rtol=0)
    torch.testing.assert_close(wall, torch.tensor([150.0, 160, 150]), atol=2, rtol=0)


def test_regions_share_the_head_among_them(tiny_subject):
    frame = Subject(tiny_subject, SIZE).frame(20)
    total = frame.face.int() + frame.hair + frame.mouth
    assert set(total.unique().tolist()) == {0, 255}
    torch.testing.assert_close(frame.head, total / 255)
    small = Subject(tiny_subject, SIZE // 2).frame(20)
    assert ((small.head >= 0) & (small.head <= 1)).all()
    pooled = torch.nn.functional.avg_pool2d(frame.head, 2)
    torch.testing.assert_close(small.head, pooled, atol=0.01, rtol=0)  # soft edges, by area


def test_parsing_agrees_with_the_file(tiny_subject):
    frame = Subject(tiny_subject, SIZE).frame(3)
    parsing = read_rgb(SubjectLayout(tiny_subject).parsing(3))
    for region, color in ((frame.face, (0, 0, 255)), (frame.hair, (0, 0, 0)), (frame.mouth, (100, 100, 100))):
        np.testing.assert_array_equal(region[0].numpy() == 255, (parsing == color).all(-1))


def test_matte_is_optional(tiny_subject, copy):
    drawn = Subject(tiny_subject, SIZE).frame(0)
    assert drawn.matte[0, 5, 5] == 0
    assert (drawn.matte[drawn.face == 255] == 255).all()
    shutil.rmtree(copy.matte(0).parent)
    hard = Subject(copy.root, SIZE).frame(0).matte  # whatever is not background
    assert set(hard.unique().tolist()) == {0, 255}
    assert torch.equal(hard, drawn.matte)


def test_hair_points_are_optional(tiny_subject, copy):
    assert Subject(tiny_subject, SIZE).hair.shape == (88, 0, 3)
    points = np.random.default_rng(0).normal(size=(88, 4, 3)).astype(np.float32)
    np.save(copy.hair_3d, points)
    np.testing.assert_array_equal(Subject(copy.root, SIZE).hair.numpy(), points)


def test_cache_stays_within_its_bytes(tiny_subject):
    one = Subject(tiny_subject, SIZE).frame(0).bytes()
    subject = Subject(tiny_subject, SIZE, cache_bytes=3 * one + 5)
    for k in [0, 1, 2, 3, 4, 5, 3, 9, 9, 1]:
        assert subject.frame(k).index == k
        assert sum(frame.bytes() for frame in subject._cache.values()) <= 3 * one + 5
    assert set(subject._cache) == {3, 9, 1}  # the latest used
    assert subject.frame(9) is subject.frame(9)


def test_cache_smaller_than_a_frame_still_serves(tiny_subject):
    subject = Subject(tiny_subject, SIZE, cache_bytes=10)
    assert torch.equal(subject.frame(0).image, Subject(tiny_subject, SIZE).frame(0).image)
    assert len(subject._cache) == 1


def test_frame_read_ahead_is_the_frame(tiny_subject):
    ahead, plain = Subject(tiny_subject, SIZE), Subject(tiny_subject, SIZE)
    for k in (4, 4, 5):
        ahead.prefetch(k)
    for k in (5, 4, 6):
        for name in ("image", "background", "face", "hair", "mouth", "matte"):
            assert torch.equal(getattr(ahead.frame(k), name), getattr(plain.frame(k), name))
    assert not ahead._coming


def test_threads_get_the_frames_they_ask_for(tiny_subject):
    one = Subject(tiny_subject, SIZE).frame(0).bytes()
    subject, wanted = Subject(tiny_subject, SIZE, cache_bytes=4 * one), [k % 11 for k in range(120)]

    def draw(k: int) -> int:
        subject.prefetch((k + 1) % 11)
        return subject.frame(k).index

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(draw, wanted)) == wanted
    assert len(subject._cache) <= 4


def test_action_units_ignore_spaces_in_the_header_and_clip_blinks(tiny_subject, copy):
    assert " AU45_r" in SubjectLayout(tiny_subject).action_units.read_text()
    spaced = Subject(tiny_subject, SIZE).action_units
    torch.testing.assert_close(spaced[0], torch.tensor([0.2] * 5 + [2.0]))
    rewrite_action_units(copy, lambda rows: [[name.strip() for name in rows[0]], *rows[1:]])
    assert torch.equal(Subject(copy.root, SIZE).action_units, spaced)
    rewrite_action_units(copy, lambda rows: [rows[0]] + [[row[0], *["4.5"] * 17] for row in rows[1:]])
    torch.testing.assert_close(Subject(copy.root, SIZE).action_units[5], torch.tensor([4.5] * 5 + [2.0]))


def test_action_units_that_are_no_numbers_count_as_none(copy):
    rewrite_action_units(copy, lambda rows: [*rows[:3], [rows[3][0], "", "nan", *["x"] * 15], *rows[4:]])
    units = Subject(copy.root, SIZE).action_units
    assert units[2].tolist() == [0] * 6
    assert torch.isfinite(units).all()


def missing(name: str):
    return lambda layout: getattr(layout, name).unlink()


def missing_of_frame(name: str):
    return lambda layout: getattr(layout, name)(83).unlink()


@pytest.mark.parametrize(
    ("breaks", "named"),
    [
        (lambda layout: layout.transforms("train").unlink(), "transforms_train.json"),
        (lambda layout: layout.transforms("val").unlink(), "transforms_val.json"),
        (missing("landmarks_3d"), "lm3d.npy"),
        (missing("action_units"), "au.csv"),
        (missing("background"), "bc.jpg"),
        (missing_of_frame("gt_image"), r"gt_imgs.83\.jpg"),
        (missing_of_frame("torso_image"), r"torso_imgs.83\.png"),
        (missing_of_frame("parsing"), r"parsing.83\.png"),
    ],
)
def test_missing_file_is_named_with_its_remedy(copy, breaks, named):
    breaks(copy)
    with pytest.raises(FileNotFoundError, match=rf"{named}.*data_utils\.process"):
        Subject(copy.root, SIZE)


def test_missing_folder_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nobody.*data_utils\.process"):
        Subject(tmp_path / "nobody", SIZE)


@pytest.mark.parametrize(
    ("breaks", "named"),
    [
        (lambda layout: layout.transforms("train").write_text('{"frames": ['), "transforms_train.json"),
        (lambda layout: layout.transforms("val").write_text("[1, 2]"), "transforms_val.json"),
        (lambda layout: layout.transforms("val").write_text('{"frames": []}'), "transforms_val.json.*focal_len"),
        (lambda layout: edit_transforms(layout, "train", focal_len="wide"), "transforms_train.json"),
        (lambda layout: edit_transforms(layout, "train", frames=[{"img_id": 1}]), "transform_matrix"),
        (
            lambda layout: edit_transforms(layout, "val", frames=[{"img_id": 85, "transform_matrix": [[1], [0]]}]),
            "transforms_val.json.*4 x 4",
        ),
        (lambda layout: edit_transforms(layout, "val", frames=[]), "0 val"),
        (lambda layout: np.save(layout.landmarks_3d, np.zeros((40, 478, 3))), r"lm3d.npy.*88.*\[40, 478, 3\]"),
        (lambda layout: np.save(layout.landmarks_3d, np.zeros((88, 68, 3))), r"lm3d.npy.*\[88, 68, 3\]"),
        (lambda layout: layout.landmarks_3d.write_bytes(layout.landmarks_3d.read_bytes()[:5000]), "lm3d.npy"),
        (lambda layout: layout.landmarks_3d.write_bytes(b""), "lm3d.npy"),
        (lambda layout: np.save(layout.hair_3d, np.zeros((87, 5, 3))), r"hair3d.npy.*88.*\[87, 5, 3\]"),
        (lambda layout: layout.hair_3d.write_bytes(b"hair"), "hair3d.npy"),
        (lambda layout: rewrite_action_units(layout, lambda rows: rows[:50]), r"au.csv has 49 rows.*88 frames"),
        (lambda layout: rewrite_action_units(layout, lambda _: []), r"au.csv has 0 rows"),
        (lambda layout: rewrite_action_units(layout, lambda rows: [row[:-1] for row in rows]), r"au.csv.*AU45_r"),
        (lambda layout: layout.background.write_bytes(b"\xff\xd8"), "bc.jpg"),
    ],
)  # fmt: skip
def test_inconsistent_file_is_named(copy, breaks, named):
    breaks(copy)
    with pytest.raises(UserError, match=named):
        Subject(copy.root, SIZE)


@pytest.mark.parametrize("name", ["gt_image", "torso_image", "parsing"])
def test_picture_of_another_size_is_named(copy, name):
    path = getattr(copy, name)(30)
    picture = np.zeros((48, 64, 3), np.uint8)
    (write_jpeg if path.suffix == ".jpg" else write_png)(path, picture)
    subject = Subject(copy.root, SIZE)
    subject.frame(29)
    with pytest.raises(UserError, match=rf"{path.parent.name}.{path.name} is 64 x 48 px.*64 x 64"):
        subject.frame(30)
    subject.prefetch(30)
    with pytest.raises(UserError, match="64 x 48"):  # also when it was read ahead
        subject.frame(30)
