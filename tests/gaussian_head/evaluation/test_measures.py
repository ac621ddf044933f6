"""Each measure against what it must be."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import correlate1d

from gaussian_head.evaluation.contact_sheet import choose_frames, draw_contact_sheet
from gaussian_head.evaluation.psnr import BEST_DB, measure_psnr
from gaussian_head.evaluation.ssim import measure_ssim


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.integers(20, 235, (48, 40, 3), dtype=np.uint8)
    return (truth + rng.integers(-15, 16, truth.shape)).clip(0, 255).astype(np.uint8), truth


def test_psnr_of_a_known_difference() -> None:
    truth = np.full((8, 8, 3), 100, np.uint8)
    assert measure_psnr(truth + 51, truth) == pytest.approx(20 * np.log10(5))
    assert measure_psnr(truth, truth) == BEST_DB


def test_psnr_looks_only_inside_the_mask(pair: tuple[np.ndarray, np.ndarray]) -> None:
    picture, truth = pair
    mask = np.zeros(truth.shape[:2], bool)
    mask[:20, :20] = True
    assert measure_psnr(picture, truth, mask) == pytest.approx(measure_psnr(picture[:20, :20], truth[:20, :20]))
    assert np.isnan(measure_psnr(picture, truth, np.zeros_like(mask)))


def test_ssim_is_the_textbooks(pair: tuple[np.ndarray, np.ndarray]) -> None:
    window = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window /= window.sum()

    def blur(x: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(x, window, 0, mode="constant"), window, 1, mode="constant")

    a, b = (image.astype(np.float64) / 255 for image in pair)
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, cov = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    ssim = (2 * mean_a * mean_b + 1e-4) * (2 * cov + 9e-4) / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))
    assert measure_ssim(*pair) == pytest.approx(ssim.mean(), abs=1e-4)
    assert measure_ssim(pair[1], pair[1]) == pytest.approx(1, abs=1e-5)


def test_shown_frames_hold_the_widest_and_the_closed_mouth() -> None:
    aperture = np.full(40, 5.0)
    aperture[[17, 23]] = 9, 1
    chosen = choose_frames(list(range(100, 140)), aperture)
    assert len(chosen) == 8
    assert {117, 123} <= set(chosen)
    assert chosen == sorted(chosen)
    assert choose_frames([3, 4], np.array([1.0, 2.0])) == [3, 4]


def test_contact_sheet_has_three_rows_and_amplifies(pair: tuple[np.ndarray, np.ndarray]) -> None:
    truth = np.full((64, 64, 3), 100, np.uint8)
    sheet = draw_contact_sheet({1: truth, 2: truth}, {1: truth, 2: truth + 10}, "oracle")
    assert sheet.shape == (22 + 3 * 256 + 22, 2 * 256, 3)
    assert np.all(sheet[22 + 600, 100] == 0)
    assert np.all(sheet[22 + 600, 256 + 100] == 40)


def test_contact_sheet_without_truth_shows_the_pictures_alone(pair: tuple[np.ndarray, np.ndarray]) -> None:
    assert draw_contact_sheet({}, {3: pair[0]}, "clip").shape == (22 + 256 + 22, round(256 * 40 / 48), 3)
