"""PSNR, SSIM, CPBD and LPIPS against what the references gave (specs/metrics.md sections 2 and 12)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from gaussian_head.evaluation.cpbd import decision_edges, edge_widths, measure_cpbd, measured_edges
from gaussian_head.evaluation.lpips import load_heads, perceptual_distance
from gaussian_head.evaluation.metric import Look
from gaussian_head.evaluation.psnr import measure_psnr, measure_psnr_vico
from gaussian_head.evaluation.ssim import measure_ssim, measure_ssim_skimage, pooling_factor, similarity_vico
from gaussian_head.media.video import read_frames_by_default
from gaussian_head.networks.alexnet import AlexNet
from gaussian_head.networks.weights import WeightsMissingError, sha256_of

Cases = dict[str, dict[str, Any]]
Measure = Callable[[np.ndarray, np.ndarray], float]


def unit(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1) / 255


def psnr_by_channel(picture: np.ndarray, truth: np.ndarray) -> float:
    """The mean of the three channels' PSNRs, as 3D Gaussian splatting's own script has it: each channel as a grey."""
    gray = [(picture[..., [c] * 3], truth[..., [c] * 3]) for c in range(3)]
    return float(np.mean([measure_psnr(*pair) for pair in gray]))


PAIRS: dict[str, Measure] = {
    "psnr.vico.frames96": measure_psnr_vico,
    "psnr.vico.identical": measure_psnr_vico,
    "psnr.vico.plus8": measure_psnr_vico,
    "psnr.vico.synth400x384": measure_psnr_vico,
    "psnr.talkinggaussian.frames96": measure_psnr,
    "psnr.eat.frames96": measure_psnr,
    "psnr.3dgs.frames96": psnr_by_channel,
    "ssim.3dgs.frames96": measure_ssim,
    "ssim.vico.frames96": lambda picture, truth: similarity_vico(unit(picture), unit(truth)),
    "ssim.vico.synth400x384": lambda picture, truth: similarity_vico(unit(picture), unit(truth)),
    "ssim.eat.frames96": measure_ssim_skimage,
}
CPBD = (
    "cpbd.real_gt",
    "cpbd.real_crf40",
    "cpbd.full_down",
    "cpbd.synth_tex_1.0",
    "cpbd.synth_tex_0.5",
    "cpbd.synth_tex_0.2",
    "cpbd.step_edges",
    "cpbd.constant",
    "cpbd.small48",
)
LPIPS = {
    "lpips.alex.formula_weights": lambda picture: picture,
    "lpips.alex.formula_weights.normalize_false": lambda picture: (picture + 1) / 2,  # so that [0, 1] stays as it is
    "lpips.talkinggaussian_lpipsPyTorch": lambda picture: picture,
}
NOT_JUDGED = {
    "psnr.atvg.frames96": "records a fault of ATVGnet (squares wrap around in uint8), which is not to be reproduced",
    "ssim.eat.multichannel_kwarg": "records that an old keyword of scikit-image no longer works; no value",
}


def find(cases: Cases, name: str) -> dict[str, Any]:
    if name not in cases:
        pytest.skip(f"the folder holds no {name}")
    return cases[name]


def assert_within(got: float | list[float], case: dict[str, Any]) -> None:
    tolerance = case["tol"]
    expected = np.array(case["value"], float)
    assert np.shape(got) == expected.shape
    allowed = tolerance.get("abs", 0) + tolerance.get("rel", 0) * np.abs(expected)
    worst = np.abs(np.array(got) - expected) - allowed
    assert np.all(worst <= 0), f"{case['id']}: got {got}, expected {case['value']}, tolerance {tolerance}"


def frames(folder: Path, described: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The pictures and truths [N, H, W, 3] that a case's `input` describes."""
    if "formula" in described:
        pair = synthetic_pair()
        for name, picture in zip(("pred", "gt"), pair, strict=True):
            assert hashlib.sha256(picture.tobytes()).hexdigest() == described[f"sha256_{name}"], "formula misread"
        return pair[0][None], pair[1][None]
    arrays = np.load(folder / described["npz"])
    truths = arrays[described.get("gt", "gt")]
    wanted = described.get("pred", "pred")
    if wanted == "min(gt.astype(int)+8,255)":
        return np.minimum(truths.astype(int) + 8, 255).astype(np.uint8), truths
    return arrays[wanted], truths


def synthetic_pair() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:400, :384]
    waves = [127 + 90 * np.sin(x / 9) * np.cos(y / 13), 127 + 80 * np.cos((x + y) / 17), (3 * x + 5 * y) % 256.0]
    truth = np.rint(np.stack(waves, -1).clip(0, 255)).astype(np.uint8)
    picture = 0.85 * truth + 12 + 10 * np.sin((7 * x + 3 * y) / 5)[..., None]
    return np.rint(picture.clip(0, 255)).astype(np.uint8), truth


