"""Assembly of a fit: a fresh head for a subject, the stages in order, each from where it was stopped."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from gaussian_head.config import to_json
from gaussian_head.data.subject import Subject
from gaussian_head.driving.features import load_features
from gaussian_head.driving.hearing import choose_extractor
from gaussian_head.driving.held_out import load_held_out
from gaussian_head.errors import UserError
from gaussian_head.geometry.cameras import project
from gaussian_head.geometry.landmarks import FACE_OVAL
from gaussian_head.media.image import fill_polygon
from gaussian_head.model.checkpoint import Checkpoint, find_checkpoint
from gaussian_head.model.gaussians import Gaussians
from gaussian_head.model.head import Head, HeadConfig
from gaussian_head.model.initialize import paint, sample_face, sample_hair, sample_mouth
from gaussian_head.model.landmark_space import open_mouth
from gaussian_head.render.rasterizers import Rasterizer, choose_rasterizer
from gaussian_head.training.presets import FitConfig
from gaussian_head.training.stage import BranchStage, HeadStage
from gaussian_head.training.stages import FaceStage, FuseStage, MouthStage
from gaussian_head.training.trainer import Trainer

logger = logging.getLogger(__name__)
StageName = Literal["mouth", "face", "fuse"]
ORDER: tuple[StageName, ...] = ("mouth", "face", "fuse")
INITIAL_VIEWS = 24
"""Frames, evenly spaced, that place and colour the first Gaussians."""


def create_head(subject: Subject, config: FitConfig) -> Head:
    """Make a head whose Gaussians lie on the subject's tracked face, on a shell for hair and behind the lips."""
    rng = np.random.default_rng([config.seed, 7])
    torch.manual_seed(config.seed)
    landmarks = subject.landmarks[subject.train].numpy()
    rest = open_mouth(subject.landmarks[subject.train]).numpy()
    strands = subject.hair[subject.train].mean(0).numpy()
    frames = [subject.train[i] for i in np.linspace(0, len(subject.train) - 1, INITIAL_VIEWS).round().astype(int)]
    cpu = torch.device("cpu")
    views = [(subject.viewmats[k].numpy(), subject.K.numpy(), subject.frame(k).to(cpu)) for k in frames]
    hair = [(v, K, (frame.head[0].numpy() > 0.5) & ~_face_area(subject, k)) for (v, K, frame), k in
            zip(views, frames, strict=True)]  # fmt: skip
    photos = [(v, K, frame.image.permute(1, 2, 0).numpy() / 255) for v, K, frame in views]
    face = np.concatenate([
        sample_face(rest, config.face.skin_gaussians, rng),
        sample_hair(hair, rest, strands, config.face.hair_gaussians, rng),
    ])  # fmt: skip
    mouth = sample_mouth(landmarks, config.mouth.gaussians, rng)
    sets = [_gaussians(points, photos, config.head.sh_degree) for points in (face, mouth)]
    head = Head(_hearing(subject, config.head), *sets, hair_points=subject.hair.shape[1])
    explained = head.fit_landmarks(
        *(part[subject.train] for part in (subject.landmarks, subject.hair, subject.viewmats))
    )
    logger.info(
        "%d expression components explain %.1f %% of the landmarks' motion.", config.head.components, 100 * explained
    )
    return head


def _hearing(subject: Subject, config: HeadConfig) -> HeadConfig:
    """Settle what a head that hears will hear."""
    if not config.hears:
        return config
    extractor = choose_extractor(subject.layout)
    features = load_features(subject, extractor)
    return replace(config, audio_features=extractor, audio_shape=features.shape[1:])


def _gaussians(points: np.ndarray, photos: list, sh_degree: int) -> Gaussians:
    colors = paint(points, photos)
    return Gaussians.from_points(torch.from_numpy(points).float(), torch.from_numpy(colors).float(), sh_degree)


def _face_area(subject: Subject, k: int) -> np.ndarray:
    oval, _ = project(subject.landmarks[k].numpy()[FACE_OVAL], subject.viewmats[k].numpy(), subject.K.numpy())
    return fill_polygon(oval, subject.width, subject.height)


