"""What every stage of a fit shares: options, draws, what learns, and how the Gaussians of a branch grow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cuda_ext import rasterize
from gaussian_head.data.sampler import CurriculumConfig, FrameSampler
from gaussian_head.data.subject import Frame, Subject
from gaussian_head.driving.features import check_features, load_features
from gaussian_head.model.audio_code import audio_windows
from gaussian_head.model.gaussians import Gaussians
from gaussian_head.model.head import Branch, Head
from gaussian_head.model.landmark_space import Condition
from gaussian_head.render.rasterizers import Rasterizer
from gaussian_head.render.view import Eye
from gaussian_head.training.densify import Densifier, DensifyConfig
from gaussian_head.training.guidance import Guidance, GuidanceConfig


class View(NamedTuple):
    """What a step saw: of a head, one rendered frame."""

    losses: dict[str, Tensor]
    """Weighted losses, named for the log; their sum is minimized."""
    means2d: Float[Tensor, "N 2"] | None = None
    """Leaf whose gradient is the screen-space one that densification needs."""
    radii: Int[Tensor, " N"] | None = None


class Learned(NamedTuple):
    """A parameter that learns."""

    name: str
    parameter: torch.nn.Parameter
    rate: float
    decay: float = 0.0
    """AdamW weight decay."""


@dataclass(frozen=True)
class RateConfig:
    """Learning rates at the start; all fall exponentially to `final_share` of it."""

    means: float = 1e-4
    quats: float = 2e-3
    log_scales: float = 5e-3
    opacity_logits: float = 3e-2
    sh0: float = 4e-3
    shN: float = 2e-4
    grids: float = 5e-3
    networks: float = 1e-3
    grid_decay: float = 1e-2
    """AdamW weight decay of the fields' grids."""
    final_share: float = 0.03
    """Rates at the end of the run, as a share of those at its start."""


@dataclass(frozen=True)
class StageConfig:
    """What every stage has."""

    steps: int = 1_000
    """Optimizer steps."""
    rates: RateConfig = field(default_factory=RateConfig)


@dataclass(frozen=True)
class BranchConfig(StageConfig):
    """What the stages have that fit one branch of the head."""

    coverage_weight: float = 0.1
    """Weight of covering what the branch shows, and nothing else."""
    motion_weight: float = 1e-3
    """Weight of the field's mean absolute output."""
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    densify: DensifyConfig = field(default_factory=DensifyConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)


class Stage:
    """What differs between the stages; `steps` long, seeded per step. All that the trainer asks for."""

    name: str
    part: str
    """Name of the model in checkpoints."""

    def __init__(self, model: torch.nn.Module, steps: int, final_share: float, seed: int) -> None:
        """Say what is trained, and for how long.

        Args:
            model: What a checkpoint keeps; its `config` is a dataclass.
            steps: Optimizer steps.
            final_share: Learning rates at the end, as a share of those at the start.
            seed: Of every draw.
        """
        self.model = model
        self.steps = steps
        self.final_share = final_share
        self.seed = seed

    def learned(self) -> list[Learned]:
        """Return the parameters that learn, each with its rate."""
        raise NotImplementedError

    def view(self, step: int) -> View:
        """Predict what one step looks at, and compare it."""
        raise NotImplementedError

    def after_step(self, step: int, optimizer: torch.optim.Optimizer, view: View) -> None:
        """Change what is learned, once `step` steps are finished; the view carries its gradients."""

    def state(self) -> dict[str, Tensor]:
        """Return what resuming needs beside parameters and optimizer."""
        return {}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of `state`."""

    def figures(self) -> dict[str, float | int]:
        """Return what is logged beside the losses, by tag."""
        return {}

    def _generator(self, step: int) -> torch.Generator:
        """Return a step's own draws; always on the CPU, so that every device draws alike."""
        return torch.Generator().manual_seed((self.seed + 1) * 1_000_003 + step)


