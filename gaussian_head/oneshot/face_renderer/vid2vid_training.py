"""Training of face-vid2vid, driven by coefficients from the first step (Wang et al. 2021, 3.3 and appendix A.2).

The paper reads pose and expression off pictures and SadTalker afterwards teaches a mapping network to say the same from
coefficients. Here key points, generator and mapping network learn together, so that nothing needs the reader of
pictures: the true head pose is known from the coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn
from torch.nn.functional import l1_loss
from torch.optim import Adam
from torch.utils.tensorboard import SummaryWriter

from gaussian_head.errors import UserError
from gaussian_head.geometry.coefficients import MOTION, MOTION_WITH_CROP
from gaussian_head.geometry.face_model import matrix_from_angles
from gaussian_head.networks.vid2vid_blocks import Vid2VidSize
from gaussian_head.networks.vid2vid_generator import Generator
from gaussian_head.networks.vid2vid_keypoints import KeypointDetector
from gaussian_head.networks.vid2vid_motion import HeadMotion, MappingNet, move_points
from gaussian_head.networks.weights import load_into
from gaussian_head.oneshot.face_renderer.data import PairBatch, PairedClips
from gaussian_head.oneshot.face_renderer.perceptual import choose_perceptual_loss
from gaussian_head.oneshot.face_renderer.training import SHOWN, RendererTrainingOptions, picture_rows
from gaussian_head.oneshot.face_renderer.vid2vid_losses import (
    MultiScaleDiscriminator,
    RandomWarp,
    deformation_prior_loss,
    discriminator_hinge_loss,
    equivariance_loss,
    feature_matching_loss,
    generator_hinge_loss,
    head_pose_loss,
    keypoint_prior_loss,
)
from gaussian_head.oneshot.face_renderer.windows import RADIUS
from gaussian_head.oneshot.fitting import Task, Update, task_device

ANGLES = slice(64, 67)
"""Pitch, yaw, roll within a motion vector."""
BETAS = (0.5, 0.999)


@dataclass(frozen=True)
class Vid2VidTrainingOptions(RendererTrainingOptions):
    """Train face-vid2vid: key points, generator and the network that moves the points by coefficients."""

    learning_rate: float = 2e-4
    """At the beginning, of all networks."""
    crop: bool = False
    """Driven by 73 numbers (with the crop) instead of 70."""
    perceptual_weight: float = 10.0
    """Of the picture's loss."""
    adversarial_weight: float = 1.0
    """Of what the discriminator says; with 0 for this and the next there is none."""
    matching_weight: float = 10.0
    """Of the difference between true and drawn picture as the discriminator sees them."""
    equivariance_weight: float = 20.0
    """Of key points that do not follow when a picture is warped."""
    keypoint_weight: float = 10.0
    """Of key points that crowd together or lie at another depth than 0.33 on average."""
    pose_weight: float = 20.0
    """Of the head's angles, a degree of error = 1."""
    deformation_weight: float = 5.0
    """Of what expression adds to the key points."""
    networks: Vid2VidSize = field(default_factory=Vid2VidSize)
    """Size of the networks; the defaults are the published ones."""
    discriminator_width: int = 64
    """Channels after the discriminator's first convolution; each further one doubles them."""
    init_mapping: Path | None = None
    """The mapping network's weights, if they are not in the file of `init`."""

    NOT_NEGATIVE = (
        *RendererTrainingOptions.NOT_NEGATIVE, "perceptual_weight", "adversarial_weight", "matching_weight",
        "equivariance_weight", "keypoint_weight", "pose_weight", "deformation_weight",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check the limits; see `RendererTrainingOptions`."""
        super().__post_init__()
        multiple = 4 * 2**self.networks.halvings
        if self.size % multiple:
            raise UserError(
                f"--size must be a multiple of {multiple} for networks of {self.networks.halvings} halvings, "
                f"got {self.size}."
            )

    def build(self) -> Vid2VidTask:
        """Open the data and make the networks.

        Raises:
            UserError: The data cannot be used, or a file of weights is missing or does not fit.
        """
        return Vid2VidTask(self)


class Vid2VidTask(Task):
    """Face-vid2vid's training.

    Its `renderer` is saved with the names of SadTalker's files (`kp_extractor. generator. mapping.`), so that
    `load_vid2vid(given=FILE, mapping=FILE)` reads it.
    """

    name = "vid2vid"

    def __init__(self, options: Vid2VidTrainingOptions) -> None:
        self._options, self._device = options, task_device(options.device)
        self.clips = PairedClips(options.data, options.size, crop=options.crop, cache_mb=options.cache_mb)
        self._loss = choose_perceptual_loss(options.eyes).to(self._device)
        renderer, discriminator = initial_vid2vid(options)
        self.networks = {"renderer": renderer.to(self._device).train()}
        self.optimizers = {"renderer": Adam(renderer.parameters(), options.learning_rate, betas=BETAS, fused=True)}
        self._is_adversarial = options.adversarial_weight > 0 or options.matching_weight > 0
        if self._is_adversarial:
            self.networks["discriminator"] = discriminator.to(self._device).train()
            self.optimizers["discriminator"] = Adam(
                discriminator.parameters(), options.learning_rate, betas=BETAS, fused=True
            )

    def batch(self, step: int, rank: int) -> PairBatch:
        """Draw pairs of frames; see `Task`."""
        return self.clips.draw(np.random.default_rng((self._options.seed, rank, step)), self._options.batch)

    def step(self, batch: PairBatch, step: int, update: Update) -> dict[str, Tensor]:
        """Draw each target from its source, compare, then teach the discriminator; see `Task`."""
        options, renderer = self._options, self.networks["renderer"]
        for optimizer in self.optimizers.values():
            options.set_learning_rate(optimizer, step)
        source, target = self._pictures(batch.source), self._pictures(batch.target)
        find = renderer["kp_extractor"]
        canonical, before, after, motion = self._points(source, batch)
        drawn = renderer["generator"](source, before, after).pictures
        half = HeadMotion(*(part[: len(source)] for part in motion))
        warp = RandomWarp(len(source), torch.default_generator, like=source)
        angles = np.concatenate(
            [windows[:, ANGLES, RADIUS] for windows in (batch.source_windows, batch.target_windows)]
        )
        angles_deg = torch.from_numpy(head_angles_deg(angles)).to(self._device)
        losses = {
            "perceptual": options.perceptual_weight * self._loss(2 * drawn - 1, 2 * target - 1),
            "equivariance": options.equivariance_weight
            * equivariance_loss(lambda pictures: move_points(find(pictures), half), source, before, warp),
            "keypoints": options.keypoint_weight * keypoint_prior_loss(canonical),
            "pose": options.pose_weight * head_pose_loss(motion, angles_deg),
            "deformation": options.deformation_weight * deformation_prior_loss(motion.deformation),
        }
        if self._is_adversarial:
            judge = self.networks["discriminator"].requires_grad_(requires_grad=False)
            real, made = judge(target), judge(drawn)
            losses["adversarial"] = options.adversarial_weight * generator_hinge_loss(made)
            losses["matching"] = options.matching_weight * feature_matching_loss(real, made)
        update(sum(losses.values()), self.optimizers["renderer"])
        if self._is_adversarial:
            judge = judge.requires_grad_(requires_grad=True)
            losses["discriminator"] = discriminator_hinge_loss(judge(target), judge(drawn.detach()))
            update(losses["discriminator"], self.optimizers["discriminator"])
        return {name: loss.detach() for name, loss in losses.items()} | {"l1": l1_loss(drawn, target).detach()}

    @torch.no_grad()
    def show(self, step: int, writer: SummaryWriter) -> None:
        """Write rows of source, finished picture and target; see `Task`."""
        batch = self.clips.draw(np.random.default_rng(self._options.seed), SHOWN)
        renderer = self.networks["renderer"].eval()  # so that nothing is learnt from these pictures
        source = self._pictures(batch.source)
        _, before, after, _ = self._points(source, batch)
        drawn = renderer["generator"](source, before, after).pictures
        renderer.train()
        columns = (2 * pictures - 1 for pictures in (source, drawn, self._pictures(batch.target)))
        writer.add_image("source_drawn_target", picture_rows(columns), step)

    def _points(
        self, source: Float[Tensor, "B 3 S S"], batch: PairBatch
    ) -> tuple[Float[Tensor, "B P 3"], Float[Tensor, "B P 3"], Float[Tensor, "B P 3"], HeadMotion]:
        """Return canonical key points, those of sources and targets, and the motion of sources, then of targets."""
        renderer = self.networks["renderer"]
        windows = torch.from_numpy(np.concatenate([batch.source_windows, batch.target_windows])).to(self._device)
        canonical, motion = renderer["kp_extractor"](source), renderer["mapping"](windows)
        before, after = move_points(canonical.repeat(2, 1, 1), motion).split(len(source))
        return canonical, before, after, motion

    def _pictures(self, pictures: ndarray) -> Float[Tensor, "B 3 S S"]:
        """Turn bytes into RGB in [0, 1]."""
        return torch.from_numpy(pictures).to(self._device).permute(0, 3, 1, 2).float() / 255


def initial_vid2vid(options: Vid2VidTrainingOptions) -> tuple[nn.ModuleDict, MultiScaleDiscriminator]:
    """Return the renderer's networks and a discriminator, random or from files; torch's random state is left alone.

    Raises:
        UserError: A file is missing, damaged, or another network's.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(options.seed)
        parts = {
            "kp_extractor": KeypointDetector(options.networks),
            "generator": Generator(options.networks),
            "mapping": MappingNet(MOTION_WITH_CROP if options.crop else MOTION, options.networks),
        }
        discriminator = MultiScaleDiscriminator(width=options.discriminator_width)
    for name, network in parts.items():
        path = options.init_mapping or options.init if name == "mapping" else options.init
        if path is not None:
            load_into(network, path, f"{name}.").requires_grad_(requires_grad=True)
    return nn.ModuleDict(parts), discriminator


def head_angles_deg(angles: Float[ndarray, "B 3"]) -> Float[ndarray, "B 3"]:
    """Turn the face model's angles into face-vid2vid's.

    The face model has y up and z to the viewer, and turns by Rz Ry Rx; face-vid2vid has y down and z away from the
    viewer, and turns by Rx Ry Rz (`vid2vid_motion.rotation_matrices`).

    Args:
        angles: Pitch, yaw, roll, radians.

    Returns:
        Yaw, pitch, roll, degrees.
    """
    flip = np.array([1, -1, -1])
    matrices = matrix_from_angles(torch.from_numpy(angles)).numpy() * flip[:, None] * flip
    yaw = np.arcsin(np.clip(matrices[:, 0, 2], -1, 1))
    pitch = np.arctan2(-matrices[:, 1, 2], matrices[:, 2, 2])
    roll = np.arctan2(-matrices[:, 0, 1], matrices[:, 0, 0])
    return np.rad2deg(np.stack([yaw, pitch, roll], 1)).astype(angles.dtype)
