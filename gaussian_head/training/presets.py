"""Named sets of options; the defaults of the dataclasses are `quick`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from gaussian_head.data.sampler import CurriculumConfig
from gaussian_head.model.head import HeadConfig
from gaussian_head.render.rasterizers import RasterizerName
from gaussian_head.training.densify import DensifyConfig
from gaussian_head.training.landmarks import LandmarksConfig
from gaussian_head.training.stages import FaceConfig, FuseConfig, MouthConfig
from gaussian_head.training.torso import TorsoConfig
from gaussian_head.training.trainer import TrainerConfig


@dataclass(frozen=True)
class FitConfig:
    """Everything that decides what a fit becomes."""

    size: int = 512
    """Longer side of the pictures, px."""
    seed: int = 0
    """Seed of every draw."""
    rasterizer: RasterizerName = "ours"
    """What draws the Gaussians."""
    head: HeadConfig = field(default_factory=HeadConfig)
    mouth: MouthConfig = field(default_factory=MouthConfig)
    face: FaceConfig = field(default_factory=FaceConfig)
    fuse: FuseConfig = field(default_factory=FuseConfig)
    torso: TorsoConfig = field(default_factory=TorsoConfig)
    landmarks: LandmarksConfig = field(default_factory=LandmarksConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)


QUICK = FitConfig()
"""512 px, minutes on two CPU cores: 256 px take a third less time and lose what a 512 px video shows."""

FULL = FitConfig(
    head=HeadConfig(sh_degree=2, hidden=64),
    mouth=replace(
        QUICK.mouth,
        steps=50_000,
        gaussians=10_000,
        densify=DensifyConfig(gradient_threshold=2e-4, max_gaussians=30_000, start_share=0.01, stop_share=0.9),
        curriculum=CurriculumConfig(every=7),
    ),
    face=replace(
        QUICK.face,
        steps=50_000,
        skin_gaussians=12_000,
        hair_gaussians=12_000,
        coarse_share=0.0,
        densify=DensifyConfig(max_gaussians=60_000, start_share=0.01, stop_share=0.98),
    ),
    fuse=replace(QUICK.fuse, steps=10_000),
    torso=replace(QUICK.torso, steps=6_000, gaussians=12_000),
    trainer=TrainerConfig(log_every=100, validate_every=2_000, save_every=5_000),
)
"""512 px, twice the width and the reference's schedule (specs/gaussian_head.md f), for a GPU."""

PRESETS = {"quick": QUICK, "full": FULL}