class HeadStage(Stage):
    """What the stages share that fit a head to pictures."""

    part = "head"
    sampler: FrameSampler
    rasterizer: Rasterizer = staticmethod(rasterize)
    """Draws the Gaussians; set on a stage that shall use another one."""

    def __init__(self, head: Head, subject: Subject, config: StageConfig, seed: int) -> None:
        super().__init__(head, config.steps, config.rates.final_share, seed)
        self.head = head
        self.subject = subject
        self.config = config
        self._audio = _windows(head, subject)

    def figures(self) -> dict[str, float | int]:
        """The number of Gaussians of each branch."""
        return {f"gaussians/{name}": len(getattr(self.head, name).gaussians) for name in ("face", "mouth")}

    def _draw(self, step: int) -> tuple[int, Frame]:
        """Return a step's frame, and have that of the next step read meanwhile."""
        k = self.sampler.draw(step)
        frame = self.subject.frame(k)
        self.subject.prefetch(self.sampler.draw(step + 1))
        return k, frame

    def _branch_learned(self, branch: Branch, prefix: str) -> list[Learned]:
        rates = self.config.rates
        learned = [
            Learned(f"{prefix}.gaussians.{name}", getattr(branch.gaussians, name), getattr(rates, name))
            for name in Gaussians.NAMES
        ]
        for name, parameter in branch.named_parameters():
            if name.startswith("field.encoder"):
                learned.append(Learned(f"{prefix}.{name}", parameter, rates.grids, rates.grid_decay))
            elif not name.startswith("gaussians."):
                learned.append(Learned(f"{prefix}.{name}", parameter, rates.networks))
        return learned

    def condition(self, k: int, landmarks: Float[Tensor, "478 3"] | None = None) -> Condition:
        """Return what drives the head in frame k: what was tracked, or other landmarks (metres) with the rest of it."""
        subject = self.subject
        landmarks = subject.landmarks[k] if landmarks is None else landmarks
        audio = None if self._audio is None else self._audio[k]
        return self.head.space.condition(
            landmarks, subject.action_units[k], subject.hair[k], subject.viewmats[k], audio
        )

    def _eye(self, k: int) -> Eye:
        subject = self.subject
        return Eye(subject.viewmats[k], subject.K, subject.width, subject.height)


def _windows(head: Head, subject: Subject) -> Float[Tensor, "T 8 W C"] | None:
    """Return what a head that hears is given in each of a subject's frames.

    Raises:
        FileNotFoundError: The subject has no such audio features.
        UserError: They are of another extractor or shape than those the head began with.
    """
    config = head.config
    if not config.hears:
        return None
    features = load_features(subject, config.audio_features)
    check_features(features, config.audio_features, config.audio_shape)
    return audio_windows(features)


class BranchStage(HeadStage):
    """Fits the branch of its own name, whose Gaussians are cloned, split and pruned on the way."""

    def __init__(self, head: Head, subject: Subject, config: BranchConfig, seed: int) -> None:
        """Watch the branch's Gaussians."""
        super().__init__(head, subject, config, seed)
        self.branch: Branch = getattr(head, self.name)
        self.densifier = Densifier(config.densify, self.branch.gaussians, config.steps)
        self.guidance = Guidance(config.guidance, head.space, config.steps, seed)

    def learned(self) -> list[Learned]:
        """The branch: Gaussians and fields."""
        return self._branch_learned(self.branch, self.name)

    def guided(self, k: int, step: int) -> Condition:
        """Return what drives the head in a step that looks at frame k."""
        return self.condition(k, self.guidance.choose(k, self.subject.landmarks[k], step))

    def after_step(self, step: int, optimizer: torch.optim.Optimizer, view: View) -> None:
        """Densify on schedule, and bind the changed set again."""
        self.densifier.observe(view.means2d.grad, view.radii)
        if self.densifier.due(step):
            self.densifier.update(step, optimizer, f"{self.name}.gaussians.", self.seed)
            self.head.bind()

    def state(self) -> dict[str, Tensor]:
        """The densifier's statistics."""
        return {"densify.gradient_sum": self.densifier.gradient_sum, "densify.views": self.densifier.views}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take the statistics back."""
        device = self.branch.gaussians.means.device
        self.densifier.gradient_sum = tensors["densify.gradient_sum"].to(device)
        self.densifier.views = tensors["densify.views"].to(device)
