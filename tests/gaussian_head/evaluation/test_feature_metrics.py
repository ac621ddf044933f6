"""FID, FVD and CSIM: ideal on equal clips, worse as pictures get worse, honest where weights or samples are missing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, adaptive_avg_pool3d

from gaussian_head.evaluation import csim, fid, fvd
from gaussian_head.evaluation.frechet import frechet_distance
from gaussian_head.evaluation.measure import Measured, measure
from gaussian_head.evaluation.metric import ClipFacts, Figure, Look, Metric, Pair
from gaussian_head.networks.arcface import IResNet, whole_frame_input
from gaussian_head.networks.inception import Inception

Clip = list[np.ndarray]
METRICS = (fid.Fid, fvd.Fvd, csim.Csim)
LENGTH = {fid.Fid: 8, fvd.Fvd: 48, csim.Csim: 8}
"""Frames that are enough for each."""


@pytest.fixture(autouse=True)
def _without_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("GAUSSIAN_HEAD_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)


def clip(frames: int, seed: int = 0, size: tuple[int, int] = (48, 64)) -> Clip:
    """Draw coloured noise, smooth in the picture and drifting in time."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (frames + 4, 6, 8, 3))
    smooth = [coarse[i : i + 5].mean(0).astype(np.float32) for i in range(frames)]
    return [cv2.resize(each, size[::-1], interpolation=cv2.INTER_LINEAR).round().astype(np.uint8) for each in smooth]


def altered(pictures: Clip, change: Callable[[np.ndarray], np.ndarray]) -> Clip:
    return [np.clip(change(each.astype(np.float64)).round(), 0, 255).astype(np.uint8) for each in pictures]


def measured(metric: type[Metric], pictures: Clip, truths: Clip) -> Measured:
    looks = [[Look(each, lambda _: None) for each in side] for side in (pictures, truths)]
    pairs = (Pair(i, picture, truth) for i, (picture, truth) in enumerate(zip(*looks, strict=True)))
    return measure(pairs, ClipFacts(fps=25.0, width=64, height=48, has_truth=True), [metric])


def figures(metric: type[Metric], pictures: Clip, truths: Clip) -> dict[str, Figure]:
    result = measured(metric, pictures, truths)
    assert not result.unavailable
    return {figure.entry: figure for figure in result.figures}


class Pools(nn.Module):
    """A stand-in for Inception and ArcFace: averages over a grid."""

    def forward(self, x: Tensor) -> Tensor:
        return adaptive_avg_pool2d(x, 6).flatten(1)


