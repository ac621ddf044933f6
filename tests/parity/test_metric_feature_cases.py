"""Frechet distance, FID, CSIM, Inception and ArcFace against what the references gave (specs/metrics.md, 3, 4.1)."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from fill import draw_image, fill_
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from gaussian_head.evaluation import csim, fid
from gaussian_head.evaluation.frechet import frechet_distance
from gaussian_head.evaluation.measure import measure
from gaussian_head.evaluation.metric import ClipFacts, Look, Metric, Pair
from gaussian_head.networks.arcface import IResNet
from gaussian_head.networks.inception import Inception, tensorflow_input

FRECHET = [f"frechet.{name}{of}" for name in ("full", "defic", "f32") for of in ("", ".self")]
EXACT = ("pytorch_fid_scipy_sqrtm", "laughing_matters_fvd", "exact_nuclear_norm")


def recorded(metric_cases: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    if name not in metric_cases:
        pytest.skip(f"the folder lacks {name}")
    return metric_cases[name]


def allowed(tolerance: dict[str, float], value: float) -> float:
    return max(tolerance.get("abs", 0.0), tolerance.get("rel", 0.0) * abs(value))


@pytest.mark.parametrize("name", FRECHET)
def test_frechet_distance_agrees_with_each_reference(metric_cases: Any, case_folder: Any, name: str) -> None:
    case = recorded(metric_cases, name)
    arrays = np.load(case_folder("metrics") / case["input"]["npz"])
    found = frechet_distance(arrays[case["input"]["x"]], arrays[case["input"]["y"]])
    tolerance = case["tol"]
    exact, piq = (
        tolerance.get(f"vs {reference}", tolerance)
        for reference in ("pytorch_fid/laughing_matters/exact", "piq_newton_schulz")
    )
    for reference, value in case["value"].items():
        limit = allowed(exact if reference in EXACT else piq, value)
        assert limit > 0
        assert abs(found - value) <= limit, reference


def test_cosine_agrees(metric_cases: Any, case_folder: Any) -> None:
    case = recorded(metric_cases, "csim.cosine")
    arrays = np.load(case_folder("metrics") / case["input"]["npz"])
    clips = [torch.from_numpy(arrays[name]) for name in sorted(arrays.files)]
    assert len(clips) == 2
    found = csim.measure_csim(*clips)
    assert abs(float(found.mean()) - case["value"]) <= case["tol"]["abs"]
    assert np.abs(found.numpy() - case["per_frame"]).max() <= case["tol"]["abs"]


@pytest.mark.parametrize("depth", [50, 100])
@torch.no_grad()
def test_arcface_agrees(case_folder: Any, depth: int) -> None:
    folder = case_folder(f"arcface_iresnet{depth}")
    manifest = json.loads((folder / "manifest.json").read_text())
    network = fill_(IResNet(depth).eval(), manifest["fill_seed"], gain=manifest["fill_gain"])
    state = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    assert state == {name: shape for name, shape, _ in manifest["params"]}
    numbers = [tensor.numel() for tensor in network.state_dict().values() if tensor.is_floating_point()]
    assert sum(numbers) == manifest["n_params"][""]
    (given,) = manifest["inputs"]
    case = np.load(folder / "case.npz")
    if given["stored_in_npz"]:
        faces = case[f"in:{given['name']}"]
    else:
        faces = draw_image(given["name"], given["shape"], seed=manifest["input_seed"], lo=-1, hi=1)
    expected, limits = case["out:embedding"], manifest["tolerance"]["embedding"]
    found = network(torch.from_numpy(faces)).numpy()
    assert np.all(np.abs(found - expected) <= limits["atol"] + limits["rtol"] * np.abs(expected))


@torch.no_grad()
def test_inception_agrees(case_folder: Any) -> None:
    folder = case_folder("inception_pool3")
    manifest = json.loads((folder / "manifest.json").read_text())
    network = fill_(Inception().eval(), manifest["fill_seed"], gain=manifest["fill_gain"])
    state = [[name, list(tensor.shape)] for name, tensor in network.state_dict().items()]
    assert state == [[name, shape] for name, shape, _ in manifest["params"]]
    assert sum(parameter.numel() for parameter in network.parameters()) == manifest["n_params"]["trainable"]
    (given,) = manifest["inputs"]
    pictures = np.rint(255 * draw_image(given["name"], given["shape"], seed=manifest["input_seed"]))
    found = network(tensorflow_input(torch.from_numpy(pictures.astype(np.uint8)))).numpy()
    expected = np.load(folder / "case.npz")["out:features"]
    assert np.abs(found - expected).max() <= manifest["tolerance"]["features"]["atol"]


class Toy12(torch.nn.Module):
    """The recordings' stand-in for Inception: averages of the quarters of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return adaptive_avg_pool2d(x, 2).flatten(1)


