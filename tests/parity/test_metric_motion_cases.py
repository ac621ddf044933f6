"""Landmark, coefficient, action-unit, blink, smoothness and word metrics against their references' recorded values.

A folder of cases that lacks an id skips it by name; inputs, values and tolerances are read from the folder. Where the
recording is a crash of the reference, ours is judged to leave the frame out and say so.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from gaussian_head.evaluation.action_unit_error import UNITS, ActionUnitError
from gaussian_head.evaluation.blinks import Blinks, aspect_ratio, eye_aspect_ratio, find_blinks, find_blinks_online
from gaussian_head.evaluation.coefficients import CoefficientError, coefficient_distance
from gaussian_head.evaluation.landmark_distance import (
    LandmarkDistance,
    landmark_distance,
    landmark_velocity_distance,
)
from gaussian_head.evaluation.measure import measure
from gaussian_head.evaluation.metric import ClipFacts, Figure, Look, Metric, Pair, Side
from gaussian_head.evaluation.smoothness import SIDE_PX, Smoothness, paint_flow, wrapped_square
from gaussian_head.evaluation.smoothness import flow_magnitude as flow
from gaussian_head.evaluation.word_error_rate import count_word_errors, pool_word_error_rate
from gaussian_head.geometry.landmarks import LIPS_68, MESH_TO_68

BLANK = np.zeros((4, 4, 3), np.uint8)
FPS = 25.0
"""Of all recordings."""


def look(points: np.ndarray | None) -> Look:
    """A picture in which the detector finds the 68 points given."""
    if points is None:
        return Look(BLANK, lambda _: None)
    mesh = np.zeros((478, 3))
    mesh[MESH_TO_68, :2] = points
    return Look(BLANK, lambda _: mesh)


def run(metric: type[Metric], pairs: list[Pair], **sides: Side) -> dict[str, Figure]:
    """Measure, as the command does."""
    has_truth = bool(sides) or any(pair.truth for pair in pairs)
    measured = measure(pairs, ClipFacts(FPS, 4, 4, has_truth, **sides), [metric])
    assert not measured.unavailable
    return {figure.entry: figure for figure in measured.figures}


class Recorded:
    """One array case."""

    def __init__(self, document: dict[str, Any], folder: Path) -> None:
        self.document, self.value, self.tol, self.input = document, *(document[k] for k in ("value", "tol", "input"))
        self._folder = folder

    def arrays(self) -> dict[str, np.ndarray]:
        return dict(np.load(self._folder / self.input["npz"]))

    def judge(self, found: float, part: str | None = None) -> None:
        value = self.value if part is None else self.value[part]
        if value is None:
            assert found is None
            return
        limits = self.tol if part is None or part not in self.tol else {"abs": self.tol[part]}
        assert found == pytest.approx(value, rel=limits.get("rel", 0), abs=limits.get("abs", 0)), part


@pytest.fixture
def recorded(request: pytest.FixtureRequest, metric_cases: dict[str, Any], case_folder: Any) -> Recorded:
    """The case that the test's parameter names."""
    if request.param not in metric_cases:
        pytest.skip(f"the folder has no case {request.param}")
    return Recorded(metric_cases[request.param], case_folder("metrics"))