def fit_stage(
    name: StageName, subject: Subject, run: Path, config: FitConfig, preset: str, trainer: Trainer,
    device: torch.device | None = None,
) -> bool:  # fmt: skip
    """Train one stage to its end, on the CPU or another device, continuing from its latest checkpoint.

    Returns:
        Whether there was anything left to do.

    Raises:
        UserError: The run folder holds a run of other options or of another subject, the stage before is missing, or
            so is the rasterizer.
    """
    rasterizer = choose_rasterizer(config.rasterizer)
    # how sound becomes landmarks, and the torso, are no options of the head: their stages are their own
    options = {key: value for key, value in to_json(config).items() if key not in ("landmarks", "torso")}
    document = tell_run(name, preset, subject.layout.subject, options)
    checkpoint = find_checkpoint(run / name)
    if checkpoint is not None:
        check_same_run(checkpoint.document, document, run / name)
        if checkpoint.step >= getattr(config, name).steps:
            logger.info("%s: up to date (%d steps)", name, checkpoint.step)
            return False
        head = checkpoint.load_head()
    else:
        head = _starting_head(name, subject, run, config)
    head = head.to(device or torch.device("cpu"))
    stage = _build(name, head, subject, config, rasterizer)
    if isinstance(stage, BranchStage):
        document["held_out"] = _guide(stage, run, checkpoint)
    trainer.fit(stage, document)
    return True


def _starting_head(name: StageName, subject: Subject, run: Path, config: FitConfig) -> Head:
    if name == ORDER[0]:
        return create_head(subject, config)
    before = ORDER[ORDER.index(name) - 1]
    checkpoint = find_checkpoint(run / before)
    if checkpoint is None or checkpoint.step < getattr(config, before).steps:
        raise UserError(
            f"stage {name} needs the finished stage {before} in {run}; "
            f"run: python -m gaussian_head.train {before} --data {subject.layout.root} --out {run}"
        )
    return checkpoint.load_head()


def _build(name: StageName, head: Head, subject: Subject, config: FitConfig, rasterizer: Rasterizer) -> HeadStage:
    makers: dict[str, Callable[..., HeadStage]] = {"mouth": MouthStage, "face": FaceStage, "fuse": FuseStage}
    stage = makers[name](head, subject, getattr(config, name), config.seed)
    stage.rasterizer = rasterizer
    return stage


def _guide(stage: BranchStage, run: Path, checkpoint: Checkpoint | None) -> str | None:
    """Let a stage see the predicted mouth, if it is to and there is one; a stage that began without goes on without.

    Returns:
        A hash of the predicted landmarks, which tells a stage that goes on whether they are still the same.

    Raises:
        UserError: They are others than those with which the stage began.
    """
    if not stage.config.guidance.predicted_share or stage.head.config.condition == "audio":
        return None
    began_with = checkpoint.document.get("held_out") if checkpoint else None
    frames = stage.subject.train
    predicted = load_held_out(run / "driving", frames)
    if predicted is None or (checkpoint and began_with is None):
        found = None
        logger.warning("%s: trained without predicted mouths, which stage landmarks makes before it.", stage.name)
    else:
        found = hashlib.sha256(predicted.numpy().tobytes()).hexdigest()
        stage.guidance.predicted = dict(zip(frames, predicted, strict=True))
    if began_with not in (None, found):
        raise UserError(
            f"{run / stage.name} began with other predicted mouths than {run / 'driving'} holds now; "
            "delete it and train it again, or train into another --out."
        )
    return found


def tell_run(stage: str, preset: str, subject: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return what a stage's checkpoints say of the run: JSON values."""
    return {
        "stage": stage,
        "preset": preset,
        "subject": subject,
        "config": options,
        "config_hash": hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest(),
    }


def check_same_run(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    """Refuse to continue a run of another subject or of other options.

    Raises:
        UserError: What a checkpoint in the folder says is not what is wanted.
    """
    for key in ("subject", "config_hash"):
        if found.get(key) != wanted[key]:
            what = "another subject" if key == "subject" else "other options"
            raise UserError(
                f"{folder} holds a run with {what} ({found.get('subject')}, preset {found.get('preset')}); "
                "give the same options, or another --out."
            )
