"""Image metrics: ideal for equal pictures, worse the more one is spoilt, and plain about what they cannot judge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import jaxtyping
import numpy as np
import pytest
import torch

from gaussian_head.errors import UserError
from gaussian_head.evaluation import cpbd as cpbd_module
from gaussian_head.evaluation.cpbd import Cpbd, edge_widths, measure_cpbd, measured_edges
from gaussian_head.evaluation.lpips import HEAD_CHANNELS, Lpips, load_heads, perceptual_distance
from gaussian_head.evaluation.measure import measure
from gaussian_head.evaluation.metric import ClipFacts, Figure, Look, Metric, Pair, Region, Unavailable
from gaussian_head.evaluation.psnr import BEST_DB, Psnr, PsnrVico, measure_psnr, measure_psnr_vico
from gaussian_head.evaluation.ssim import (
    Ssim,
    SsimSkimage,
    SsimVico,
    measure_ssim,
    measure_ssim_skimage,
    pooling_factor,
    similarity_vico,
)
from gaussian_head.networks.alexnet import AlexNet, load_alexnet

Picture = np.ndarray
WITH_TRUTH = (Psnr, PsnrVico, Ssim, SsimVico, SsimSkimage)


def textured(height: int, width: int, seed: int = 0) -> Picture:
    """Grains of several sizes, like skin and hair."""
    rng = np.random.default_rng(seed)
    layers = [grain * cv2.GaussianBlur(rng.normal(size=(height, width, 3)), (0, 0), grain) for grain in (0.7, 2.0, 6.0)]
    return (128 + 70 * sum(layers)).clip(0, 255).astype(np.uint8)


@pytest.fixture
def truth() -> Picture:
    return textured(144, 160)


def unit(picture: Picture) -> torch.Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1) / 255


def run(
    metrics: type[Metric] | tuple[type[Metric], ...],
    picture: Picture,
    truth: Picture | None,
    regions: dict[str, np.ndarray] | None = None,
) -> dict[tuple[str, str], Figure]:
    """Measure a clip of one frame."""
    metrics = metrics if isinstance(metrics, tuple) else (metrics,)
    looks = [None if rgb is None else Look(rgb, lambda _: None) for rgb in (picture, truth)]
    pair = Pair(0, looks[0], looks[1], {name: Region(mask) for name, mask in (regions or {}).items()})
    clip = ClipFacts(25.0, picture.shape[1], picture.shape[0], has_truth=truth is not None)
    measured = measure([pair], clip, metrics)
    assert not measured.unavailable
    return {(figure.entry, figure.region): figure for figure in measured.figures}


def blurred(picture: Picture, strength: int) -> Picture:
    return cv2.GaussianBlur(picture, (0, 0), 0.6 * strength)


def noisy(picture: Picture, strength: int) -> Picture:
    noise = np.random.default_rng(1).normal(size=picture.shape)
    return np.rint(picture + 4 * strength * noise).clip(0, 255).astype(np.uint8)


def quantized(picture: Picture, strength: int) -> Picture:
    step = 2 ** (strength + 2)
    return (picture // step * step + step // 2).astype(np.uint8)


SPOIL = (blurred, noisy, quantized)


@pytest.mark.parametrize("spoil", SPOIL)
def test_each_falls_as_the_picture_gets_worse(truth: Picture, spoil: Callable[[Picture, int], Picture]) -> None:
    rows = [run(WITH_TRUTH, spoil(truth, strength), truth) for strength in (1, 2, 3, 4)]
    for metric in WITH_TRUTH:
        values = [row[metric.entries[0].name, "full"].value for row in rows]
        assert values == sorted(values, reverse=True)
        assert values[-1] < 0.95 * values[0]


def test_equal_pictures_are_ideal(truth: Picture) -> None:
    regions = {"head": np.zeros((144, 160), bool), "mouth": np.zeros((144, 160), bool)}
    regions["head"][20:120, 30:130] = regions["mouth"][80:100, 60:90] = True
    ideal = {"psnr": BEST_DB, "psnr_vico": 80, "ssim": 1, "ssim_vico": 1, "ssim_skimage": 1}
    figures = run(WITH_TRUTH, truth, truth.copy(), regions)
    assert len(figures) == 3 + 1 + 3 + 1 + 1
    for (entry, _), figure in figures.items():
        assert figure.value == pytest.approx(ideal[entry], abs=1e-5)
        assert (figure.counted, figure.excluded) == (1, 0)


def test_picture_and_truth_may_change_places(truth: Picture) -> None:
    other = noisy(truth, 3)
    for key, figure in run(WITH_TRUTH, other, truth).items():
        if figure.value is not None:
            assert run(WITH_TRUTH, truth, other)[key].value == pytest.approx(figure.value, abs=1e-6)


@pytest.mark.parametrize("size", [(97, 131), (64, 300), (33, 12)])
def test_grey_and_odd_sizes(size: tuple[int, int]) -> None:
    grey = textured(*size)
    grey = np.repeat(grey[..., :1], 3, -1)
    for figure in run(WITH_TRUTH, noisy(grey, 2), grey).values():
        if figure.region == "full":
            assert 0 < figure.value < 80


def test_tiny_pictures_are_excluded_and_counted() -> None:
    tiny = textured(5, 6)
    figures = run((*WITH_TRUTH, Cpbd), noisy(tiny, 2), tiny)
    assert figures["psnr", "full"].counted == figures["ssim", "full"].counted == 1
    for entry, least in (("ssim_vico", 11), ("ssim_skimage", 7), ("cpbd", 64)):
        figure = figures[entry, "full"]
        assert (figure.value, figure.counted, figure.excluded) == (None, 0, 1)
        assert figure.reason == f"a side of the picture is under {least} px"


def test_regions_count_their_own_pixels(truth: Picture) -> None:
    head, nothing = np.zeros((144, 160), bool), np.zeros((144, 160), bool)
    head[:, 100:] = True
    picture = truth.copy()
    picture[:, :80] = noisy(truth, 4)[:, :80]
    figures = run((Psnr, Ssim), picture, truth, {"head": head, "mouth": nothing})
    assert figures["psnr", "head"].value == BEST_DB
    assert figures["ssim", "head"].value == pytest.approx(1, abs=1e-5)
    assert figures["psnr", "full"].value < 40
    assert figures["ssim", "full"].value < 0.99
    for entry in ("psnr", "ssim"):
        figure = figures[entry, "mouth"]
        assert (figure.value, figure.excluded, figure.reason) == (None, 1, "no face found")


def test_parts_add_up_to_the_whole(truth: Picture) -> None:
    """Mean squared difference and SSIM of two complementary parts, weighted by size, are the picture's."""
    picture = blurred(truth, 3)
    part = cv2.circle(np.zeros(truth.shape[:2], np.uint8), (90, 60), 41, 1, -1).astype(bool)
    share = part.mean()
    for convert, mean in ((lambda db: 10 ** (-db / 10), measure_psnr), (lambda value: value, measure_ssim)):
        inside, outside = (convert(mean(picture, truth, mask)) for mask in (part, ~part))
        assert share * inside + (1 - share) * outside == pytest.approx(convert(mean(picture, truth)), rel=1e-5)