def cases(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("recorded", names, indirect=True)


def landmark_figures(truth: Any, points: Any) -> dict[str, Figure]:
    """Measure over the shorter of both clips."""
    both = zip(points, truth, strict=False)
    return run(LandmarkDistance, [Pair(i, look(p), look(t)) for i, (p, t) in enumerate(both)])


LANDMARK_ENTRIES = {
    "liplmd.vico": "liplmd",
    "liplmd.vico.mismatch": "liplmd",
    "lmd.fae": "liplmd",
    "lmd.talkinggaussian.mouth": "lmd",
    "lmd.talkinggaussian.mismatch": "lmd",
    "lmd.talkinggaussian.face": "flmd",
}


@cases(*LANDMARK_ENTRIES)
def test_landmark_distances(recorded: Recorded) -> None:
    arrays = recorded.arrays()
    figures = landmark_figures(arrays[recorded.input["gt"]], arrays[recorded.input["pred"]])
    figure = figures[LANDMARK_ENTRIES[recorded.document["id"]]]
    recorded.judge(figure.value)
    assert (figure.counted, figure.excluded) == (recorded.document.get("frames", figure.counted), 0)


@cases("liplmd.vico.gt_missing")
def test_frames_without_a_true_face_are_left_out(recorded: Recorded) -> None:
    arrays = recorded.arrays()
    truth = [None if i % 5 == 0 else points for i, points in enumerate(arrays["gt"])]
    figure = landmark_figures(truth, arrays["pred"])["liplmd"]
    recorded.judge(figure.value)
    assert figure.counted == recorded.document["frames"]
    assert figure.excluded == len(truth) - figure.counted
    assert figure.reason == "no face found"


@cases("liplmd.vico.behaviour_gt_none", "liplmd.vico.behaviour_pred_empty")
def test_where_the_reference_crashes_the_frame_is_left_out_and_told(
    recorded: Recorded, metric_cases: dict[str, Any], case_folder: Any
) -> None:
    assert "Error" in recorded.value
    if "liplmd.vico" not in metric_cases:
        pytest.skip("the folder has no case liplmd.vico, whose landmarks this one shares")
    arrays = Recorded(metric_cases["liplmd.vico"], case_folder("metrics")).arrays()
    sides = {"gt": list(arrays["gt"]), "pred": list(arrays["pred"])}
    whole = landmark_figures(sides["gt"][1:], sides["pred"][1:])["liplmd"]
    sides["gt" if recorded.document["id"].endswith("gt_none") else "pred"][0] = None
    figure = landmark_figures(sides["gt"], sides["pred"])["liplmd"]
    assert figure.value == pytest.approx(whole.value)
    assert (figure.counted, figure.excluded, figure.reason) == (whole.counted, 1, "no face found")
    assert figure.trace[0] is None


@cases("lmd.talkinggaussian.last_face")
def test_one_frame(recorded: Recorded) -> None:
    """The reference's choice of the last face is its detector's; ours follows one face. The distance is judged."""
    arrays, frame = recorded.arrays(), recorded.input["frame"]
    points, truth = (arrays[recorded.input[side]][frame, LIPS_68] for side in ("pred", "gt"))
    recorded.judge(landmark_distance(points, truth, "centred"))


@cases("lmd.atvg")
def test_sum_over_the_lips(recorded: Recorded) -> None:
    arrays = recorded.arrays()
    lips = zip(arrays["pred"][:, LIPS_68], arrays["gt"][:, LIPS_68], strict=True)
    recorded.judge(np.mean([landmark_distance(p, t, "centred_sum") for p, t in lips]))


@cases("lmd.eat", "lmd.eat.mismatch")
def test_eat(recorded: Recorded) -> None:
    arrays = recorded.arrays()
    truth, points = (arrays[recorded.input[side]] for side in ("gt", "pred"))
    frames = min(len(truth), len(points))
    kept = np.arange(frames) * len(points) // frames
    assert kept.tolist() == recorded.document.get("pred_indices", kept.tolist())
    truth, points = (side[np.arange(frames) * len(side) // frames] for side in (truth, points))
    figures = landmark_figures(truth, points)
    velocity = landmark_velocity_distance(points[:, LIPS_68], truth[:, LIPS_68])
    recorded.judge(figures["lmd"].value, "M_LMD")
    recorded.judge(figures["flmd"].value, "F_LMD")
    recorded.judge(velocity, "M_LVD")
    if "F_LVD_as_coded" in recorded.value:  # the lips' sum over all 68 points: the reference's slip
        recorded.judge(velocity * 20 / 68, "F_LVD_as_coded")


@cases("lmd.talkinggaussian.uint8_roundtrip")
def test_pictures_survive_the_unit_range(recorded: Recorded) -> None:
    levels = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, 2)
    back = (Look(levels, lambda _: None).unit * 255).byte()[0, 0].numpy()
    assert levels[..., 0][back != levels[..., 0]].tolist() == recorded.value


@cases("expl1", "posel1")
def test_coefficients(recorded: Recorded) -> None:
    arrays = recorded.arrays()
    pairs = [Pair(i, look(None), look(None)) for i in range(len(arrays["gt"]))]
    sides = {"picture": Side(coefficients=arrays["pred"]), "truth": Side(coefficients=arrays["gt"])}
    recorded.judge(run(CoefficientError, pairs, **sides)[recorded.document["id"]].value)
    for part, columns in (("AngleL1", slice(224, 227)), ("TransL1", slice(254, 257))):
        if part in recorded.document:
            found = coefficient_distance(arrays["pred"], arrays["gt"], np.arange(257)[columns])
            assert found == pytest.approx(recorded.document[part], rel=recorded.tol["rel"])


@cases("aue.equal_length", "aue.mismatch")
def test_action_units(recorded: Recorded) -> None:
    arrays = recorded.arrays()
    sides = {}
    for side, name in (("picture", "pred"), ("truth", "gt")):
        key, _, rows = recorded.input[name].partition("[:")  # as in "gt[:55]"
        sides[side] = arrays[key][: int(rows.rstrip("]")) if rows else None]
    rows, longest = min(map(len, sides.values())), max(map(len, sides.values()))
    pairs = [Pair(i, look(None), look(None)) for i in range(longest)]
    figures = run(ActionUnitError, pairs, **{side: Side(action_units=units) for side, units in sides.items()})
    for part, name in (("AUE", "aue"), ("lower", "aue_lower"), ("upper", "aue_upper")):
        figure = figures[name]
        recorded.judge(figure.value, part)
        assert (figure.counted, figure.excluded) == (rows, longest - rows)
    assert set(figures) == set(UNITS)


BLINK_KEYS = ("lm_a", "lm_none", "lm_b", "ear_a", "ear_b")


def ratios_of(recorded: Recorded) -> np.ndarray:
    values = recorded.arrays()[recorded.input["key"]]
    return eye_aspect_ratio(values.astype(np.float64)) if values.ndim == 3 else values


@cases(*(f"blink.offline.{key}" for key in BLINK_KEYS))
def test_blinks(recorded: Recorded) -> None:
    ratios = ratios_of(recorded)
    first = recorded.document["ear_first10"]
    assert ratios[: len(first)] == pytest.approx(first, abs=1e-8)
    starts, ends = find_blinks(ratios)
    assert starts.tolist() == recorded.value["start"]
    assert ends.tolist() == recorded.value["end"]
    values = recorded.arrays()[recorded.input["key"]]
    if values.ndim == 3:
        figures = run(Blinks, [Pair(i, look(points)) for i, points in enumerate(values)])
        recorded.judge(figures["blinks_per_s"].value, "blinks_per_s")
        recorded.judge(figures["blink_duration_s"].value, "mean_duration_s")
    else:
        lengths = (ends - starts)[ends > starts]
        recorded.judge(len(lengths), "blinks")
        recorded.judge(float(lengths.mean()) if len(lengths) else None, "mean_duration_frames")


@cases(*(f"blink.online.{key}" for key in BLINK_KEYS))
def test_blinks_online(recorded: Recorded) -> None:
    assert [list(blink) for blink in find_blinks_online(ratios_of(recorded))] == recorded.value


@cases("ear.single")
def test_aspect_ratio_of_one_eye(recorded: Recorded) -> None:
    recorded.judge(float(aspect_ratio(np.array(recorded.input["points"], np.float64))))


def formula_frames(times: list[int]) -> np.ndarray:
    """The formula that the case `smoothness.synth` states."""
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX].astype(np.float64)
    frames = []
    for t in times:
        v = 127 + 60 * np.sin((x - 1.5 * t) / 6) * np.cos((y + 0.5 * t) / 9) + 40 * np.sin((x + y) / 15)
        frames.append(np.round(np.clip(np.stack([v, 0.9 * v + 5, 255 - v], -1), 0, 255)).astype(np.uint8))
    return np.stack(frames)


def smoothness_frames(recorded: Recorded) -> np.ndarray:
    name = recorded.document["id"].removeprefix("smoothness.")
    if name == "motion128":
        return recorded.arrays()[recorded.input["key"]]
    if name == "synth":
        frames = formula_frames(list(range(6)))
        assert hashlib.sha256(frames.tobytes()).hexdigest() == recorded.input["sha256"]
        return frames
    if name == "static":
        return formula_frames([0] * 4)
    levels = [int(level) for level in re.findall(r"\d+", recorded.input["formula"].partition(" in ")[2])]
    assert levels
    return np.stack([np.full((SIDE_PX, SIDE_PX, 3), level, np.uint8) for level in levels])


@cases("smoothness.motion128", "smoothness.synth", "smoothness.static", "smoothness.wrap")
def test_smoothness(recorded: Recorded) -> None:
    frames = smoothness_frames(recorded)
    figures = run(Smoothness, [Pair(i, Look(frame, lambda _: None)) for i, frame in enumerate(frames)])
    grays = [Look(frame, lambda _: None).gray for frame in frames]
    painted = np.stack([paint_flow(flow(a, b)) for a, b in zip(grays, grays[1:], strict=False)])
    squares = np.stack([wrapped_square(a, b) for a, b in zip(frames, frames[1:], strict=False)])
    found = {
        "flow_mean": figures["ofm_diffused"].value,
        "flow_std": painted.std(dtype=np.float64),
        "mse": figures["fmse_diffused"].value,
        "mse_std": squares.std(dtype=np.float64),
    }
    judged = [part for part, limit in recorded.tol.items() if limit is not None]
    assert judged
    for part in judged:
        recorded.judge(found[part], part)
    meant = recorded.document.get("conventional", {})
    if meant:
        assert figures["flow_px"].value == pytest.approx(meant["mean_flow_magnitude_px"], rel=1e-3)
        assert figures["frame_mse"].value == pytest.approx(meant["true_mse"], rel=1e-9)


@cases("wer")
def test_word_error_rates(recorded: Recorded) -> None:
    counts = np.stack([count_word_errors(said, read) for said, read in recorded.input["pairs"]])
    for count, value in zip(counts, recorded.value, strict=True):
        assert pool_word_error_rate(count[None]) == pytest.approx(value, abs=recorded.tol["abs"])
    assert pool_word_error_rate(counts) == pytest.approx(recorded.document["corpus"], abs=recorded.tol["abs"])


def test_smoothness_of_the_recorded_video(case_folder: Any) -> None:
    """The clip is larger than 128 px, so that this judges the scaling too; decoded as the references decode."""
    folder = case_folder("metrics")
    document = json.loads((folder / "reference_values.json").read_text())["video"]
    value = document["values"].get("crf40", {}).get("diffused_heads_smoothness")
    if value is None or not (folder / "crf40.mp4").is_file():
        pytest.skip("the folder has no crf40.mp4 with values (footage is not kept here)")
    with av.open(str(folder / "crf40.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    digest = hashlib.sha256(b"".join(frame.tobytes() for frame in frames)).hexdigest()
    same = digest == document["cases"]["crf40"]["rgb24_sha256_all_frames"]
    limits = document["tolerances"]["strict_when_rgb_hash_matches" if same else "loose_when_hash_differs"]
    figures = run(Smoothness, [Pair(i, Look(frame, lambda _: None)) for i, frame in enumerate(frames)])
    assert figures["ofm_diffused"].value == pytest.approx(value["flow_mean"], abs=limits["flow_mean"])
    assert figures["fmse_diffused"].value == pytest.approx(value["mse"], abs=limits["mse"])
    assert figures["flow_px"].counted == len(frames) - 1
