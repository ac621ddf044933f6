"""Action units: each responds to its own movement, and the CSV is OpenFace's."""

import csv
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from data_utils.action_units import (
    BLINK_INTENSITY,
    OUTER_EYE_CORNERS,
    check_action_units,
    count_blinks,
    extract_action_units,
    measure_action_units,
    remove_pose,
)
from data_utils.openface_program import run_openface
from data_utils.published import choose_action_units
from data_utils.report import _headlines
from data_utils.stage import Manifest
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.errors import UserError
from gaussian_head.geometry.landmarks import (
    LEFT_BROW,
    LOWER_INNER_LIP,
    MESH_POINTS,
    OPENFACE_ACTION_UNITS,
    RIGHT_BROW,
    UPPER_INNER_LIP,
)
from gaussian_head.media.image import write_jpeg

MOVING = slice(20, 40)


def still_face(frames: int = 60) -> np.ndarray:
    """Points at random but for the eyes and lips, 90 mm between the outer eye corners, in metres."""
    rng = np.random.default_rng(0)
    face = rng.uniform(-0.05, 0.05, (MESH_POINTS, 3))
    face[list(OUTER_EYE_CORNERS)] = [(-0.045, 0.03, 0), (0.045, 0.03, 0)]
    for inner, upper, lower, side in ((133, 159, 145, -1), (362, 386, 374, 1)):
        face[inner] = (side * 0.015, 0.03, 0)
        face[upper], face[lower] = (side * 0.03, 0.035, 0), (side * 0.03, 0.025, 0)
    face[LOWER_INNER_LIP] = face[UPPER_INNER_LIP] - (0, 0.001, 0)
    return np.repeat(face[None], frames, 0)


def test_still_face_has_none() -> None:
    units = measure_action_units(still_face())
    assert tuple(units) == OPENFACE_ACTION_UNITS
    assert max(float(value.max()) for value in units.values()) < 1e-6


def test_raised_brows_are_units_one_and_two() -> None:
    points = still_face()
    points[MOVING, np.r_[LEFT_BROW, RIGHT_BROW][:, None], 1] += 0.006
    units = measure_action_units(points)
    assert units[1][30] == pytest.approx(5 * 6 / 8, abs=0.05)
    assert units[2][30] == pytest.approx(5 * 6 / 8, abs=0.05)
    assert units[1][:18].max() < 1e-6
    assert max(units[unit][30] for unit in units if unit not in (1, 2)) < 1e-6


def test_blink_is_unit_45() -> None:
    points = still_face()
    for upper, lower in ((159, 145), (386, 374)):
        points[20:23, upper] = points[20:23, lower] + (0, 0.002, 0)
        points[50:52, upper] = points[50:52, lower] + (0, 0.002, 0)
    closing = measure_action_units(points)[45]
    assert closing[21] == pytest.approx(BLINK_INTENSITY, abs=0.1)
    assert closing[[10, 30, 40]].max() < 1e-6
    assert count_blinks(closing) == 2


def test_open_mouth_is_unit_25() -> None:
    points = still_face()
    points[MOVING, LOWER_INNER_LIP[:, None], 1] -= 0.0125
    units = measure_action_units(points)
    assert units[25][30] == pytest.approx(2.5, abs=0.1)
    assert units[25][:18].max() < 0.1


def test_unit_of_length_does_not_matter() -> None:
    points = still_face() + np.random.default_rng(1).normal(size=(60, MESH_POINTS, 3)) * 5e-4
    a, b = measure_action_units(points), measure_action_units(points * 3700)
    assert all(np.allclose(a[unit], b[unit]) for unit in a)


def test_pose_is_removed_and_gaps_are_filled() -> None:
    face = still_face(1)[0] * 1000
    frames = 20
    shapes = []
    for k in range(frames):
        yaw = np.deg2rad(2 * k - 20)
        turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        shapes.append(face @ turn.T * (1 + 0.01 * k) + (3 * k, k, 0))
    landmarks = np.array(shapes)
    valid = np.ones(frames, bool)
    valid[7] = False
    landmarks[7] = np.nan
    aligned = remove_pose(landmarks, valid)
    assert np.isfinite(aligned).all()
    assert np.ptp(aligned, axis=0).max() < 1e-3 * np.ptp(aligned)


@pytest.fixture
def subject(tmp_path: Path) -> SubjectLayout:
    layout = SubjectLayout(tmp_path / "x")
    points = still_face(12)
    for k in range(12):
        write_jpeg(layout.frame(k), np.zeros((8, 8, 3), np.uint8))
    valid = np.ones(12, bool)
    valid[4] = False
    np.save(layout.landmarks_3d, points.astype(np.float32))
    np.save(layout.landmarks_3d_valid, valid)
    return layout


def test_csv_has_openface_columns(subject: SubjectLayout) -> None:
    facts = extract_action_units(subject)
    assert facts["frames"] == 12
    with subject.action_units.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert {" AU01_r", " AU45_r", " AU45_c", " success"} <= set(rows[0])  # blanks as OpenFace writes them
    assert [row[" success"].strip() for row in rows] == ["1"] * 4 + ["0"] + ["1"] * 7
    assert rows[3]["frame"] == "4"
    assert float(rows[5][" timestamp"]) == 0.2
    check_action_units(subject)