@pytest.mark.parametrize("name", PAIRS)
def test_pairs(metric_cases: Cases, case_folder: Callable[[str], Path], name: str) -> None:
    case = find(metric_cases, name)
    pictures, truths = frames(case_folder("metrics"), case["input"])
    got = [PAIRS[name](picture, truth) for picture, truth in zip(pictures, truths, strict=True)]
    assert_within(got if isinstance(case["value"], list) else float(np.mean(got)), case)


def test_pooling_factor(metric_cases: Cases) -> None:
    case = find(metric_cases, "ssim.vico.pool_factor")
    assert [pooling_factor(side, side + 7) for side in case["input"]["min_side"]] == case["value"]
    assert [pooling_factor(side + 7, side) for side in case["input"]["min_side"]] == case["value"]


@pytest.mark.parametrize("name", CPBD)
def test_cpbd(metric_cases: Cases, case_folder: Callable[[str], Path], name: str) -> None:
    case = find(metric_cases, name)
    gray = gray_picture(case_folder("metrics"), case["input"])
    assert_within(measure_cpbd(gray), case)
    widths = edge_widths(gray)[2]
    steps = {
        "canny_pixels": decision_edges(gray).sum(),
        "sobel_edge_pixels": measured_edges(gray).sum(),
        "edges_with_width": len(widths),
        "sum_of_widths": widths.sum(),
    }
    recorded = case.get("intermediate", {})
    assert {step: steps[step] for step in recorded} == recorded


def gray_picture(folder: Path, described: dict[str, Any]) -> np.ndarray:
    if "npz" in described:
        picture = np.load(folder / described["npz"])[described["key"]]
        return picture[:48, :48] if described.get("slice") == "[:48,:48]" else picture
    formula = described["formula"]
    y, x = np.mgrid[0:128, 0:192]
    if formula == "full((128,128),77,uint8)":
        return np.full((128, 128), 77, np.uint8)
    if formula == "where(((x+7)%64)<32,30,220) uint8 on mgrid[0:128,0:192]":
        return np.where((x + 7) % 64 < 32, 30, 220).astype(np.uint8)
    f = float(formula.split("sin(x*")[1].split("/")[0])
    picture = np.rint(128 + 60 * np.sin(x * f / 1.3 + y / 7.3) + 50 * np.sin(f * x * y / 97)).clip(0, 255)
    picture = picture.astype(np.uint8)
    assert hashlib.sha256(picture.tobytes()).hexdigest() == described["sha256"], "formula misread"
    return picture


@pytest.mark.parametrize("name", LPIPS)
def test_lpips(metric_cases: Cases, case_folder: Callable[[str], Path], name: str) -> None:
    case = find(metric_cases, name)
    try:
        heads = load_heads()
    except WeightsMissingError as error:
        pytest.skip(f"LPIPS's linear heads: {error}; pip install --no-deps lpips==0.1.4")
    arrays = np.load(case_folder("metrics") / case["input"]["npz"])
    pair = [LPIPS[name](torch.from_numpy(arrays[key]).permute(0, 3, 1, 2) / 255) for key in ("pred", "gt")]
    assert_within(perceptual_distance(formula_alexnet(), heads, *pair).tolist(), case)


def formula_alexnet() -> AlexNet:
    """The case's weights: a wiring check, no model."""
    network = AlexNet()
    for k, parameter in enumerate(network.state_dict().values()):
        values = np.sin(12.9898 * np.arange(1, parameter.numel() + 1) + 78.233 * (k + 1))
        values *= np.sqrt(2 / np.prod(parameter.shape[1:])) if parameter.ndim > 1 else 0.05
        parameter.copy_(torch.from_numpy(values).float().reshape(parameter.shape))
    return network.eval()


def test_no_image_case_goes_unjudged(metric_cases: Cases) -> None:
    judged = {*PAIRS, *LPIPS, *NOT_JUDGED, "ssim.vico.pool_factor", *CPBD}
    mine = {name for name in metric_cases if name.split(".")[0] in {"psnr", "ssim", "cpbd", "lpips"}}
    assert mine <= judged


@pytest.fixture(scope="module")
def crf40(case_folder: Callable[[str], Path]) -> tuple[Path, dict[str, Any]]:
    """The one video that is kept, and what the document says of it."""
    folder = case_folder("metrics")
    video = json.loads((folder / "reference_values.json").read_text()).get("video", {})
    path = folder / "crf40.mp4"
    if not all("crf40" in video.get(part, {}) for part in ("cases", "values")) or not path.is_file():
        pytest.skip("the folder holds no crf40.mp4 (footage is not kept here): pytest tests/parity --cases DIR")
    return path, video


