"""The stage `torso`: neck and shoulders as a function of the head's pose, from what the head leaves visible."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from gaussian_head.data.sampler import CurriculumConfig, FrameSampler
from gaussian_head.data.subject import Frame, Subject
from gaussian_head.geometry.rotations import turned
from gaussian_head.media.image import resize
from gaussian_head.model.gaussians import Gaussians
from gaussian_head.model.torso import Torso
from gaussian_head.render.backdrop import own_scene
from gaussian_head.render.composite import over
from gaussian_head.render.rasterizers import Rasterizer
from gaussian_head.render.torso import TorsoRenderer, torso_eye
from gaussian_head.render.view import Eye, render_branch
from gaussian_head.training.losses import coverage, dilate, erode, masked_mean, photometric
from gaussian_head.training.stage import Learned, RateConfig, Stage, StageConfig, View
from gaussian_head.training.torso_start import TorsoMap

INSIDE, OUTSIDE = 0.04, 0.12
"""Pixels this far (in picture widths) inside of the usual torso's outline are covered in any pose, those this far
outside in none."""
ROWS_ABOVE = 16
"""Rows of the picture looked at above the torso, px."""


@dataclass(frozen=True)
class TorsoConfig(StageConfig):
    """Neck and shoulders in front of the static background."""

    steps: int = 1_200
    gaussians: int = 9_000
    """About how many Gaussians."""
    coverage_weight: float = 0.2
    """Weight of covering what the matte shows of the torso, and the neck under the head."""
    motion_weight: float = 5e-3
    """Weight of the field's mean absolute output."""
    coarse_share: float = 0.6
    """Share of the steps, the first ones, that look at pictures of half the size: three times as fast."""
    turn_every: int = 4
    """One step in this many looks for holes in a pose that no frame has."""
    turn_deg: tuple[float, float] = (15.0, 20.0)
    """Largest pitch and yaw by which such a pose is turned away from a frame's."""
    code_noise: float = 0.1
    """Standard deviation of noise on the pose code, in its standard deviations."""
    rates: RateConfig = field(default_factory=lambda: RateConfig(means=5e-5, log_scales=3e-3, opacity_logits=1e-2))