def test_number_of_rows_must_fit(subject: SubjectLayout) -> None:
    extract_action_units(subject)
    lines = subject.action_units.read_text().splitlines()
    subject.action_units.write_text("\n".join(lines[:-1]))
    with pytest.raises(UserError, match="11 rows for 12 frames"):
        check_action_units(subject)
    subject.action_units.write_text("\n".join(line.replace("AU45_r", "AU99_r") for line in lines))
    with pytest.raises(UserError, match="lacks the columns AU45_r"):
        check_action_units(subject)
    write_jpeg(subject.frame(12), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UserError, match="has 12 rows"):
        extract_action_units(subject)


def sway(subject: SubjectLayout) -> None:
    """Let the brows of the made-up subject move, so that units 1 and 2 can agree with somebody's."""
    points = still_face(12)
    brows = np.r_[LEFT_BROW, RIGHT_BROW]
    points[:, brows, 1] += 0.003 * (1 + np.sin(np.arange(12)))[:, None]
    np.save(subject.landmarks_3d, points.astype(np.float32))


def test_a_users_own_csv_is_compared_with_the_built_in(subject: SubjectLayout) -> None:
    sway(subject)
    extract_action_units(subject)
    lines = subject.action_units.read_text().replace(", ", ",").splitlines()  # as OpenFace 2.2 writes them
    other = [line.replace(",0,", ",1,", 1).replace(",1.00,1,", ",0.60,1,") for line in lines[1:7]]
    subject.action_units.write_text("\n".join([*lines, *other]))
    told = check_action_units(subject)
    assert (told["faces"], told["failed"]) == (2, 1)
    assert told["correlation"]["AU01"] > 0.99
    assert told["correlation"]["AU45"] is None


def test_the_report_tells_how_another_s_units_agree(subject: SubjectLayout) -> None:
    sway(subject)
    extract_action_units(subject)

    def told() -> str:
        return "".join(line for line, _ in _headlines(subject, Manifest(subject), 12, []))

    assert "correlation" not in told()  # they are the built-in's own
    lines = subject.action_units.read_text().splitlines()
    brow = lines[0].split(",").index(" AU01_r")
    cells = [line.split(",") for line in lines[1:]]
    noise = np.random.default_rng(0).normal(0, 1, 12)
    for row, more in zip(cells, noise, strict=True):
        row[brow] = f" {float(row[brow]) + more:.2f}"
    subject.action_units.write_text("\n".join([lines[0], *(",".join(row) for row in cells)]))
    told_value = float(re.search(r"AU01 (-?[\d.]+)", told())[1])
    assert -1 < told_value < 0.99
    assert told_value == pytest.approx(check_action_units(subject)["correlation"]["AU01"], abs=0.006)


PROGRAM = """#!{python}
import sys
from pathlib import Path
words = sys.argv[1:]
value = lambda name: words[words.index(name) + 1]
pictures = sorted(Path(value("-fdir")).iterdir())
out = Path(value("-out_dir")); out.mkdir()
units = {units}
rows = ["frame, face_id, timestamp, confidence, success, " + ", ".join(f"AU{{u:02d}}_r" for u in units)]
for k, picture in enumerate(pictures[:{limit}]):
    true = int(picture.resolve().stem)
    rows.append(f"{{k + 1}}, 0, 0, 0.98, 1, " + ", ".join([str(true / 10)] * len(units)))
(out / "au.csv").write_text("\\n".join(rows))
print("failed", file=sys.stderr)
sys.exit({status})
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, *, limit: int = 99, status: int = 0) -> None:
    """Put a program on the PATH that behaves as OpenFace's does: pictures by name, a CSV in a folder it makes."""
    text = PROGRAM.format(python=sys.executable, units=tuple(OPENFACE_ACTION_UNITS), limit=limit, status=status)
    (folder / "FeatureExtraction").write_text(text)
    (folder / "FeatureExtraction").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_openface_is_run_on_the_frames_in_their_order(
    subject: SubjectLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert choose_action_units("auto", "mesh") == choose_action_units("builtin", "task") == "builtin"
    with pytest.raises(UserError, match="FeatureExtraction is not on the PATH"):
        choose_action_units("openface", "mesh")
    install(tmp_path, monkeypatch)
    assert choose_action_units("auto", "task") == "openface"
    assert choose_action_units("builtin", "mesh") == "builtin"
    assert choose_action_units("blendshapes", "task") == "blendshapes"
    with pytest.raises(UserError, match="blendshapes needs --landmarks task"):
        choose_action_units("blendshapes", "mesh")
    facts = run_openface(subject)
    assert (facts["source"], facts["frames"], facts["failed"]) == ("FeatureExtraction", 12, 0)
    with subject.action_units.open(newline="") as file:
        values = [float(row[" AU01_r"]) for row in csv.DictReader(file)]
    assert values == pytest.approx(np.arange(12) / 10)  # 10 and 11 behind 9


@pytest.mark.parametrize(("broken", "message"), [
    ({"limit": 7}, "has 7 rows for 12 frames"), ({"status": 3}, r"FeatureExtraction failed \(failed\); run it by hand"),
])  # fmt: skip
def test_a_failing_program_leaves_nothing(
    subject: SubjectLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: dict[str, int], message: str
) -> None:
    install(tmp_path, monkeypatch, **broken)
    with pytest.raises(UserError, match=message):
        run_openface(subject)
    assert not subject.action_units.exists()