def sha256(pictures: np.ndarray) -> str:
    return hashlib.sha256(pictures.tobytes()).hexdigest()


def decode(path: Path, count: int, pixels: str) -> np.ndarray:
    """The first frames with swscale's default flags, as every reference has them."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format=pixels) for frame in islice(container.decode(video=0), count)])


def test_decoded_video_is_the_references(crf40: tuple[Path, dict[str, Any]]) -> None:
    path, video = crf40
    stated = video["cases"]["crf40"]
    assert sha256(decode(path, stated["frames"], "yuv420p")) == stated["yuv420p_sha256_all_frames"]
    rgb = decode(path, stated["frames"], "rgb24")
    assert len(rgb) == stated["frames"]
    assert sha256(rgb) == stated["rgb24_sha256_all_frames"]
    assert {k: sha256(rgb[int(k)]) for k in stated["rgb24_sha256_frame"]} == stated["rgb24_sha256_frame"]


def test_our_reader_gives_the_references_pixels(crf40: tuple[Path, dict[str, Any]]) -> None:
    path, video = crf40
    stated = video["cases"]["crf40"]
    rgb = np.stack(list(read_frames_by_default(path)))
    assert {k: sha256(rgb[int(k)]) for k in stated["rgb24_sha256_frame"]} == stated["rgb24_sha256_frame"]
    assert sha256(rgb) == stated["rgb24_sha256_all_frames"]


def test_cpbd_of_the_video(crf40: tuple[Path, dict[str, Any]]) -> None:
    path, video = crf40
    recorded = video["values"]["crf40"]["vico_cpbd_first5_frames"]
    got = [measure_cpbd(gray_of(picture)) for picture in decode(path, len(recorded), "rgb24")]
    assert got == pytest.approx(recorded, abs=video["tolerances"]["strict_when_rgb_hash_matches"]["cpbd"])


@pytest.mark.slow
def test_the_video_against_its_source(crf40: tuple[Path, dict[str, Any]], clips: Path) -> None:
    """Every figure of the compressed clip, where the footage it was made from is at hand."""
    path, video = crf40
    source = next((file for file in clips.glob("*.mp4") if sha256_of(file) == video["source_sha256"]), None)
    if source is None:
        pytest.skip("the clips do not hold the footage that crf40.mp4 was made from")
    count = video["cases"]["crf40"]["frames"]
    truths = decode(source, count, "rgb24")
    assert sha256(truths) == video["cases"]["gt"]["rgb24_sha256_all_frames"]
    pairs = list(zip(decode(path, count, "rgb24"), truths, strict=True))
    recorded, tolerance = video["values"]["crf40"], video["tolerances"]["strict_when_rgb_hash_matches"]

    by_frame = [measure_psnr_vico(*pair) for pair in pairs]
    assert by_frame == pytest.approx(recorded["vico_psnr_per_frame"], abs=tolerance["psnr"])
    assert np.mean(by_frame) == pytest.approx(recorded["vico_base"]["psnr"], abs=tolerance["psnr"])
    plain = np.mean([measure_psnr(*pair) for pair in pairs])
    assert plain == pytest.approx(recorded["talkinggaussian_psnr"], abs=tolerance["talkinggaussian_psnr"])
    by_channel = np.mean([psnr_by_channel(*pair) for pair in pairs])
    assert by_channel == pytest.approx(recorded["gs_psnr_per_channel_mean"], abs=tolerance["gs_psnr_per_channel_mean"])
    by_frame = [similarity_vico(unit(picture), unit(truth)) for picture, truth in pairs]
    assert by_frame == pytest.approx(recorded["vico_ssim_per_frame"], abs=tolerance["ssim"])
    assert np.mean(by_frame) == pytest.approx(recorded["vico_base"]["ssim"], abs=tolerance["ssim"])
    by_frame = [measure_ssim(*pair) for pair in pairs]
    first = recorded["gs_ssim_first5_frames"]
    assert by_frame[: len(first)] == pytest.approx(first, abs=tolerance["gs_ssim_mean"])
    assert np.mean(by_frame) == pytest.approx(recorded["gs_ssim_mean"], abs=tolerance["gs_ssim_mean"])
    for name, pictures in (("crf40", [picture for picture, _ in pairs]), ("gt", truths)):
        sharpness = np.mean([measure_cpbd(gray_of(picture)) for picture in pictures])
        assert sharpness == pytest.approx(video["values"][name]["vico_cpbd"]["cpbd"], abs=tolerance["cpbd"])


def gray_of(picture: np.ndarray) -> np.ndarray:
    return Look(picture, lambda _: None).gray