class Toy48(torch.nn.Module):
    """The recordings' stand-in for ArcFace: averages over a 4 x 4 grid of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return adaptive_avg_pool2d(x, 4).flatten(1)


@dataclass(frozen=True)
class Footage:
    """Some frames of a file, decoded as the references did: with the converter's default flags, not `media`'s."""

    path: Path
    first: int
    count: int

    def __iter__(self) -> Iterator[np.ndarray]:
        with av.open(str(self.path)) as container:
            for frame in itertools.islice(container.decode(video=0), self.first, self.first + self.count):
                yield frame.to_ndarray(format="rgb24")

    def digest(self) -> str:
        digest = hashlib.sha256()
        for frame in self:
            digest.update(np.ascontiguousarray(frame).tobytes())
        return digest.hexdigest()


def find_footage(name: str, video: dict[str, Any], folders: list[Path]) -> Footage:
    """Find frames with the recording's hash; the lossless copies equal their source, from some frame on."""
    facts = video["cases"][name]
    delay = re.search(r"select=gte\(n\\,(\d+)\)", facts["command"])
    starts = {facts["mp4_sha256"]: 0, video["source_sha256"]: int(delay[1]) if delay else 0}
    for path in (path for folder in folders for path in sorted(folder.glob("*.mp4"))):
        start = starts.get(hashlib.sha256(path.read_bytes()).hexdigest())
        if start is None:
            continue
        footage = Footage(path, start, facts["frames"])
        if footage.digest() == facts["rgb24_sha256_all_frames"]:
            return footage
    pytest.skip(f"no footage here decodes to the recorded {name}")


def compare(metric: type[Metric], pictures: Footage, truths: Footage) -> dict[str, float]:
    pairs = (
        Pair(i, Look(a, lambda _: None), Look(b, lambda _: None))
        for i, (a, b) in enumerate(zip(pictures, truths, strict=True))
    )
    measured = measure(pairs, ClipFacts(fps=25.0, width=0, height=0, has_truth=True), [metric])
    assert not measured.unavailable
    return {figure.entry: figure.value for figure in measured.figures}


@pytest.mark.parametrize("name", ["gt", "crf40", "blur3", "bright8", "shift3", "down128"])
def test_toy_extractors_agree_on_video(
    case_folder: Any, clips: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = case_folder("metrics")
    video = json.loads((folder / "reference_values.json").read_text()).get("video", {})
    expected = video.get("values", {}).get(name, {})
    if "vico_fid_toy12" not in expected:
        pytest.skip(f"the folder lacks {name}")
    pictures, truths = (find_footage(which, video, [folder, clips]) for which in (name, "gt"))
    monkeypatch.setattr(fid, "load_inception", lambda _device: Toy12())
    monkeypatch.setattr(csim, "load_arcface", lambda _device: Toy48())
    found = compare(fid.Fid, pictures, truths)["fid"]
    # The tolerances stand in the recording as sentences: "abs 3e-4 (...)", "abs 2e-6 (...)".
    limits = video["tolerances"]["strict_when_rgb_hash_matches"]
    for toy in ("vico_fid_toy12", "fid_toy12_exact_own_check"):
        assert abs(found - expected[toy]) <= float(limits[toy].split()[1]), toy
    found = compare(csim.Csim, pictures, truths)["csim"]
    assert abs(found - expected["vico_csim_toy48"]) <= limits["vico_csim_toy48"]