class TorsoStage(Stage):
    """Fit the torso to the pixels that the head does not hide, and keep the neck under the head opaque."""

    name = "torso"
    part = "torso"

    def __init__(
        self, torso: Torso, subject: Subject, shown: TorsoMap, config: TorsoConfig, seed: int, rasterizer: Rasterizer
    ) -> None:  # fmt: skip
        """Find the part of the picture where the torso can be.

        Args:
            torso: What learns, on the device of the subject's pictures.
            subject: The person.
            shown: Where its torso is.
            config: Options.
            seed: Of every draw.
            rasterizer: Draws the Gaussians.
        """
        super().__init__(torso, config.steps, config.rates.final_share, seed)
        self.torso, self.subject, self.config, self.rasterizer = torso, subject, config, rasterizer
        measure = np.zeros(len(subject.train))
        self.sampler = FrameSampler(subject.train, measure, CurriculumConfig(every=0), config.steps, seed)
        self.top = max(0, int(np.flatnonzero(shown.alpha.max(1) > 0.3)[0]) - ROWS_ABOVE) // 2 * 2
        device = torso.viewmat.device
        scene = resize(own_scene(subject.layout), subject.width, subject.height)
        scene = torch.from_numpy(np.ascontiguousarray(scene.transpose(2, 0, 1))).to(device)
        hidden = torch.from_numpy(np.uint8(255 * shown.hidden_neck))[None].to(device)
        self.whole_scene = scene / 255
        self.scene = self.whole_scene[:, self.top :]
        covered = torch.from_numpy(np.uint8(255 * (shown.alpha > 0.9)))[None].to(device)
        anywhere = torch.from_numpy(np.uint8(255 * (shown.alpha > 0)))[None].to(device)
        self.inside = erode(covered, max(1, round(INSIDE * subject.width)))[:, self.top :] / 255
        self.outside = 1 - dilate(anywhere, max(1, round(OUTSIDE * subject.width)))[:, self.top :] / 255
        self.hidden_neck = erode(hidden, max(1, subject.width // 128))[:, self.top :] / 255

    @property
    def eye(self) -> Eye:
        """The camera, which sees what is below `top`."""
        subject = self.subject
        whole = torso_eye(self.torso, subject.K, subject.width, subject.height)
        return whole.crop(0, self.top, subject.width, subject.height - self.top)

    def learned(self) -> list[Learned]:
        """Gaussians (of constant colour) and the field."""
        rates, torso = self.config.rates, self.torso
        learned = [
            Learned(f"gaussians.{name}", getattr(torso.gaussians, name), getattr(rates, name))
            for name in Gaussians.NAMES
            if name != "shN"
        ]
        for name, parameter in torso.field.named_parameters():
            grid = name.startswith("encoder")
            rate, decay = (rates.grids, rates.grid_decay) if grid else (rates.networks, 0.0)
            learned.append(Learned(f"field.{name}", parameter, rate, decay))
        return learned

    def view(self, step: int) -> View:
        """The visible torso over the static background and the neck under the head; or a turned head's torso."""
        if step % self.config.turn_every == self.config.turn_every - 1:
            return self._turned_view(step)
        k = self.sampler.draw(step)
        frame = self.subject.frame(k)
        self.subject.prefetch(self.sampler.draw(step + 1))
        torso, config = self.torso, self.config
        eye, rows = self.eye, (slice(None), slice(self.top, None))
        image, matte = frame.image[rows] / 255, frame.matte[rows] / 255
        seen = [image, matte, self.visible(frame)[rows], self.scene, self.hidden_neck]
        if step < config.coarse_share * self.steps:
            eye, seen = eye.half(), [avg_pool2d(picture, 2) for picture in seen]
        image, matte, visible, scene, hidden = seen
        condition = torso.condition(self.subject.viewmats[k])
        noise = torch.randn(condition.code.shape, generator=self._generator(step)).to(condition.code)
        condition = condition._replace(code=condition.code + config.code_noise * noise)
        deformed = torso.deform(torso.prepare(), condition)
        view = render_branch(deformed, eye, rasterizer=self.rasterizer)
        wrong = masked_mean((view.alpha - matte).abs(), visible) + masked_mean(1 - view.alpha, hidden * (1 - visible))
        picture = over(view.color, view.alpha, scene)
        target = torch.lerp(picture.detach(), image, visible)  # the windows of SSIM look over the head's edge
        losses = {
            "color": photometric(picture, target, visible),
            "coverage": config.coverage_weight * wrong,
            "motion": config.motion_weight * deformed.change.abs().mean(),
        }
        return View(losses, radii=view.radii)

    def _turned_view(self, step: int) -> View:
        """Whatever the pose, nothing tears between what follows the head and what stays, and nothing strays."""
        torso = self.torso
        pitch, yaw = (torch.rand(2, generator=self._generator(step)) * 2 - 1) * torch.tensor(self.config.turn_deg)
        pose = turned(self.subject.viewmats[self.sampler.draw(step)], float(pitch), float(yaw))
        deformed = torso.deform(torso.prepare(), torso.condition(pose))
        view = render_branch(deformed, self.eye.half(), rasterizer=self.rasterizer)
        turned_coverage = coverage(view.alpha, avg_pool2d(self.inside, 2), avg_pool2d(self.outside, 2))
        return View({"turned": self.config.coverage_weight * turned_coverage}, radii=view.radii)

    def figures(self) -> dict[str, float | int]:
        """The number of Gaussians."""
        return {"gaussians/torso": len(self.torso.gaussians)}

    def visible(self, frame: Frame) -> Float[Tensor, "1 H W"]:
        """Weigh the pixels of which the torso decides: 0 at the head and close to it, where hair may tint them."""
        head = (frame.head > 0.1).byte() * 255
        return 1 - dilate(head, max(1, self.subject.width // 128)) / 255

    @torch.no_grad()
    def picture(self, k: int) -> tuple[Float[Tensor, "3 H W"], Float[Tensor, "1 H W"]]:
        """Draw the torso in frame k over the static background; return the picture and the torso's coverage."""
        subject = self.subject
        render = TorsoRenderer(self.torso, self.rasterizer)
        view = render(subject.viewmats[k], subject.K, subject.width, subject.height)
        return over(view.color, view.alpha, self.whole_scene), view.alpha
