"""The head: a face branch (skin, hair) and a mouth branch (teeth, tongue, cavity), each Gaussians and what moves them.

`prepare()` computes what depends only on the Gaussians; `deform()` adds one frame's expression. Training prepares at
every step, synthesis once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cuda_ext import Carrier, deform
from gaussian_head.geometry.landmarks import INNER_LIPS, LOWER_INNER_LIP, UPPER_INNER_LIP
from gaussian_head.model.audio_code import SIZE as AUDIO_SIZE
from gaussian_head.model.audio_code import AudioCode
from gaussian_head.model.gaussians import Gaussians
from gaussian_head.model.landmark_space import Condition, LandmarkSpace
from gaussian_head.model.motion import MotionField, Response, bind, cast

POSITION_SCALE = 1e-2
"""Unit of the fields' position outputs: a centimetre."""
JAW_POINTS = (152, 148, 377, 17, 14, 200)
"""Chin and lower lip: their mean displacement is the jaw's."""
LIPS = [*LOWER_INNER_LIP.tolist(), *UPPER_INNER_LIP.tolist()]
CODE_PER_M = 100
"""Displacements enter a code in centimetres, about as large as the rest of it."""
SKIN_M, SKIN_BLEND_M = 0.012, 0.004
"""Gaussians farther than this from every landmark are hair; and the width of the transition."""
JAW_BLEND_M = 0.003
"""Height over which the jaw's pull fades from the lower teeth to the upper."""


ConditionName = Literal["landmarks", "audio", "both"]


@dataclass(frozen=True)
class HeadConfig:
    """Size of the networks; stored with the checkpoint."""

    sh_degree: int = 1
    """Spherical-harmonics degree of the view-dependent colour."""
    components: int = 24
    """Principal components of the landmarks in the expression code."""
    pose_components: int = 6
    """Principal components of the head's pose in the pose code."""
    action_units: int = 6
    """Action units in the expression code."""
    hidden: int = 32
    """Width of the motion fields."""
    bound_m: float = 0.25
    """Half width of the fields' grids around the head's centre."""
    face_resolutions: tuple[int, ...] = (16, 40, 100)
    """Cells per axis of the face field's grids."""
    mouth_resolutions: tuple[int, ...] = (32, 64)
    """Cells per axis of the mouth field's grids."""
    condition: ConditionName = "landmarks"
    """What moves lips, chin and lower cheeks: their landmarks; an audio code that enters the fields, as in the
    published heads; or both."""
    audio_features: str | None = None
    """Extractor of the audio features that a head with an audio code hears; known once its subject is."""
    audio_shape: tuple[int, int] | None = None
    """Window length and width of one frame's features."""

    def __post_init__(self) -> None:
        """Refuse audio features that are half described, or that the head would not hear."""
        told = (self.audio_features is not None, self.audio_shape is not None)
        if told[0] != told[1] or (self.condition == "landmarks" and any(told)):
            raise ValueError(
                "audio_features and audio_shape go together, and with a condition other than landmarks, "
                f"got {self.audio_features}, {self.audio_shape} and {self.condition}."
            )

    @property
    def hears(self) -> bool:
        """Whether an audio code enters the fields."""
        return self.condition != "landmarks"


class Prepared(NamedTuple):
    """What a branch computes from its Gaussians alone."""

    regions: Float[Tensor, "N H"]
    gates: Float[Tensor, "N 2"]
    opacities: Float[Tensor, " N"]


class Deformed(NamedTuple):
    """Gaussians of one frame, ready to rasterize."""

    means: Float[Tensor, "N 3"]
    quats: Float[Tensor, "N 4"]
    scales: Float[Tensor, "N 3"]
    opacities: Float[Tensor, " N"]
    sh: Float[Tensor, "N C 3"]
    change: Float[Tensor, "N O"]
    """The field's raw output, for regularization."""


