"""Training of face renderers: a clip of 20 frames is learnt by heart, and a stop leaves no trace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from talking_clip import FRAMES, SIDE, write_clip
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gaussian_head.errors import UserError
from gaussian_head.networks.pirender import PIRenderWidths
from gaussian_head.oneshot.face_renderer.pirender import PIRenderRenderer, to_network
from gaussian_head.oneshot.face_renderer.training import PIRenderOptions, PIRenderTask, initial_pirender
from gaussian_head.oneshot.fitting import FitConfig, fit, load_trained


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips"))


def quiet(steps: Iterator[int], *_: object) -> Iterator[int]:
    yield from steps


SMALL = PIRenderWidths(descriptor=32, modulation=16, flow=8, editing=8, widest=24)


def pirender_options(folder: Path, **changes: object) -> PIRenderOptions:
    settings = PIRenderOptions(
        folder, size=SIDE, batch=2, warp_steps=30, learning_rate=5e-3, decay=0.3, decay_every=60, average=0.85,
        eyes="pyramid", widths=SMALL, device="cpu",
    )  # fmt: skip
    return replace(settings, **changes)


def driven_error(task: PIRenderTask) -> tuple[float, float]:
    """Drive the clip's first frame by the clip's own motion; return the mean error, and that of a picture at rest."""
    frames = np.stack(task.clips.frames(0, list(range(FRAMES))))
    renderer = PIRenderRenderer(task.networks["average"])
    renderer.side_px = SIDE
    motion = task.clips.clips[0].motion
    drawn = np.stack(list(renderer.animate(frames[0], motion[0], motion)))
    return (to_network(drawn) - to_network(frames)).abs().mean(), (
        to_network(frames[:1]) - to_network(frames)
    ).abs().mean()


def test_pirender_learns_a_clip_by_heart(folder: Path, tmp_path: Path) -> None:
    task = pirender_options(folder).build()
    before, at_rest = driven_error(task)
    fit(task, tmp_path, FitConfig(steps=120, log_every=20, show_every=120, save_every=120), quiet)
    after, _ = driven_error(task)
    print(before, after, at_rest)
    assert after < 0.25 * before
    assert after < 0.85 * at_rest
    events = EventAccumulator(str(tmp_path)).Reload()
    assert {"loss/warp", "loss/final", "loss/l1"} <= set(events.Tags()["scalars"])
    assert events.Tags()["images"] == ["source_warped_drawn_target"]
