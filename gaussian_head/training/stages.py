"""The three stages of a fit: the inner mouth, the face around it, and the colours of both together.

A stage says which parameters learn at which rate, what a step minimizes, and what happens after it; the loop is
`trainer.Trainer`. Behaviour follows specs/gaussian_head.md (f) with the defects of (k) mended.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gaussian_head.data.sampler import CurriculumConfig, FrameSampler
from gaussian_head.data.subject import Frame, Subject
from gaussian_head.geometry.cameras import project
from gaussian_head.geometry.landmarks import (
    EXPRESSION_ACTION_UNITS,
    LEFT_EYE,
    OUTER_LIPS,
    RIGHT_EYE,
    mouth_aperture,
)
from gaussian_head.model.head import Head
from gaussian_head.model.landmark_space import Condition
from gaussian_head.render.composite import over
from gaussian_head.render.view import Eye, render_branch
from gaussian_head.training.densify import DensifyConfig
from gaussian_head.training.losses import coverage, difference_in, dilate, photometric
from gaussian_head.training.stage import BranchConfig, BranchStage, HeadStage, Learned, RateConfig, StageConfig, View

EYE_MARGIN = 0.35
"""The box around an eye reaches this far beyond the lids, in widths of the eye."""


@dataclass(frozen=True)
class MouthConfig(BranchConfig):
    """The inner mouth, alone, in the pictures' mouth regions."""

    steps: int = 2_500
    gaussians: int = 2_500
    """Gaussians to start with."""
    densify: DensifyConfig = field(default_factory=lambda: DensifyConfig(gradient_threshold=2e-4, max_gaussians=4_000))
    curriculum: CurriculumConfig = field(default_factory=lambda: CurriculumConfig(every=3))


@dataclass(frozen=True)
class FaceConfig(BranchConfig):
    """Everything of the head but the inner mouth, over the true mouth and background."""

    steps: int = 6_000
    skin_gaussians: int = 6_000
    """Gaussians to start with on the face mesh."""
    hair_gaussians: int = 6_000
    """Gaussians to start with on the rest of the head."""
    motion_weight: float = 2e-2
    jitter_m: float = 2e-4
    """Standard deviation of noise on the landmarks, metres."""
    coarse_share: float = 0.5
    """Share of the steps, the first ones, that look at pictures of half the size: three times as fast."""
    code_noise: float = 0.05
    """Standard deviation of noise on the expression and pose codes, in their standard deviations."""
    eyes_weight: float = 0.3
    """Weight of the mean absolute difference around the eyes: small, but what people look at."""
    curriculum: CurriculumConfig = field(
        default_factory=lambda: CurriculumConfig(every=5, stop_share=1.0, begin=1.0, window=0.05)
    )
    """Blinks, which are rare: by action unit 45."""


@dataclass(frozen=True)
class FuseConfig(StageConfig):
    """Colours of both branches and the face's opacity, on full frames; geometry and motion are frozen."""

    steps: int = 800
    rates: RateConfig = field(default_factory=lambda: RateConfig(sh0=1e-3, shN=1e-4, opacity_logits=1e-3))