class Branch(nn.Module):
    """Gaussians, their motion field and what carries them.

    Where the head hears, an audio code of the branch's own network is one more part of the code that drives the field.
    The field multiplies what it makes of the code, elementwise, with features of each Gaussian's place, and reads the
    change off the product. That is the region attention of the published heads (specs/gaussian_head.md e.3: audio code
    times a gate from the spatial encoding), with the action units under the same attention; their mouth (e.4), which
    has none, is the same here as their face.
    """

    OUTPUTS = 13  # position 3, quaternion 4, log-scale 3, colour 3

    def __init__(self, config: HeadConfig, gaussians: Gaussians, resolutions: tuple[int, ...], extra_code: int) -> None:
        super().__init__()
        self.gaussians = gaussians
        self.audio_code = AudioCode(config.audio_shape) if config.audio_shape else None
        code_size = config.components + config.action_units + extra_code + (AUDIO_SIZE if config.audio_shape else 0)
        self.field = MotionField(code_size, self.OUTPUTS, resolutions, config.hidden, config.bound_m)

    def prepare(self) -> Prepared:
        """Compute what depends only on the Gaussians."""
        regions, gates = self.field.regions(self.gaussians.means.detach())
        return Prepared(regions, self._gates(gates), self.gaussians.opacities)

    def _gates(self, logits: Float[Tensor, "N 2"]) -> Float[Tensor, "N 2"]:
        raise NotImplementedError

    def _code(self, condition: Condition, *more: Tensor) -> Float[Tensor, " C"]:
        """Return what drives the field: the expression, what the branch adds, and what is heard."""
        heard = () if self.audio_code is None else (self.audio_code(condition.audio),)
        return torch.cat([condition.code, *more, *heard])

    def _move(
        self, prepared: Prepared, carriers: Sequence[Carrier], responses: Sequence[tuple[Tensor, Tensor | None]]
    ) -> Deformed:
        g, gates = self.gaussians, prepared.gates[:, : len(carriers)]
        stored = (g.means, g.quats, g.log_scales, g.sh0, g.shN)
        moved = deform(*stored, prepared.regions, gates, carriers, responses, POSITION_SCALE)
        return Deformed(moved.means, moved.quats, moved.scales, prepared.opacities, moved.sh, moved.change)


class FaceBranch(Branch):
    """Everything of the head but the inner mouth; skin follows the landmarks, hair its own points.

    Expressions change skin alone; the head's pose changes both: hair falls otherwise, light comes from elsewhere.
    """

    def __init__(self, config: HeadConfig, gaussians: Gaussians) -> None:
        """Make an unbound branch; `bind` it before use and whenever its Gaussians are added or removed."""
        super().__init__(config, gaussians, config.face_resolutions, extra_code=0)
        for name in ("skin", "strands"):
            self.register_buffer(f"{name}_indices", torch.zeros(0, 0, dtype=torch.long))
            self.register_buffer(f"{name}_weights", torch.zeros(0, 0))
        self.register_buffer("off_skin", torch.zeros(0))
        self.register_buffer("skin", torch.zeros(0, 1))
        self.sway = Response(config.pose_components, self.OUTPUTS, config.hidden)

    def bind(
        self, rest: Float[Tensor, "478 3"], mean_hair: Float[Tensor, "G 3"], viewpoint: Float[Tensor, "3"]
    ) -> None:
        """Tie the Gaussians to the landmarks near them, and to the hair points through which they are seen."""
        means = self.gaussians.means.detach()
        self.skin_indices, self.skin_weights = bind(means, rest, sigma_m=0.003, rest=0.05, neighbours=8)
        plane = mean_hair[:, 2].mean() if len(mean_hair) else viewpoint[2] - 1
        seen, strands = cast(means, viewpoint, plane), cast(mean_hair, viewpoint, plane)
        self.strands_indices, self.strands_weights = bind(seen, strands, sigma_m=0.007, rest=0.02, neighbours=6)
        self.off_skin = torch.cdist(means, rest).amin(1)
        self.skin = torch.sigmoid((SKIN_M - self.off_skin) / SKIN_BLEND_M)[:, None]

    def deform(self, prepared: Prepared, condition: Condition) -> Deformed:
        """Apply one frame's landmarks, hair points and code."""
        carriers = (
            Carrier(self.skin_indices, self.skin_weights, condition.displacement),
            Carrier(self.strands_indices, self.strands_weights, condition.hair),
        )
        responses = ((self.field.expression(self._code(condition)), self.skin[:, 0]), (self.sway(condition.pose), None))
        return self._move(prepared, carriers, responses)

    def _gates(self, logits: Float[Tensor, "N 2"]) -> Float[Tensor, "N 2"]:
        # Until learned better: skin follows its landmarks, and what is away from them the hair.
        hair = (self.off_skin - SKIN_M) / SKIN_BLEND_M
        return torch.sigmoid(logits + torch.stack([torch.full_like(hair, 2.0), hair], 1))