@pytest.mark.parametrize(
    "metric",
    [
        measure_psnr,
        measure_psnr_vico,
        measure_ssim,
        measure_ssim_skimage,
        lambda a, b: similarity_vico(unit(a), unit(b)),
    ],
)
def test_pictures_of_different_sizes_are_refused(metric: Callable[..., float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as where no test looks on
    with pytest.raises(ValueError, match="11.*12|12.*11"):
        metric(textured(40, 11), textured(40, 12))


def test_constant_difference_has_a_known_psnr() -> None:
    truth = np.full((9, 7, 3), 100, np.uint8)
    assert measure_psnr_vico(truth + 51, truth) == pytest.approx(-10 * np.log10(0.04 + 1e-8))
    one = truth.copy()
    one[0, 0, 0] = 101
    assert measure_psnr(one, truth) == pytest.approx(10 * np.log10(255**2 * 9 * 7 * 3))


@pytest.mark.parametrize("size", [(60, 75), (400, 390), (700, 650)])
def test_vico_ssim_is_pytorch_msssims(size: tuple[int, int]) -> None:
    library = pytest.importorskip("pytorch_msssim")
    truth = textured(*size)
    pair = [unit(picture)[None] for picture in (noisy(truth, 3), truth)]
    pooled = [torch.nn.functional.avg_pool2d(picture, pooling_factor(*size)) for picture in pair]
    expected = float(library.ssim(*pooled, data_range=1))
    assert similarity_vico(pair[0][0], pair[1][0]) == pytest.approx(expected, abs=1e-5)


def test_eat_ssim_is_scikit_images() -> None:
    library = pytest.importorskip("skimage.metrics")
    flat = np.full((30, 41, 3), 200, np.uint8)
    pairs = [(noisy(textured(51, 40), 3), textured(51, 40)), (flat, flat + 3), (flat * 0, flat * 0 + 255)]
    for picture, truth in pairs:
        expected = library.structural_similarity(truth, picture, channel_axis=-1)
        assert measure_ssim_skimage(picture, truth) == pytest.approx(expected, abs=1e-6)


def test_cpbd_falls_under_blur_and_needs_no_truth() -> None:
    sharp = textured(200, 260)
    values = [run(Cpbd, blurred(sharp, strength), None)["cpbd", "full"].value for strength in (1, 2, 3, 5)]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1] + 0.2
    assert values[-1] >= 0
    assert values[0] <= 1


def test_cpbd_of_the_head_is_that_of_its_box() -> None:
    picture = textured(200, 260)
    picture[:, :100] = blurred(picture, 5)[:, :100]
    head = np.zeros((200, 260), bool)
    head[30:190, 100:250] = True
    figures = run(Cpbd, picture, None, {"head": head})
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    assert figures["cpbd", "head"].value == measure_cpbd(gray[30:190, 100:250])
    assert figures["cpbd", "head"].value > figures["cpbd", "full"].value
    head[150:] = False
    figure = run(Cpbd, picture, None, {"head": head})["cpbd", "head"]
    assert (figure.value, figure.reason) == (None, "no face found, or a side of its box is under 128 px")


def test_edge_widths_are_those_of_a_walk() -> None:
    """Step 4 of the definition, pixel by pixel, on a picture with grain, plateaus and long ramps."""
    gray = cv2.cvtColor(textured(40, 300), cv2.COLOR_RGB2GRAY)
    gray[5:12] = np.linspace(0, 255, 300).astype(np.uint8)
    gray[20:29, 30:267] = np.concatenate([np.arange(116), [125], np.arange(135, 255)])  # an edge between long ramps
    rows, columns, widths = edge_widths(gray)
    found = {(r, c): w for r, c, w in zip(rows, columns, widths, strict=True)}
    assert found == walked_widths(gray)
    assert max(widths) == 2 * 101


def walked_widths(gray: np.ndarray) -> dict[tuple[int, int], int]:
    kept, levels = measured_edges(gray), gray.astype(int)
    height, width = gray.shape
    grad_y, grad_x = np.gradient(levels.astype(float))
    found = {}
    for r in range(1, height - 1):
        for c in range(1, width - 1):
            angle = np.degrees(np.arctan2(grad_y[r, c], grad_x[r, c])) if grad_x[r, c] else 0
            rounded = 45 * np.rint(angle / 45)
            if not kept[r, c] or rounded not in (0, 180, -180):
                continue
            rises, total = (1 if rounded == 0 else -1), 0
            for side in (-1, 1):
                m = 0
                while m < 100 and 0 <= c + side * (m + 2) < width:
                    step = levels[r, c + side * (m + 2)] - levels[r, c + side * (m + 1)]
                    if step * side * rises <= 0:
                        break
                    m += 1
                total += m + 1
            found[r, c] = total
    return found


def test_cpbd_without_scikit_image_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cpbd_module.__dict__["__builtins__"], "__import__", refuse_skimage(__import__))
    with pytest.raises(Unavailable, match="scikit-image"):
        Cpbd(ClipFacts(25.0, 64, 64, has_truth=False))


