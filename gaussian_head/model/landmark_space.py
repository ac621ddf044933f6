"""What landmarks tell the head: displacements of the face's surface, and a short code of the expression."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from gaussian_head.errors import UserError
from gaussian_head.geometry.landmarks import INNER_LIPS, LEFT_EYE, LEFT_IRIS, RIGHT_EYE, RIGHT_IRIS, mouth_aperture
from gaussian_head.geometry.speech_points import speech_weights
from gaussian_head.model.audio_code import WINDOW

CODE_LIMIT = 3.0
"""Codes are clamped to this many standard deviations, so that no unseen face asks for an unseen motion."""


EXPRESSIVE_WEIGHTS = ((LEFT_IRIS, 3.0), (RIGHT_IRIS, 3.0), (LEFT_EYE, 3.0), (RIGHT_EYE, 3.0), (INNER_LIPS, 2.0))
"""Small motions that people look at count more in the principal components."""


METRES_PER_RADIAN = 0.2
LEAST_POSE_SPREAD = 0.01
"""Radians: a head that hardly turns is not said to turn far."""
REST_APERTURE_M = 0.015
"""Opening of the mouth of the face at rest."""


class Condition(NamedTuple):
    """One frame's drive of the motion fields."""

    displacement: Float[Tensor, "478 3"]
    """Landmarks minus those at rest, metres, head frame."""
    code: Float[Tensor, " K"]
    """Whitened principal components of the landmarks, then action units scaled to about [0, 1]."""
    hair: Float[Tensor, "G 3"]
    """Hair points minus their mean, metres, head frame."""
    pose: Float[Tensor, " P"]
    """Whitened principal components of the head's pose."""
    audio: Float[Tensor, "8 W C"] | None = None
    """Audio features of the frames around it, for heads that hear."""


class LandmarkSpace(nn.Module):
    """The subject's face at rest and the principal components of its motion, fixed once the training frames are known.

    At rest the mouth is open: Gaussians are tied to the landmarks near them there, and where the lips touch, those of
    the upper lip would be tied to the lower one as well.

    Lips, chin and lower cheeks may be held at the mean face, so that only sound can move them.
    """

    ACTION_UNIT_SCALE = 0.4

    def __init__(
        self, components: int, action_units: int, pose_components: int, hair_points: int, *,
        hold_speech: bool = False, audio_shape: tuple[int, int] | None = None,
    ) -> None:  # fmt: skip
        """Make an unfitted space.

        Args:
            components: Principal components of the landmarks.
            action_units: Action units beside them.
            pose_components: Principal components of the pose.
            hair_points: Points that hair follows.
            hold_speech: Whether lips, chin and lower cheeks stay at the mean face, whatever landmarks come.
            audio_shape: Window length and width of the audio features that the head hears; None: it hears none.
        """
        super().__init__()
        self.hold_speech = hold_speech
        self.audio_shape = audio_shape
        self.register_buffer("mean", torch.zeros(478, 3))
        self.register_buffer("rest", torch.zeros(478, 3))
        self.register_buffer("speech", torch.zeros(478))
        self.register_buffer("basis", torch.zeros(components, 478 * 3))
        self.register_buffer("spread", torch.ones(components))
        self.register_buffer("hair_mean", torch.zeros(hair_points, 3))
        self.register_buffer("pose_mean", torch.zeros(12))
        self.register_buffer("pose_basis", torch.zeros(pose_components, 12))
        self.register_buffer("pose_spread", torch.ones(pose_components))
        self.register_buffer("viewpoint", torch.tensor([0.0, 0.0, 1.0]))
        weights = torch.ones(478)
        for points, weight in EXPRESSIVE_WEIGHTS:
            weights[torch.from_numpy(points)] = weight
        self.register_buffer("weights", weights.repeat_interleave(3), persistent=False)
        self.code_size = components + action_units

    def fit(
        self, landmarks: Float[Tensor, "T 478 3"], hair: Float[Tensor, "T G 3"], viewmats: Float[Tensor, "T 4 4"]
    ) -> float:
        """Learn from the training frames: the mean, the face at rest, and the components.

        Args:
            landmarks: The frames' landmarks, metres.
            hair: Their hair points, metres.
            viewmats: Their poses. The mean camera is the viewpoint: hair points say how what is seen through them
                moves, whatever its depth.

        Returns:
            The share of the (weighted) variance that the landmarks' components explain.
        """
        self.mean.copy_(landmarks.mean(0))
        self.rest.copy_(open_mouth(landmarks))
        self.speech.copy_(torch.from_numpy(speech_weights(self.mean.numpy())))
        self.hair_mean.copy_(hair.mean(0))
        self.viewpoint.copy_(torch.linalg.inv(viewmats)[:, :3, 3].mean(0))
        poses = _pose_vectors(viewmats)
        self.pose_mean.copy_(poses.mean(0))
        _fit_components(poses - self.pose_mean, self.pose_basis, self.pose_spread, LEAST_POSE_SPREAD)
        deviations = (self._seen(landmarks) - self.mean).flatten(1) * self.weights
        return _fit_components(deviations, self.basis, self.spread, least_spread=1e-6)

    def condition(
        self,
        landmarks: Float[Tensor, "478 3"],
        action_units: Float[Tensor, " A"],
        hair: Float[Tensor, "G 3"],
        viewmat: Float[Tensor, "4 4"],
        audio: Float[Tensor, "8 W C"] | None = None,
    ) -> Condition:
        """Turn a frame's landmarks (metres), action units (0..5), hair points (metres) and pose into its condition.

        It is on the space's device, wherever the arguments are. Sound (`audio_code.audio_windows`) is left out where
        the head does not hear.

        Raises:
            UserError: The head hears, and there is no sound, or audio features of another shape than the training's.
        """
        landmarks, action_units, hair, viewmat = (x.to(self.mean) for x in (landmarks, action_units, hair, viewmat))
        landmarks = self._seen(landmarks)
        code = _limited((self.basis @ ((landmarks - self.mean).flatten() * self.weights)) / self.spread)
        code = torch.cat([code, action_units * self.ACTION_UNIT_SCALE])
        pose = _limited((self.pose_basis @ (_pose_vectors(viewmat) - self.pose_mean)) / self.pose_spread)
        return Condition(landmarks - self.rest, code, hair - self.hair_mean, pose, self._heard(audio))

    def without_speech(self, landmarks: Float[Tensor, "*T 478 3"]) -> Float[Tensor, "*T 478 3"]:
        """Put lips, chin and lower cheeks, fading over the cheeks, where the mean face has them."""
        return torch.lerp(landmarks, self.mean.expand_as(landmarks), self.speech[:, None].expand_as(landmarks))

    def _seen(self, landmarks: Float[Tensor, "*T 478 3"]) -> Float[Tensor, "*T 478 3"]:
        return self.without_speech(landmarks) if self.hold_speech else landmarks

    def _heard(self, audio: Float[Tensor, "8 W C"] | None) -> Float[Tensor, "8 W C"] | None:
        if self.audio_shape is None:
            return None
        wanted = [WINDOW, *self.audio_shape]
        if audio is None:
            raise UserError(
                f"this head hears: it needs audio features {wanted} with each frame, got none; "
                "give its driving sequence the audio features it was trained with, or let it speak a sound."
            )
        if list(audio.shape) != wanted:
            raise UserError(
                f"this head hears audio features {wanted} with each frame, as in its training, "
                f"got {list(audio.shape)}; extract them alike."
            )
        return audio.to(self.mean)