class MouthBranch(Branch):
    """Teeth, tongue and cavity; the lower part follows the jaw (specs/gaussian_head.md e.5, i.4)."""

    def __init__(self, config: HeadConfig, gaussians: Gaussians) -> None:
        """Make the branch; its field also sees where jaw and lips are."""
        super().__init__(config, gaussians, config.mouth_resolutions, extra_code=6)
        self.register_buffer("lip_line", torch.zeros(()))

    def set_lip_line(self, rest: Float[Tensor, "478 3"]) -> None:
        """Tell upper from lower teeth by the height of the lips at rest."""
        self.lip_line.copy_(rest[torch.from_numpy(INNER_LIPS), 1].mean())

    def deform(self, prepared: Prepared, condition: Condition) -> Deformed:
        """Apply one frame's landmarks and code."""
        jaw = condition.displacement[list(JAW_POINTS)].mean(0)
        code = self._code(condition, CODE_PER_M * jaw, CODE_PER_M * lip_move(condition.displacement))
        n = len(self.gaussians)
        carrier = Carrier(torch.zeros(n, 1, dtype=torch.long, device=jaw.device), jaw.new_ones(n, 1), jaw[None])
        return self._move(prepared, [carrier], [(self.field.expression(code), None)])

    def _gates(self, logits: Float[Tensor, "N 2"]) -> Float[Tensor, "N 2"]:
        below = (self.lip_line - self.gaussians.means[:, 1]) / JAW_BLEND_M
        return torch.sigmoid(logits + below[:, None])


def lip_move(displacement: Float[Tensor, "478 3"]) -> Float[Tensor, "3"]:
    """Return how far the lips have moved up: lower lip, upper lip, and their difference, metres.

    After InsTaG's "move" feature (specs/gaussian_head.md e.5), which takes extremes of what its face field makes of the
    sound; here landmarks carry the skin. Lips that are held still leave all three constant.
    """
    lower, upper = displacement[LIPS, 1].view(2, -1).mean(1)
    return torch.stack([lower, upper, upper - lower])


class Head(nn.Module):
    """A person's head: its landmark space, its face and its mouth."""

    def __init__(self, config: HeadConfig, face: Gaussians, mouth: Gaussians, hair_points: int = 0) -> None:
        """Assemble the parts; `fit_landmarks` or a checkpoint completes them.

        Raises:
            ValueError: The head hears, and it is not known what.
        """
        super().__init__()
        if config.hears and config.audio_shape is None:
            raise ValueError(f"a head of condition {config.condition} needs audio_features and audio_shape, got none.")
        self.config = config
        self.space = LandmarkSpace(
            config.components, config.action_units, config.pose_components, hair_points,
            hold_speech=config.condition == "audio", audio_shape=config.audio_shape,
        )  # fmt: skip
        self.face = FaceBranch(config, face)
        self.mouth = MouthBranch(config, mouth)

    def fit_landmarks(
        self, landmarks: Float[Tensor, "T 478 3"], hair: Float[Tensor, "T G 3"], viewmats: Float[Tensor, "T 4 4"]
    ) -> float:
        """Learn the landmark space from the training frames (`LandmarkSpace.fit`); return the variance it explains."""
        explained = self.space.fit(landmarks, hair, viewmats)
        self.bind()
        return explained

    def bind(self) -> None:
        """Tie both branches to the landmarks at rest; needed whenever Gaussians are added or removed."""
        self.face.bind(self.space.rest, self.space.hair_mean, self.space.viewpoint)
        self.mouth.set_lip_line(self.space.rest)