class MouthStage(BranchStage):
    """Fit teeth, tongue and cavity inside the lips; what the lips cover is left open."""

    name = "mouth"

    def __init__(self, head: Head, subject: Subject, config: MouthConfig, seed: int) -> None:
        """Sort the frames by mouth opening; frames without an open mouth are left out where others exist."""
        super().__init__(head, subject, config, seed)
        opening = mouth_aperture(subject.landmarks.numpy())[subject.train]
        open_frames = np.asarray(subject.train)[opening >= np.quantile(opening, 0.3)].tolist()
        self.sampler = FrameSampler(
            open_frames,
            mouth_aperture(subject.landmarks.numpy())[open_frames],
            config.curriculum,
            config.steps,
            seed,
        )
        self.box = self._largest_box()

    def view(self, step: int) -> View:
        """Colour inside the opening; coverage there and nowhere outside the lips."""
        k, frame = self._draw(step)
        left, top = self._corner(k)
        width, height = self.box
        eye = self._eye(k).crop(left, top, width, height)
        window = (slice(None), slice(top, top + height), slice(left, left + width))
        target, opening = frame.image[window] / 255, frame.mouth[window]
        mouth = opening / 255
        deformed = self.head.mouth.deform(self.head.mouth.prepare(), self.guided(k, step))
        means2d = torch.zeros_like(deformed.means[:, :2], requires_grad=True)
        view = render_branch(deformed, eye, means2d, self.rasterizer)
        any_color = torch.rand(3, 1, 1, generator=self._generator(step)).to(view.color)  # none may shine through
        outside = 1 - dilate(opening, max(2, self.subject.width // 64)) / 255
        losses = {
            "color": photometric(over(view.color, view.alpha, any_color.expand_as(view.color)), target, mouth),
            "coverage": self.config.coverage_weight * coverage(view.alpha, mouth, outside),
            "motion": self.config.motion_weight * deformed.change.abs().mean(),
        }
        return View(losses, means2d, view.radii)

    def _lips_px(self, k: int) -> Float[np.ndarray, "L 2"]:
        lips = self.subject.landmarks[k].numpy()[OUTER_LIPS]
        return project(lips, self.subject.viewmats[k].numpy(), self.subject.K.numpy())[0]

    def _largest_box(self) -> tuple[int, int]:
        extents = np.array([np.ptp(self._lips_px(k), axis=0) for k in self.subject.train])
        margin = 1.3
        limit = (self.subject.width, self.subject.height)
        return tuple(min(-int(-margin * e // 16) * 16, s) for e, s in zip(extents.max(0), limit, strict=True))

    def _corner(self, k: int) -> tuple[int, int]:
        center = self._lips_px(k).mean(0)
        limits = (self.subject.width - self.box[0], self.subject.height - self.box[1])
        return tuple(
            int(np.clip(round(c - b / 2), 0, limit)) for c, b, limit in zip(center, self.box, limits, strict=True)
        )


class FaceStage(BranchStage):
    """Fit skin and hair over the frame's own mouth, torso and background."""

    name = "face"

    def __init__(self, head: Head, subject: Subject, config: FaceConfig, seed: int) -> None:
        """Sort the frames by blink for the curriculum."""
        super().__init__(head, subject, config, seed)
        blink = subject.action_units[subject.train, EXPRESSION_ACTION_UNITS.index(45)].numpy()
        self.sampler = FrameSampler(subject.train, blink, config.curriculum, config.steps, seed)

    def view(self, step: int) -> View:
        """The whole frame against the composite; coverage of the head without its mouth; small field outputs."""
        k, frame = self._draw(step)
        condition, eye = self._noisy(self.guided(k, step), step), self._eye(k)
        if step < self.config.coarse_share * self.steps:
            frame, eye = frame.half(), eye.half()
        target = frame.image / 255
        behind = torch.lerp(frame.background / 255, target, frame.mouth / 255)
        deformed = self.head.face.deform(self.head.face.prepare(), condition)
        means2d = torch.zeros_like(deformed.means[:, :2], requires_grad=True)
        view = render_branch(deformed, eye, means2d, self.rasterizer)
        color = over(view.color, view.alpha, behind)
        losses = {
            "color": photometric(color, target),
            "coverage": self.config.coverage_weight * (view.alpha - face_coverage(frame)).abs().mean(),
            "motion": self.config.motion_weight * deformed.change.abs().mean(),
            "eyes": self.config.eyes_weight * difference_in(color, target, self._eye_boxes(k, eye)),
        }
        return View(losses, means2d, view.radii)

    def _eye_boxes(self, k: int, eye: Eye) -> list[tuple[slice, slice]]:
        """Return rows and columns around each eye of frame k, lids and crease inside, as a camera sees them."""
        landmarks, viewmat, K = self.subject.landmarks[k].numpy(), eye.viewmat.cpu().numpy(), eye.K.cpu().numpy()
        boxes = []
        for points in (RIGHT_EYE, LEFT_EYE):
            seen, _ = project(landmarks[points], viewmat, K)
            margin = EYE_MARGIN * np.ptp(seen[:, 0])
            left, top = np.maximum(seen.min(0) - margin, 0).astype(int)
            right, bottom = np.maximum(seen.max(0) + margin, 0).astype(int)
            boxes.append((slice(top, bottom), slice(left, right)))
        return boxes

    def _noisy(self, condition: Condition, step: int) -> Condition:
        generator = self._generator(step)

        def noisy(values: Tensor, deviation: float) -> Tensor:
            return values + torch.randn(values.shape, generator=generator).to(values) * deviation

        return condition._replace(
            displacement=noisy(condition.displacement, self.config.jitter_m),
            code=noisy(condition.code, self.config.code_noise),
            pose=noisy(condition.pose, self.config.code_noise),
        )


class FuseStage(HeadStage):
    """Polish colours and the face's opacity on full frames."""

    name = "fuse"

    def __init__(self, head: Head, subject: Subject, config: FuseConfig, seed: int) -> None:
        """Freeze everything else."""
        super().__init__(head, subject, config, seed)
        self.sampler = FrameSampler(
            subject.train, np.zeros(len(subject.train)), CurriculumConfig(every=0), config.steps, seed
        )

    def learned(self) -> list[Learned]:
        """Colours of both branches, opacity of the face."""
        chosen = ("face.gaussians.sh0", "face.gaussians.shN", "face.gaussians.opacity_logits", "mouth.gaussians.sh0",
                  "mouth.gaussians.shN")  # fmt: skip
        both = self._branch_learned(self.head.face, "face") + self._branch_learned(self.head.mouth, "mouth")
        return [learned for learned in both if learned.name in chosen]

    def view(self, step: int) -> View:
        """The whole frame against face over mouth over background."""
        k, frame = self._draw(step)
        condition, eye = self.condition(k), self._eye(k)
        mouth, face = (
            render_branch(branch.deform(branch.prepare(), condition), eye, rasterizer=self.rasterizer)
            for branch in (self.head.mouth, self.head.face)
        )
        behind = over(mouth.color, mouth.alpha, frame.background / 255)
        return View({"color": photometric(over(face.color, face.alpha, behind), frame.image / 255)})


def face_coverage(frame: Frame) -> Float[Tensor, "1 H W"]:
    """Return how much the face branch should cover of each pixel: face and hair, softly where the person's matte is."""
    head = (frame.face.int() + frame.hair).clamp(max=255)
    return head * frame.matte.float() / 255**2