def _limited(code: Float[Tensor, " C"]) -> Float[Tensor, " C"]:
    return CODE_LIMIT * torch.tanh(code / CODE_LIMIT)


def _pose_vectors(viewmats: Float[Tensor, "*T 4 4"]) -> Float[Tensor, "*T 12"]:
    """Write poses as vectors in which a radian and METRES_PER_RADIAN are as far."""
    moved = viewmats[..., :3, 3] / METRES_PER_RADIAN
    return torch.cat([viewmats[..., :3, :3].flatten(-2), moved], -1)


def _fit_components(
    deviations: Float[Tensor, "T D"], basis: Float[Tensor, "C D"], spread: Float[Tensor, " C"], least_spread: float
) -> float:
    """Fill in principal components and their standard deviations; return the share of variance they explain."""
    _, singular, vh = torch.linalg.svd(deviations, full_matrices=False)
    held = min(len(basis), len(vh))
    basis[:held] = vh[:held]
    spread[:held] = (singular[:held] / len(deviations) ** 0.5).clamp_min(least_spread)
    energy = singular.square()
    return float(energy[:held].sum() / energy.sum())


def open_mouth(landmarks: Float[Tensor, "T 478 3"]) -> Float[Tensor, "478 3"]:
    """Return the mean face with its mouth opened to REST_APERTURE_M."""
    return with_mouth(landmarks, REST_APERTURE_M)


def with_mouth(landmarks: Float[Tensor, "T 478 3"], aperture_m: float) -> Float[Tensor, "478 3"]:
    """Return the mean face with its mouth opened so far, as the frames' landmarks follow their aperture."""
    aperture = torch.from_numpy(np.asarray(mouth_aperture(landmarks.numpy()))).to(landmarks)
    opening = aperture - aperture.mean()
    deviation = landmarks - landmarks.mean(0)
    slope = torch.einsum("t,tlc->lc", opening, deviation) / (opening.square().sum() + 1e-8 * len(opening))
    return landmarks.mean(0) + slope * (aperture_m - aperture.mean())
