"""Cepstra against the library whose definition they follow."""

from __future__ import annotations

import numpy as np
import pytest

from gaussian_head.media.mfcc import extract_mfcc


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(samples).integers(-32768, 32767, samples, dtype=np.int16, endpoint=True)


@pytest.mark.parametrize("samples", [1, 399, 400, 401, 560, 561, 16_000, 200_000])
def test_equals_python_speech_features(samples: int) -> None:
    library = pytest.importorskip("python_speech_features")
    speech = noise(samples)
    # The library computes in single precision with this numpy; given doubles it does not.
    np.testing.assert_allclose(extract_mfcc(speech), library.mfcc(speech.astype(np.float64), 16_000), atol=1e-8)


def test_silence_is_finite() -> None:
    mfcc = extract_mfcc(np.zeros(16_000, np.int16))
    assert mfcc.shape == (99, 13)
    assert np.isfinite(mfcc).all()
    np.testing.assert_allclose(mfcc[:, 0], np.log(np.finfo(np.float64).eps))


def test_loudness_moves_only_the_first() -> None:
    speech = noise(8000) // 8
    quiet, loud = extract_mfcc(speech), extract_mfcc(4 * speech)
    np.testing.assert_allclose(loud[:, 0] - quiet[:, 0], 2 * np.log(4), atol=1e-9)
    np.testing.assert_allclose(loud[:, 1:], quiet[:, 1:], atol=1e-9)
