"""Lip sync against the recorded cases: sound features, both networks, face tracks, crops, offsets and distances."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import fill
import numpy as np
import pytest
import torch

from gaussian_head.evaluation.face_track import Track, crop_face, steady, track_faces
from gaussian_head.evaluation.sync import measure_sync
from gaussian_head.media.mfcc import extract_mfcc
from gaussian_head.networks.s3fd import S3FD
from gaussian_head.networks.syncnet import SyncNet


class Recorded:
    """A folder with a manifest and one case.npz."""

    def __init__(self, folder: Path) -> None:
        self.manifest = json.loads((folder / "manifest.json").read_text())
        self.arrays = np.load(folder / "case.npz")

    def input(self, name: str) -> np.ndarray:
        entry = next(entry for entry in self.manifest["inputs"] if entry["name"] == name)
        if entry["stored_in_npz"]:
            return self.arrays[f"in:{name}"]
        function, _, arguments = entry["recipe"].partition("(")
        low, high = (float(arguments.split(f"{key}=")[1].split(",")[0].rstrip(")")) for key in ("lo", "hi"))
        draw = {"fill.draw": fill.draw, "fill.draw_image": fill.draw_image}[function]
        return draw(name, entry["shape"], self.manifest["input_seed"], low, high)

    def filled(self, network: torch.nn.Module) -> torch.nn.Module:
        """Check names and shapes of the parameters, and set the recording's values."""
        state = network.state_dict()
        assert {name: list(value.shape) for name, value in state.items()} == {
            name: shape for name, shape, _ in self.manifest["params"]
        }
        return fill.fill_(network, self.manifest["fill_seed"], self.manifest["fill_gain"]).eval()

    def check(self, name: str, value: np.ndarray) -> None:
        entry = next(entry for entry in self.manifest["outputs"] if entry["name"] == name)
        tolerance, expected = self.manifest["tolerance"][name], self.arrays[f"out:{name}"]
        assert list(np.shape(value)) == entry["shape"]
        value = np.asarray(value)[tuple(slice(None, None, step) for step in entry["stride"] or [1] * np.ndim(value))]
        if tolerance.get("exact"):
            np.testing.assert_array_equal(value, expected)
        else:
            np.testing.assert_allclose(value, expected, tolerance["rtol"], tolerance["atol"])


@pytest.fixture
def recorded(request: pytest.FixtureRequest, case_folder: Any) -> Recorded:
    return Recorded(case_folder(request.param))


