"""PIRender as a face renderer."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from gaussian_head.geometry.coefficients import FaceCoefficients
from gaussian_head.networks.pirender import PIRenderGenerator, PIRenderWidths
from gaussian_head.oneshot.face_renderer.pirender import (
    MISSING_CROP,
    PIRenderRenderer,
    motion_of_another,
    to_bytes,
    to_network,
    with_crop,
)
from gaussian_head.oneshot.face_renderer.renderer import FaceRenderer
from gaussian_head.oneshot.face_renderer.windows import semantic_windows

SMALL = PIRenderWidths(descriptor=8, modulation=4, flow=4, editing=4, widest=8)
RANDOM = np.random.default_rng(0)
PORTRAIT = RANDOM.integers(0, 256, (256, 256, 3), dtype=np.uint8)
MOTION = RANDOM.normal(size=(5, 73)).astype(np.float32)


@pytest.fixture(scope="module")
def network() -> PIRenderGenerator:
    torch.manual_seed(3)
    return PIRenderGenerator(SMALL)


def test_frames_are_the_networks_whatever_the_batch(network: PIRenderGenerator) -> None:
    renderer = PIRenderRenderer(network, batch=2)
    assert isinstance(renderer, FaceRenderer)
    frames = list(renderer.animate(PORTRAIT, MOTION[0], MOTION))
    with torch.inference_mode():
        windows = torch.from_numpy(semantic_windows(MOTION, np.array([3])).copy())
        expected = to_bytes(network(to_network(PORTRAIT[None]), windows).picture)[0]
    assert len(frames) == 5
    assert np.abs(np.int16(frames[3]) - expected).max() <= 1
    assert np.abs(np.int16(frames[3]) - frames[0]).max() > 1
    alone = list(PIRenderRenderer(network, batch=1).animate(PORTRAIT, MOTION[0], MOTION))
    assert np.abs(np.int16(frames) - np.int16(alone)).max() <= 1


def test_memory_does_not_grow_with_the_length(network: PIRenderGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    looked, seen = [], []
    look_at, draw = network.look_at, network.draw
    monkeypatch.setattr(network, "look_at", lambda *a, **k: looked.append(1) or look_at(*a, **k))
    monkeypatch.setattr(network, "draw", lambda s, w, **k: seen.append(len(w)) or draw(s, w, **k))
    endless = np.zeros((1_000_000, 73), np.float32)
    assert (
        len(list(itertools.islice(PIRenderRenderer(network, batch=3).animate(PORTRAIT, endless[0], endless), 4))) == 4
    )
    assert looked == [1]
    assert seen == [3, 3]


def test_a_missing_crop_is_the_middle_of_the_picture(network: PIRenderGenerator) -> None:
    assert np.array_equal(with_crop(MOTION), MOTION)
    completed = with_crop(MOTION[:, :70])
    assert np.array_equal(completed, np.concatenate([MOTION[:, :70], [MISSING_CROP] * 5], 1).astype(np.float32))
    renderer = PIRenderRenderer(network)
    without = list(renderer.animate(PORTRAIT, MOTION[0, :70], MOTION[:1, :70]))
    assert np.array_equal(without, list(renderer.animate(PORTRAIT, completed[0], completed[:1])))


def test_what_does_not_fit_is_refused_at_once(network: PIRenderGenerator) -> None:
    with pytest.raises(ValueError, match=r"source must be \[256, 256, 3\], got \[64, 64, 3\]"):
        PIRenderRenderer(network).animate(PORTRAIT[:64, :64], MOTION[0], MOTION)
    with pytest.raises(ValueError, match=r"must have 70 or 73 numbers a frame, got 64"):
        PIRenderRenderer(network).animate(PORTRAIT, MOTION[0, :64], MOTION[:, :64])
    with pytest.raises(ValueError, match="batch must be at least 1"):
        PIRenderRenderer(network, batch=0)


def test_a_background_stays_still(network: PIRenderGenerator) -> None:
    moving = np.zeros((256, 256))
    moving[64:192, 64:192] = 1
    renderer = PIRenderRenderer(network)
    (free,), (kept,) = (list(renderer.animate(PORTRAIT, MOTION[0], MOTION[:1], mask)) for mask in (None, moving))
    assert np.array_equal(kept[moving == 0], PORTRAIT[moving == 0])
    assert np.array_equal(kept[moving == 1], free[moving == 1])
    with pytest.raises(ValueError, match=r"moving must be \[256, 256\] within \[0, 1\]"):
        renderer.animate(PORTRAIT, MOTION[0], MOTION, moving * 255)


def test_rounding() -> None:
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    assert np.array_equal(to_bytes(to_network(levels)), levels)
    between = torch.tensor([-2.0, 0.7 / 127.5 - 1, 0.3 / 127.5 - 1, 2.0])[None, None, None].expand(1, 3, 1, 4)
    assert to_bytes(between)[0, 0, :, 0].tolist() == [0, 1, 0, 255]
    assert to_bytes(between, "truncate")[0, 0, :, 0].tolist() == [0, 0, 0, 255]


def test_another_persons_motion_takes_the_portraits_scale() -> None:
    rows = RANDOM.normal(size=(6, 260))
    rows[:, 257] = 2.0
    source = rows[2:3].copy()
    source[:, 257] = 3.0
    target = FaceCoefficients.from_pirender(rows)
    motion = motion_of_another(FaceCoefficients.from_pirender(source), target)
    assert np.allclose(motion[:, 70], 3.0)
    assert np.array_equal(np.delete(motion, 70, 1), np.delete(target.motion(crop=True), 70, 1))
    assert np.allclose(target.crop[:, 0], 2.0)  # not changed in place
