"""What the metrics of motion must be for equal, shifted, noisy and broken input; a drawn mesh instead of a network."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import numpy as np
import pytest
from drawn_mesh import BLANK, FPS, SIZE, face, figures, look, rises, run, talk, texture

from gaussian_head.errors import UserError
from gaussian_head.evaluation.action_unit_error import ActionUnitError, check_action_units, read_action_units
from gaussian_head.evaluation.blinks import Blinks, find_blinks, find_blinks_online
from gaussian_head.evaluation.coefficients import CoefficientError, check_coefficients
from gaussian_head.evaluation.landmark_distance import LandmarkDistance
from gaussian_head.evaluation.metric import Side
from gaussian_head.evaluation.mouth_aperture import MouthAperture
from gaussian_head.evaluation.neck_seam import NeckSeam
from gaussian_head.evaluation.pose_jitter import PoseJitter
from gaussian_head.evaluation.silence_leakage import SilenceLeakage
from gaussian_head.evaluation.smoothness import Smoothness
from gaussian_head.evaluation.word_error_rate import WordErrorRate, count_word_errors, pool_word_error_rate
from gaussian_head.geometry.landmarks import OPENFACE_ACTION_UNITS

METRICS = (
    LandmarkDistance, CoefficientError, ActionUnitError, Blinks, Smoothness, WordErrorRate, MouthAperture,
    SilenceLeakage, PoseJitter, NeckSeam,
)  # fmt: skip


def test_entries_have_names_of_their_own_and_say_what_they_need() -> None:
    entries = [entry for metric in METRICS for entry in metric.entries]
    assert len({entry.name for entry in entries}) == len(entries)
    known = {"truth", "landmarks", "audio", "coefficients", "action_units", "transcript", "camera", "weights"}
    assert all(entry.needs <= known and entry.reference and entry.title for entry in entries)
    assert all("MediaPipe" in entry.reference for entry in LandmarkDistance.entries)


# Landmarks


def landmarks(points: list[np.ndarray], truth: list[np.ndarray]) -> dict[str, float]:
    found = figures(LandmarkDistance, [look(mesh) for mesh in points], [look(mesh) for mesh in truth])
    return {name: figure.value for name, figure in found.items()}


def test_landmark_distances_of_equal_clips_are_nothing_and_grow_with_noise() -> None:
    talking = talk()
    assert landmarks(talking, talking) == {"lmd": 0, "flmd": 0, "liplmd": 0}
    noise = np.random.default_rng(0).normal(size=(len(talking), 478, 3))
    noisy = [[mesh + level * apart for mesh, apart in zip(talking, noise, strict=True)] for level in (0.5, 1, 2)]
    for name in ("lmd", "flmd", "liplmd"):
        assert rises([landmarks(clip, talking)[name] for clip in noisy])
    forward, backward = landmarks(noisy[0], talking), landmarks(talking, noisy[0])
    assert forward == pytest.approx(backward)


def test_only_liplmd_sees_where_the_face_is() -> None:
    talking = talk()
    found = landmarks([mesh + (3, -4, 9) for mesh in talking], talking)
    assert found == pytest.approx({"lmd": 0, "flmd": 0, "liplmd": 3.5}, abs=1e-12)


def test_frames_without_a_face_or_with_nan_are_counted() -> None:
    talking = talk()
    pictures, truths = [look(mesh) for mesh in talking], [look(mesh + 1) for mesh in talking]
    pictures[0], truths[7] = look(None), look(None)
    pictures[9] = look(np.full((478, 3), np.nan))
    for figure in figures(LandmarkDistance, pictures, truths).values():
        assert (figure.counted, figure.excluded, figure.reason) == (57, 3, "no face found")
        assert [i for i, value in enumerate(figure.trace) if value is None] == [0, 7, 9]


def test_no_face_at_all_has_no_value() -> None:
    nobody = [look(None)] * 12
    for metric in (LandmarkDistance, Blinks, MouthAperture, PoseJitter, NeckSeam):
        for figure in figures(metric, nobody, nobody).values():
            assert figure.value is None, figure
            assert figure.excluded == 12
            assert "no" in figure.reason


# Coefficients


def coefficient_sides(picture: np.ndarray, truth: np.ndarray) -> dict[str, Side]:
    return {"picture": Side(coefficients=picture), "truth": Side(coefficients=truth)}


def test_coefficients() -> None:
    rng = np.random.default_rng(0)
    truth, noise = rng.normal(size=(2, 30, 257)).astype(np.float32)
    blank = [look(None)] * 30
    same = figures(CoefficientError, blank, blank, **coefficient_sides(truth, truth))
    assert [figure.value for figure in same.values()] == [0, 0]
    values = []
    for level in (0.1, 0.2, 0.4):
        found = figures(CoefficientError, blank, blank, **coefficient_sides(truth + level * noise, truth))
        back = figures(CoefficientError, blank, blank, **coefficient_sides(truth, truth + level * noise))
        assert {k: f.value for k, f in found.items()} == {k: f.value for k, f in back.items()}
        values.append([figure.value for figure in found.values()])
    assert np.allclose(np.array(values) / values[0], [[1, 1], [2, 2], [4, 4]], rtol=1e-4)
    elsewhere = truth.copy()
    elsewhere[:, :80], elsewhere[:, 144:224], elsewhere[:, 227:254] = 9, 9, 9
    found = figures(CoefficientError, blank, blank, **coefficient_sides(elsewhere, truth))
    assert [figure.value for figure in found.values()] == [0, 0]


def test_coefficients_that_are_missing_short_or_broken() -> None:
    rows, blank = np.zeros((8, 257), np.float32), [look(None)] * 10
    measured = run(CoefficientError, blank, blank, picture=Side(coefficients=rows))
    assert measured.figures == ()
    assert measured.unavailable["posel1"].startswith("needs the truth's 3DMM coefficients")
    for figure in figures(CoefficientError, blank, blank, **coefficient_sides(rows[:7], rows)).values():
        assert (figure.counted, figure.excluded) == (7, 3)
        assert figure.reason == "coefficients are given for 7 frames of the picture, 8 of the truth"
    with pytest.raises(UserError, match=r"the truth's coefficients must be \[T, 257\].*got \[8, 73\]"):
        check_coefficients(np.zeros((8, 73)), "the truth's")
    rows[3:5, 100] = np.nan
    with pytest.raises(UserError, match=r"the picture's .* finite, got NaN .* 2 of 8 frames, first in frame 3"):
        run(CoefficientError, blank, blank, **coefficient_sides(rows, np.zeros((8, 257), np.float32)))


# Action units


def unit_sides(picture: np.ndarray, truth: np.ndarray) -> dict[str, Side]:
    return {"picture": Side(action_units=picture), "truth": Side(action_units=truth)}


def test_action_unit_error() -> None:
    rng = np.random.default_rng(0)
    truth, noise = rng.uniform(1, 3, (40, 17)), rng.normal(size=(40, 17))
    blank = [look(None)] * 40
    same = figures(ActionUnitError, blank, blank, **unit_sides(truth, truth))
    assert [figure.value for figure in same.values()] == [0, 0, 0]
    values = []
    for level in (0.1, 0.2):
        found = figures(ActionUnitError, blank, blank, **unit_sides(truth + level * noise, truth))
        assert found["aue"].value == pytest.approx(found["aue_upper"].value + found["aue_lower"].value)
        values.append(found["aue"].value)
    assert values[1] == pytest.approx(4 * values[0])
    mouth = truth.copy()
    mouth[:, OPENFACE_ACTION_UNITS.index(25)] += 2
    found = figures(ActionUnitError, blank, blank, **unit_sides(mouth, truth))
    assert [found[name].value for name in ("aue_upper", "aue_lower")] == pytest.approx([0, 4])


def test_action_units_that_are_missing_short_or_broken() -> None:
    rows, blank = np.ones((10, 17)), [look(None)] * 10
    assert "needs the picture's action units" in run(ActionUnitError, blank, blank).unavailable["aue"]
    broken = rows.copy()
    broken[2, 5] = np.nan
    found = figures(ActionUnitError, blank, blank, **unit_sides(broken, rows[:9] + 1))["aue"]
    assert (found.value, found.counted, found.excluded) == (17, 8, 2)
    assert "NaN" in found.reason
    with pytest.raises(UserError, match=r"must be \[T, 17\].*got \[10, 18\]"):
        check_action_units(np.ones((10, 18)), "the truth's")


def write_openface(path: Path, rows: list[dict[str, object]], drop: str = "") -> Path:
    names = ["frame", "face_id", "success", *(f"AU{unit:02d}_r" for unit in OPENFACE_ACTION_UNITS), "AU45_c"]
    names = [name for name in names if name != drop]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([names[0], *(f" {name}" for name in names[1:])])
        writer.writerows([[row.get(name, 0) for name in names] for row in rows])
    return path


def test_openface_files_are_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"frame": i + 1, "success": int(i != 2), "AU01_r": 0.5 * i, "AU45_r": 1.25} for i in range(4)]
    rows[3]["AU12_r"] = "-nan"
    with caplog.at_level(logging.WARNING):
        units = read_action_units(write_openface(tmp_path / "a.csv", rows))
    assert units.shape == (4, 17)
    assert units[:, 0].tolist() == [0, 0.5, 1, 1.5]
    assert units[:, 16].tolist() == [1.25] * 4
    assert np.argwhere(np.isnan(units)).tolist() == [[3, OPENFACE_ACTION_UNITS.index(12)]]
    assert "failed in 1 of 4 frames" in caplog.text


def test_one_of_several_faces_is_followed_and_the_others_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen = [(1, 1), (1, 0), (2, 0), (4, 0), (4, 1), (5, 1), (6, 1)]
    rows = [{"frame": frame, "face_id": who, "success": 1, "AU01_r": frame + 10 * who} for frame, who in seen]
    with caplog.at_level(logging.WARNING):
        units = read_action_units(write_openface(tmp_path / "a.csv", rows))
    assert "follows 2 faces; face 1 is taken (4 of 7 rows)" in caplog.text
    assert units[[0, 3, 4, 5], 0].tolist() == [11, 14, 15, 16]
    assert np.isnan(units[[1, 2]]).all()
    rows[0]["frame"] = 0
    with pytest.raises(UserError, match=r"several faces, so each row must tell its frame"):
        read_action_units(write_openface(tmp_path / "a.csv", rows))


def test_broken_openface_files_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a.csv lacks the columns AU14_r; use OpenFace"):
        read_action_units(write_openface(tmp_path / "a.csv", [{}], drop="AU14_r"))
    with pytest.raises(UserError, match=r"a.csv has 0 rows"):
        read_action_units(write_openface(tmp_path / "a.csv", []))
    with pytest.raises(FileNotFoundError, match=r"b.csv does not exist"):
        read_action_units(tmp_path / "b.csv")
    (tmp_path / "c.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match=r"c.csv is no CSV text"):
        read_action_units(tmp_path / "c.csv")


# Blinks


def eyelids(frames: int, blinks: list[int]) -> np.ndarray:
    """Aspect ratio with blinks of 6 frames that begin at the frames given; open eyes tremble a little."""
    ratios = 0.3 + 0.002 * np.cos(np.arange(frames) * 2.0)
    for first in blinks:
        ratios[first + 1 : first + 6] = 0.2, 0.08, 0.05, 0.12, 0.22
    return ratios


def test_blinks_are_counted_and_timed() -> None:
    for blinks in ([], [30], [20, 60, 110, 150]):
        found = figures(Blinks, [look(face(eyes=ratio)) for ratio in eyelids(200, blinks)])
        assert found["blinks_per_s"].value == pytest.approx(len(blinks) / 8)
        assert (found["blinks_per_s"].counted, found["blinks_per_s"].excluded) == (200, 0)
        if blinks:
            assert 6 <= found["blink_duration_s"].value * FPS <= 6 + 2 * 3  # eyes are widest every third frame
        else:
            assert (found["blink_duration_s"].value, found["blink_duration_s"].reason) == (None, "no blink found")


def test_frames_without_a_face_keep_the_eyes_as_they_were() -> None:
    ratios = eyelids(100, [30, 70])
    pictures = [look(face(eyes=ratio)) for ratio in ratios]
    for i in (*range(50, 55), 99):
        pictures[i] = look(None)
    found = figures(Blinks, pictures)["blinks_per_s"]
    assert found.value == pytest.approx(2 / 4)
    assert (found.counted, found.excluded) == (94, 6)
    assert "as in the frame before" in found.reason


def test_both_forms_find_a_plain_blink_and_bear_short_clips() -> None:
    ratios = eyelids(60, [30])
    starts, ends = find_blinks(ratios)
    assert (len(starts), len(find_blinks_online(ratios))) == (1, 1)
    assert starts[0] < 33 < ends[0]
    for frames in range(3):
        assert find_blinks(ratios[:frames])[0].size == 0
        assert find_blinks_online(ratios[:frames]) == []


# Smoothness


def test_still_pictures_do_not_move_and_faster_ones_move_more() -> None:
    pattern = texture()
    clips = [[look(None, np.roll(pattern, step * t, 1)) for t in range(4)] for step in (0, 1, 2, 3)]
    found = [figures(Smoothness, clip) for clip in clips]
    assert found[0]["flow_px"].value < 0.01
    assert found[0]["frame_mse"].value == found[0]["fmse_diffused"].value == 0
    assert rises([f["flow_px"].value for f in found])
    assert rises([f["frame_mse"].value for f in found])
    assert found[1]["flow_px"].value == pytest.approx(1, abs=0.2)
    assert (found[1]["flow_px"].counted, found[1]["flow_px"].trace[0]) == (3, None)


def test_noise_makes_pictures_restless() -> None:
    pattern = texture()
    noise = np.random.default_rng(1).normal(size=(3, SIZE, SIZE, 3))
    clips = [[look(None, (pattern + s * n).clip(0, 255).astype(np.uint8)) for n in noise] for s in (0, 4, 8, 16)]
    assert rises([figures(Smoothness, clip)["frame_mse"].value for clip in clips])


def test_smoothness_of_odd_sizes_and_single_frames() -> None:
    odd = np.random.default_rng(0).integers(0, 255, (91, 77, 3), dtype=np.uint8)
    assert all(np.isfinite(f.value) for f in figures(Smoothness, [look(None, odd), look(None, odd[::-1])]).values())
    for figure in figures(Smoothness, [look(None, odd)]).values():
        assert (figure.value, figure.counted, figure.reason) == (None, 0, "needs two frames")


# Words


def said(truth: str | None, picture: str | None = None) -> dict[str, Side]:
    return {"truth": Side(transcript=truth), "picture": Side(transcript=picture)}


def test_word_error_rate_of_transcripts() -> None:
    pictures = [look(None)] * 3
    found = figures(WordErrorRate, pictures, **said("one two three four", "one two three four"))["wer"]
    assert (found.value, found.counted) == (0, 3)
    worse = ["one two five", "one six five", ""]
    assert rises([figures(WordErrorRate, pictures, **said("one two three", w))["wer"].value for w in worse])
    measured = run(WordErrorRate, pictures, **said("one two three", "One two"))
    assert measured.features["wer"].tolist() == [[2, 3]]


def test_word_error_rate_pools_words_not_clips() -> None:
    counts = np.stack([count_word_errors("a", "b"), count_word_errors("a b c d e f g h i", "a b c d e f g h i")])
    assert pool_word_error_rate(counts) == pytest.approx(0.1)
    assert pool_word_error_rate(count_word_errors("a", "b c d")[None]) == 3
    with pytest.raises(ValueError, match="at least one word"):
        pool_word_error_rate(np.zeros((2, 2)))


def test_a_lip_reader_sees_every_frame() -> None:
    class Counter:
        def __init__(self) -> None:
            self.frames = 0

        def see(self, rgb: np.ndarray) -> None:
            assert rgb.shape == BLANK.shape
            self.frames += 1

        def words(self) -> str:
            return f"saw {self.frames} frames"

    reading = WordErrorRate.reading_with(Counter)
    assert figures(reading, [look(None)] * 5, **said("saw 5 frames"))["wer"].value == 0
    assert figures(reading, [look(None)] * 5, **said("saw 5 frames", "saw"))["wer"].value == pytest.approx(2 / 3)
    assert WordErrorRate.open_reader is None


@pytest.mark.parametrize(
    ("truth", "picture", "needs"), [(None, "a", "the truth's"), ("a", None, "the picture's"), (" ", "a", "no words")]
)
def test_word_error_rate_needs_both_transcripts(truth: str | None, picture: str | None, needs: str) -> None:
    assert needs in run(WordErrorRate, [look(None)], **said(truth, picture)).unavailable["wer"]