def parametrize(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("recorded", [name], indirect=True)


@parametrize("syncnet_mfcc")
def test_mfcc(recorded: Recorded) -> None:
    recorded.check("mfcc", extract_mfcc(recorded.input("wav_int16")).T)


@parametrize("syncnet_s")
@torch.inference_mode()
def test_syncnet(recorded: Recorded) -> None:
    network = recorded.filled(SyncNet())
    recorded.check("audio", network.encode_sound(torch.from_numpy(recorded.input("mfcc"))).numpy())
    lip = torch.from_numpy(recorded.input("lip"))
    recorded.check("lip", network.encode_lips(lip).numpy())
    recorded.check("lipfeat", network.lip_features(lip).numpy())


@parametrize("syncnet_s3fd")
@torch.inference_mode()
def test_s3fd(recorded: Recorded) -> None:
    offsets, scores, places = recorded.filled(S3FD())(torch.from_numpy(recorded.input("image")))
    recorded.check("loc", offsets.numpy())
    recorded.check("conf", scores.numpy())
    recorded.check("priors", places)


@parametrize("syncnet_offset")
def test_offset_of_recorded_features(recorded: Recorded) -> None:
    sync = measure_sync(*(torch.from_numpy(recorded.input(name)) for name in ("lip_emb", "aud_emb")))
    recorded.check("mdist", sync.curve[::-1])
    recorded.check("offset", np.array([sync.offset]))
    recorded.check("minval", np.array([sync.distance]))
    recorded.check("conf", np.array([sync.confidence]))
    recorded.check("framewise_conf_medfilt9", sync.confidences)


@pytest.mark.parametrize("name", ["offp2", "off0", "offm5", "rand", "offp2.vshift10"])
def test_offset(name: str, metric_cases: dict[str, dict[str, Any]], case_folder: Any) -> None:
    case = get(metric_cases, f"syncnet.{name}")
    features = np.load(case_folder("metrics") / case["input"]["npz"])
    max_shift = int(re.search(r"vshift[ =](\d+)", case["reference"])[1])
    lips, sound = (torch.from_numpy(features[case["input"][key]]) for key in ("im", "au"))
    sync = measure_sync(lips, sound, max_shift=max_shift)
    expected, tolerance = case["value"], case["tol"]
    assert sync.offset == expected["offset"]
    assert sync.confidence == pytest.approx(expected["confidence"], abs=tolerance["confidence"])
    assert sync.distance == pytest.approx(expected["min_dist"], abs=tolerance["min_dist"])
    if "mean_dist_per_shift" in case:
        np.testing.assert_allclose(sync.curve[::-1], case["mean_dist_per_shift"], atol=tolerance["min_dist"])
        np.testing.assert_allclose(sync.confidences, case["framewise_conf_medfilt9"], atol=tolerance["confidence"])


@pytest.mark.parametrize("name", ["track_shot", "track_shot.short"])
def test_tracks(name: str, metric_cases: dict[str, dict[str, Any]], case_folder: Any) -> None:
    case = get(metric_cases, f"syncnet.{name}")
    detections, size_px = (int(re.search(rf"{key} (\d+)", case["reference"])[1]) for key in ("min_track", "face_size"))
    tracks = track_faces(detections_of(case, case_folder), min_detections=detections, min_size_px=float(size_px))
    assert len(tracks) == len(case["value"])
    for track, expected in zip(tracks, case["value"], strict=True):
        assert (track.first, track.last, len(track.boxes)) == (expected["first"], expected["last"], expected["n"])
        values = {"bbox_first": track.boxes[0], "bbox_last": track.boxes[-1], "bbox_mean": np.mean(track.boxes, 0)}
        for key, value in values.items():
            np.testing.assert_allclose(value, expected[key], atol=case["tol"]["abs"], rtol=0)


def test_crop(metric_cases: dict[str, dict[str, Any]], case_folder: Any) -> None:
    case = get(metric_cases, "syncnet.crop")
    expected, tolerance = case["value"], case["tol"]
    track: Track = track_faces(detections_of(case, case_folder))[0]
    places = steady(np.stack(track.boxes))
    assert len(places) == expected["n"]
    for column, key in enumerate(("x_first10", "y_first10", "s_first10")):
        np.testing.assert_allclose(places[:10, column], expected[key], atol=tolerance["s,x,y"], rtol=0)
    size = tuple(int(side) for side in re.match(r"H=(\d+),W=(\d+)", case["input"]["frame_formula"]).groups())
    crops = [crop_face(drawn_frame(track.first + i, *size), *place) for i, place in enumerate(places)]
    means = [crop.mean() for crop in crops]
    np.testing.assert_allclose(means[:5], expected["crop_mean_first5"], atol=tolerance["crop_mean"])
    assert means[-1] == pytest.approx(expected["crop_mean_last"], abs=tolerance["crop_mean"])
    pixels = crops[0][np.ix_([0, 100, 223], [0, 100, 223])]
    np.testing.assert_array_equal(pixels, expected["pixels_crop0_rows_0_100_223_col_0_100_223"])
    assert hashlib.sha256(crops[0].tobytes()).hexdigest() == expected["crop0_sha256"]


def get(cases: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    if name not in cases:
        pytest.skip(f"--cases holds no {name}")
    return cases[name]


def detections_of(case: dict[str, Any], case_folder: Any) -> list[np.ndarray]:
    rows = np.load(case_folder("metrics") / case["input"]["npz"])["dets"]
    return [rows[rows[:, 0] == frame, 1:5] for frame in range(int(rows[:, 0].max()) + 1)]


def drawn_frame(t: int, height: int, width: int) -> np.ndarray:
    """The picture of the case's `frame_formula`."""
    y, x = np.mgrid[:height, :width]
    return (((3 * x + 5 * y) // 4 + 2 * t)[..., None] + np.array([0, 40, 90])).astype(np.uint8)