def refuse_skimage(genuine: Callable[..., object]) -> Callable[..., object]:
    def importing(name: str, *rest: object) -> object:
        if name.startswith("skimage"):
            raise ImportError(name)
        return genuine(name, *rest)

    return importing


@pytest.fixture
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of weights in the published files' form: formulas, no model."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GAUSSIAN_HEAD_CHECKPOINTS", str(folder))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    weights = {name: waves(value.shape) for name, value in AlexNet().state_dict().items()}
    weights["classifier.6.bias"] = torch.zeros(1000)
    torch.save(weights, folder / "alexnet-owt-7be5be79.pth")
    heads = {f"lin{i}.model.1.weight": waves((1, count, 1, 1)).abs() for i, count in enumerate(HEAD_CHANNELS)}
    torch.save(heads, folder / "lpips_v0.1_alex.pth")
    return folder


def waves(shape: tuple[int, ...]) -> torch.Tensor:
    count = int(np.prod(shape))
    values = torch.sin(12.9898 * torch.arange(1, count + 1, dtype=torch.float64)).float().reshape(shape)
    return values * (2 / np.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.05 * values


@pytest.mark.usefixtures("checkpoints")
@pytest.mark.parametrize("spoil", SPOIL)
def test_lpips_rises_as_the_picture_gets_worse(truth: Picture, spoil: Callable[[Picture, int], Picture]) -> None:
    values = [run(Lpips, spoil(truth, strength), truth)["lpips", "full"].value for strength in (1, 2, 3, 4)]
    assert values == sorted(values)
    assert values[-1] > 1.5 * values[0] > 0


@pytest.mark.usefixtures("checkpoints")
def test_lpips_by_region(truth: Picture) -> None:
    picture = truth.copy()
    picture[:70] = noisy(truth, 3)[:70]
    head, mouth = np.zeros((144, 160), bool), np.zeros((144, 160), bool)
    head[75:144, 20:120], mouth[80:100, 40:140] = True, True
    figures = run(Lpips, picture, truth, {"head": head, "mouth": mouth})
    assert figures["lpips", "head"].value == 0
    assert figures["lpips", "full"].value == pytest.approx(run(Lpips, truth, picture)["lpips", "full"].value, rel=1e-5)
    assert figures["lpips", "full"].value > 0
    assert figures["lpips", "mouth"].reason == "no face found, or a side of its box is under 64 px"
    tiny = textured(63, 100)
    assert run(Lpips, tiny, tiny)["lpips", "full"].reason == "a side of the picture is under 64 px"


@pytest.mark.usefixtures("checkpoints")
def test_lpips_of_a_batch_is_that_of_each(truth: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    network, heads = load_alexnet(), load_heads()
    pictures = torch.stack([unit(spoil(truth, 2)) for spoil in SPOIL])
    truths = unit(truth).expand_as(pictures)
    together = perceptual_distance(network, heads, pictures, truths)
    alone = [perceptual_distance(network, heads, pictures[i : i + 1], truths[:1]) for i in range(len(SPOIL))]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=0)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="one size"):
        perceptual_distance(network, heads, pictures, truths[..., 1:])


