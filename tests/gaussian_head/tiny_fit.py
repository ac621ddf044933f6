"""A fit small enough for tests, and a trainer that reports nothing and may be stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from gaussian_head.data.sampler import CurriculumConfig
from gaussian_head.model.head import HeadConfig
from gaussian_head.training.densify import DensifyConfig
from gaussian_head.training.presets import QUICK, FitConfig
from gaussian_head.training.trainer import Trainer, TrainerConfig

STEPS, SAVE_EVERY = 12, 3
# Every few steps the sets change, whatever the picture asks for.
RESTLESS = DensifyConfig(start_share=0.0, stop_share=1.0, every=4, gradient_threshold=1e-6, max_gaussians=400)
TINY = FitConfig(
    size=64,
    head=HeadConfig(components=4, hidden=8, face_resolutions=(4, 8), mouth_resolutions=(4, 8)),
    mouth=replace(QUICK.mouth, steps=STEPS, gaussians=60, densify=RESTLESS, curriculum=CurriculumConfig(every=3)),
    face=replace(QUICK.face, steps=STEPS, skin_gaussians=150, hair_gaussians=100, densify=RESTLESS),
    fuse=replace(QUICK.fuse, steps=STEPS),
    torso=replace(QUICK.torso, steps=STEPS, gaussians=300),
    landmarks=replace(
        QUICK.landmarks,
        steps=STEPS,
        channels=8,
        dilations=(1, 2),
        copies=3,
        batch=2,
        crop_frames=24,
        trainer=TrainerConfig(log_every=5, validate_every=6, save_every=SAVE_EVERY),
    ),
    trainer=TrainerConfig(log_every=5, validate_every=6, save_every=SAVE_EVERY),
)


def longer(steps: int, **trainer: int) -> FitConfig:
    """The tiny fit with that many steps in each stage."""
    stages = {name: replace(getattr(TINY, name), steps=steps) for name in ("mouth", "face", "fuse")}
    return replace(TINY, **stages, trainer=replace(TINY.trainer, **trainer))


def silent(stage: object, step: int, writer: object) -> None:
    """Validate nothing."""


def all_steps(steps: Iterable[int], total: int, label: str, first: int) -> Iterator[int]:
    yield from steps


def stopping_after(count: int) -> Callable[[Iterable[int], int, str, int], Iterator[int]]:
    """Stop after that many steps, as a kill between two steps would."""
    return lambda steps, total, label, first: islice(iter(steps), count)


def trainer(run: Path, config: FitConfig = TINY, progress: Callable = all_steps) -> Trainer:
    return Trainer(run, config.trainer, silent, progress)
