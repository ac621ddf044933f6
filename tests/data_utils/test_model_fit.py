"""The morphable model's fit on a synthetic model whose coefficients, poses and light are known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from face_models import make_face_model
from torch import Tensor

from data_utils.model_fit import (
    BATCH,
    ModelTrack,
    _batches,
    fit_landmarks,
    fit_pictures,
    landmark_model,
    project_landmarks,
    render,
)
from gaussian_head.geometry.face_model import FaceModel
from gaussian_head.geometry.rotations import matrix_from_rotvec

pytestmark = pytest.mark.slow
SIZE, FOCAL_PX, FRAMES, MISSING = (128, 96), 340.0, 10, [4, 9]
NOISE_PX = 0.1


@dataclass
class Clip:
    """A model, its true track, and what was seen."""

    model: FaceModel
    truth: ModelTrack
    landmarks: Tensor

    def picture(self, k: int) -> Tensor:
        colors, shown, _ = render(self.model, self.truth.frames(torch.tensor([k])), SIZE, SIZE)
        return torch.where(shown[..., None], colors, torch.full_like(colors, 0.3))[0]


def make_clip() -> Clip:
    """A head that turns by 15 degrees and talks before a picture that is not square; two frames without landmarks."""
    generator = torch.Generator().manual_seed(3)
    model = make_face_model(rings=10)
    time = torch.arange(FRAMES)[:, None] / 25

    def wave(amplitudes: list[float], hz: float) -> Tensor:
        phases = 2 * math.pi * torch.rand(len(amplitudes), generator=generator)
        return torch.sin(2 * math.pi * hz * time + phases) * torch.tensor(amplitudes)

    light = 0.1 * torch.randn(1, 3, 9, generator=generator)
    truth = ModelTrack(
        FOCAL_PX, torch.randn(1, 6, generator=generator), wave([1.0] * 5, 2.0),
        matrix_from_rotvec(wave([0.12, 0.25, 0.08], 0.8)),
        torch.tensor([0.1, -0.1, -8.0]) + wave([0.3, 0.15, 0.3], 0.5),
        torch.randn(1, 4, generator=generator), light.expand(FRAMES, -1, -1),
    )  # fmt: skip
    landmarks = project_landmarks(landmark_model(model), truth, SIZE)
    landmarks = landmarks + NOISE_PX * torch.randn(landmarks.shape, generator=generator)
    landmarks[MISSING] = torch.nan
    return Clip(model, truth, landmarks)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return make_clip()


@pytest.fixture(scope="module")
def by_landmarks(clip: Clip) -> ModelTrack:
    return fit_landmarks(clip.model, clip.landmarks, SIZE)


@pytest.fixture(scope="module")
def by_pictures(clip: Clip, by_landmarks: ModelTrack) -> ModelTrack:
    return fit_pictures(clip.model, by_landmarks, clip.landmarks, clip.picture, SIZE)


def rotation_errors_deg(track: ModelTrack, truth: ModelTrack) -> Tensor:
    relative = track.rotations @ truth.rotations.transpose(1, 2)
    cosine = (relative.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2
    return cosine.clamp(-1, 1).acos().rad2deg()


SEEN = [k for k in range(FRAMES) if k not in MISSING]


def test_landmarks_give_poses_and_coefficients(clip: Clip, by_landmarks: ModelTrack) -> None:
    errors = rotation_errors_deg(by_landmarks, clip.truth)
    assert errors[SEEN].max() < 0.5
    assert by_landmarks.focal_px == pytest.approx(FOCAL_PX, rel=0.05)
    assert (by_landmarks.identity - clip.truth.identity).abs().max() < 0.05
    assert (by_landmarks.expression - clip.truth.expression)[SEEN].square().mean().sqrt() < 0.06
    assert errors[MISSING].max() < 5  # followed from their neighbours


def test_pictures_improve_expressions_and_give_the_albedo(
    clip: Clip, by_landmarks: ModelTrack, by_pictures: ModelTrack
) -> None:
    def wrong(track: ModelTrack) -> Tensor:
        return (track.expression - clip.truth.expression)[SEEN].square().mean().sqrt()

    assert rotation_errors_deg(by_pictures, clip.truth)[SEEN].max() < 0.5
    assert wrong(by_pictures) < wrong(by_landmarks)
    assert (by_pictures.identity - clip.truth.identity).abs().max() < 0.05
    assert (by_pictures.albedo - clip.truth.albedo).abs().max() < 0.1


def test_every_frame_is_refined_once() -> None:
    """Batches overlap by two frames where they join."""
    for frames in (1, 15, 16, 17, 18, 30, 47):
        done = 0
        for chosen in _batches(frames):
            assert len(chosen) <= BATCH
            assert chosen[0] <= done <= chosen[-1]
            assert done == 0 or chosen[0] <= done - 2
            done = int(chosen[-1]) + 1
        assert done == frames