class VideoPools(nn.Module):
    """A stand-in for I3D, with its switches; like others' code it writes to what it is given."""

    def forward(self, x: Tensor, rescale: bool, resize: bool, return_features: bool) -> Tensor:  # noqa: FBT001
        assert rescale
        assert resize
        assert return_features
        x.div_(255)
        return adaptive_avg_pool3d(x, [4, 6, 6]).flatten(1)


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put stand-ins where the networks would be."""
    monkeypatch.setattr(fid, "load_inception", lambda _device: Pools())
    monkeypatch.setattr(csim, "load_arcface", lambda _device: Pools())
    torch.jit.script(VideoPools()).save(str(tmp_path / "i3d.pt"))
    monkeypatch.setenv("GAUSSIAN_HEAD_I3D", str(tmp_path / "i3d.pt"))


# The distance


def samples(count: int, dimensions: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(count, dimensions)) @ rng.normal(size=(dimensions, dimensions))
    return mixed + rng.normal(size=dimensions)


@pytest.mark.parametrize(("n", "m", "d"), [(40, 40, 6), (5, 7, 30), (5, 90, 30), (90, 5, 30), (2, 2, 3)])
def test_distance_is_zero_to_itself_and_symmetric(n: int, m: int, d: int) -> None:
    x, y = samples(n, d), samples(m, d, seed=1)
    scale = np.square(x - x.mean(0)).sum() / (n - 1)
    assert frechet_distance(x, x) <= 1e-12 * scale
    assert frechet_distance(x, y) > 0
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-12)


@pytest.mark.parametrize("count", [20, 400])
def test_distance_of_a_shift_is_its_square(count: int) -> None:
    x, shift = samples(count, 50), np.linspace(-1, 2, 50)
    assert frechet_distance(x + shift, x) == pytest.approx(np.square(shift).sum(), rel=1e-9)


@pytest.mark.parametrize("count", [20, 400])
def test_distance_of_a_stretch_is_known(count: int) -> None:
    x = samples(count, 50)
    variance = np.square(x - x.mean(0)).sum() / (count - 1)
    stretched = x.mean(0) + 3 * (x - x.mean(0))
    assert frechet_distance(stretched, x) == pytest.approx(4 * variance, rel=1e-9)


def test_distance_equals_the_textbook_form_where_that_is_stable() -> None:
    from scipy.linalg import sqrtm

    x, y = samples(300, 8), samples(200, 8, seed=1)
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    textbook = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(s + t - 2 * sqrtm(s @ t).real)
    assert frechet_distance(x, y) == pytest.approx(textbook, rel=1e-9)


def test_distance_ignores_the_order_of_samples_and_takes_float32() -> None:
    x, y = samples(30, 12).astype(np.float32), samples(25, 12, seed=1).astype(np.float32)
    expected = frechet_distance(x.astype(np.float64), y.astype(np.float64))
    assert frechet_distance(x[::-1], y) == pytest.approx(expected, rel=1e-12)


def test_distance_refuses_what_has_none() -> None:
    x = samples(5, 3)
    for features, truths, message in (
        (x[:1], x, "needs at least 2 samples on each side, features has 1"),
        (x, x[:0], "needs at least 2 samples on each side, truths has 0"),
        (np.where(x == x[2, 1], np.nan, x), x, "finite values, features holds NaN"),
        (x, x * np.inf, "finite values, truths holds NaN"),
        (x, x[:, :2], "same dimensions, got 3 and 2"),
    ):
        with pytest.raises(ValueError, match=message):
            frechet_distance(features, truths)


# Ideal values and degradation, with stand-ins for the networks


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("metric", METRICS)
def test_equal_clips_are_ideal(metric: type[Metric]) -> None:
    pictures = clip(LENGTH[metric])
    for entry, figure in figures(metric, pictures, pictures).items():
        assert figure.value == pytest.approx(1.0 if entry == "csim" else 0.0, abs=1e-6), entry
        assert (figure.counted, figure.excluded, figure.reason) == (LENGTH[metric], 0, "")


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("metric", METRICS)
def test_order_of_the_two_clips_does_not_matter(metric: type[Metric]) -> None:
    a, b = (clip(LENGTH[metric], seed) for seed in (0, 1))
    one, other = figures(metric, a, b), figures(metric, b, a)
    for entry, figure in one.items():
        assert figure.value == pytest.approx(other[entry].value, rel=1e-6)


CHANGES = {
    "brighter": lambda x, much: x + 6 * much,
    "shifted": lambda x, much: np.roll(x, 4 * much, axis=1),
    "blurred": lambda x, much: cv2.GaussianBlur(x, (0, 0), 4.0 * much) if much else x,
    "less contrast": lambda x, much: 128 + (x - 128) * (1 - 0.2 * much),
}


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("metric", METRICS)
def test_worse_pictures_measure_worse(metric: type[Metric], change: str) -> None:
    truths = clip(LENGTH[metric])
    rows = [figures(metric, altered(truths, lambda x, n=n: CHANGES[change](x, n)), truths) for n in (0, 1, 2, 3)]
    for entry in rows[0]:
        values = [row[entry].value for row in rows]
        if entry == "csim":
            values = [1 - value for value in values]
        assert values == sorted(values), entry
        assert values[3] > values[1] > 1e-6, entry


@pytest.mark.usefixtures("toys")
def test_the_two_resizes_give_two_figures() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 400, 500, 3), dtype=np.uint8)
    found = figures(fid.Fid, list(noise[:6]), list(noise[6:]))
    assert found["fid"].value != pytest.approx(found["fid_diffused"].value, rel=1e-3)


# What is counted, and what is kept for pooling


@pytest.mark.usefixtures("toys")
def test_features_pool_to_the_figure_of_the_joined_clip() -> None:
    pictures, truths = clip(32), clip(32, seed=1)
    for metric in (fid.Fid, fvd.Fvd):
        whole = measured(metric, pictures, truths)
        halves = [measured(metric, pictures[part], truths[part]) for part in (slice(0, 16), slice(16, 32))]
        for figure in whole.figures:
            joined = [
                np.concatenate([half.features[f"{figure.entry}.{side}"] for half in halves])
                for side in ("picture", "truth")
            ]
            assert frechet_distance(*joined) == pytest.approx(figure.value, rel=1e-9)


@pytest.mark.usefixtures("toys")
def test_fvd_leaves_out_what_fills_no_stretch() -> None:
    pictures, truths = clip(39), clip(39, seed=1)
    figure = figures(fvd.Fvd, pictures, truths)["fvd"]
    assert (figure.counted, figure.excluded) == (32, 7)
    assert figure.reason == "the last 7 frames fill no stretch of 16"
    assert figure.value == figures(fvd.Fvd, pictures[:32], truths[:32])["fvd"].value


@pytest.mark.usefixtures("toys")
def test_short_clips_have_no_distance_and_still_pool() -> None:
    pictures, truths = clip(20), clip(20, seed=1)
    result = measured(fvd.Fvd, pictures, truths)
    (figure,) = result.figures
    assert figure.value is None
    assert "at least 2 samples" in figure.reason
    assert [len(rows) for rows in result.features.values()] == [1, 1]
    for figure in measured(fid.Fid, pictures[:1], truths[:1]).figures:
        assert figure.value is None
        assert "at least 2 samples" in figure.reason
    for metric in (fid.Fid, fvd.Fvd):
        result = measured(metric, [], [])
        assert {figure.value for figure in result.figures} == {None}
        assert result.features == {}


@pytest.mark.usefixtures("toys")
def test_pictures_are_not_written_to() -> None:
    pictures, truths = clip(16), clip(16, seed=1)
    kept = [each.copy() for each in (*pictures, *truths)]
    for metric in METRICS:
        figures(metric, pictures, truths)
    assert all(np.array_equal(a, b) for a, b in zip(kept, (*pictures, *truths), strict=True))


def test_a_network_that_gives_nan_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :4] * torch.nan

    monkeypatch.setattr(fid, "load_inception", lambda _device: Broken())
    monkeypatch.setattr(csim, "load_arcface", lambda _device: Broken())
    for figure in measured(fid.Fid, clip(3), clip(3)).figures:
        assert figure.value is None
        assert "NaN" in figure.reason
    figure = figures(csim.Csim, clip(3), clip(3))["csim"]
    assert (figure.value, figure.counted, figure.excluded, figure.reason) == (None, 0, 3, "not finite")


def test_cosine_refuses_clips_of_different_length() -> None:
    with pytest.raises(ValueError, match="as many embeddings"):
        csim.measure_csim(torch.zeros(3, 4), torch.zeros(2, 4))
    assert csim.measure_csim(torch.zeros(1, 4), torch.ones(1, 4)).tolist() == [0]


def test_input_of_arcface() -> None:
    rgb = np.zeros((40, 30, 3), np.uint8)
    rgb[..., 0], rgb[..., 2] = 255, 51
    found = whole_frame_input(rgb)
    assert found.shape == (1, 3, 112, 112)
    torch.testing.assert_close(found[0, :, 50, 60], torch.tensor([1.0, -1.0, -0.6]))


# Weights


@pytest.mark.parametrize(
    ("metric", "file"),
    [
        (fid.Fid, "pt_inception-2015-12-05-6726825d.pth"),
        (fvd.Fvd, "i3d_torchscript.pt"),
        (csim.Csim, "ms1mv3_arcface_r100_fp16/backbone.pth"),
    ],
)
def test_without_weights_the_figure_is_unavailable(metric: type[Metric], file: str) -> None:
    result = measured(metric, clip(2), clip(2))
    assert result.figures == ()
    message = f"needs {file}, see scripts/prepare.sh"
    assert result.unavailable == {entry.name: message for entry in metric.entries}


@pytest.mark.parametrize(("metric", "name"), [(fid.Fid, "INCEPTION"), (fvd.Fvd, "I3D"), (csim.Csim, "ARCFACE")])
def test_unreadable_weights_are_told(
    metric: type[Metric], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.pth").write_bytes(b"<html>404 Not Found</html>")
    monkeypatch.setenv(f"GAUSSIAN_HEAD_{name}", str(tmp_path / "bad.pth"))
    for reason in measured(metric, clip(2), clip(2)).unavailable.values():
        assert "bad.pth" in reason
        assert "read" in reason


@pytest.mark.parametrize(
    ("metric", "variable", "network"),
    [(fid.Fid, "INCEPTION", Inception), (csim.Csim, "ARCFACE", IResNet)],
    ids=["fid", "csim"],
)
def test_weights_named_by_a_variable_are_used(
    metric: type[Metric],
    variable: str,
    network: type[nn.Module],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The whole way from a file to a figure; weights drawn at random only show that it is walked."""
    torch.save(network().state_dict(), tmp_path / "drawn.pth")
    monkeypatch.setenv(f"GAUSSIAN_HEAD_{variable}", str(tmp_path / "drawn.pth"))
    truths = clip(2)
    pictures = [truths[0], 255 - truths[1]]
    result = measured(metric, pictures, truths)
    assert not result.unavailable
    for figure in result.figures:
        if metric is csim.Csim:
            assert figure.trace[0] == pytest.approx(1, abs=1e-5)
            assert figure.trace[1] < figure.trace[0] - 1e-4
        else:
            assert figure.value > 0
            picture, truth = (result.features[f"{figure.entry}.{side}"] for side in ("picture", "truth"))
            assert picture.shape == truth.shape == (2, 2048)
            np.testing.assert_allclose(picture[0], truth[0], rtol=1e-4)
            assert np.abs(picture[1] - truth[1]).max() > 10 * np.abs(picture[0] - truth[0]).max()