@pytest.mark.parametrize("file", ["alexnet-owt-7be5be79.pth", "lpips_v0.1_alex.pth"])
def test_lpips_without_its_weights_says_what_it_needs(checkpoints: Path, file: str) -> None:
    (checkpoints / file).unlink()
    with pytest.raises(Unavailable, match=r"needs .*alex.*, see scripts/prepare\.sh"):
        Lpips(ClipFacts(25.0, 160, 144, has_truth=True))


def test_lpips_heads_are_found_in_the_package_without_importing_it(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    inside = site / "lpips" / "weights" / "v0.1" / "alex.pth"
    inside.parent.mkdir(parents=True)
    (checkpoints / "lpips_v0.1_alex.pth").rename(inside)
    (site / "lpips" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GAUSSIAN_HEAD_CHECKPOINTS", str(checkpoints))
    monkeypatch.syspath_prepend(site)
    assert [head.shape[1] for head in load_heads()] == list(HEAD_CHANNELS)


def test_weights_of_something_else_are_refused(checkpoints: Path) -> None:
    path = checkpoints / "alexnet-owt-7be5be79.pth"
    weights = torch.load(path, weights_only=True)
    bias = weights.pop("features.8.bias")
    torch.save(weights, path)
    with pytest.raises(UserError, match=r"features\.8\.bias must be \[256\], found nothing"):
        load_alexnet()
    torch.save({**weights, "features.8.bias": bias[:9]}, path)
    with pytest.raises(UserError, match=r"features\.8\.bias must be \[256\], found \[9\]"):
        load_alexnet()
    torch.save({"lin0.model.1.weight": -torch.ones(1, 64, 1, 1)}, checkpoints / "lpips_v0.1_alex.pth")
    with pytest.raises(UserError, match=r"lin0\.model\.1\.weight must be .* and >= 0"):
        load_heads()
