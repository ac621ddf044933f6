"""A face of 478 points that turns, moves and speaks, with its true poses, and how to compare poses with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import Delaunay
from scipy.spatial.transform import Rotation

from data_utils.bundle_adjustment import FACE_WIDTH_M
from data_utils.face_track import FaceTrack
from data_utils.synthetic.raster import rasterize
from gaussian_head.geometry.landmarks import FACE_OVAL, RIGID

WIDTH = HEIGHT = 512
FOCAL_PX, DISTANCE_M = 2.3 * WIDTH, 0.9


@dataclass
class MovingFace:
    """The truth of a clip (camera axes are OpenGL's, as in `face_track`)."""

    track: FaceTrack

    @property
    def frames(self) -> int:
        return len(self.track.rotations)

    def landmarks(self, noise_px: float, seed: int = 0) -> np.ndarray:
        """What a detector would say: x, y in px with noise, and a noisier relative z in px (smaller is nearer)."""
        rng = np.random.default_rng(seed)
        pixels = self.track.project(torch.tensor([WIDTH / 2, HEIGHT / 2])).numpy()
        camera = self.track.points() @ self.track.rotations.transpose(1, 2)
        px_per_m = self.track.focal_px / -self.track.translations[:, 2]
        z = (-camera[..., 2] * px_per_m[:, None]).numpy()
        clean = np.concatenate([pixels, z[..., None]], 2)
        return (clean + rng.normal(size=clean.shape) * noise_px * [1, 1, 3]).astype(np.float32)


def face_shape(rng: np.random.Generator) -> np.ndarray:
    """Points on a smooth face, metres: an ellipsoid's front with a nose; the oval is the rim."""
    angle, radius = rng.uniform(0, 2 * np.pi, 478), np.sqrt(rng.uniform(0, 0.85, 478))
    unit = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    unit[RIGID, 1] = np.abs(unit[RIGID, 1])  # what hardly moves lies above the mouth
    around = np.pi / 2 - np.arange(len(FACE_OVAL)) * 2 * np.pi / len(FACE_OVAL)
    unit[FACE_OVAL] = np.stack([np.cos(around), np.sin(around)], 1)
    bulge = np.sqrt(np.clip(1.05 - (unit**2).sum(1), 0, None))
    nose = np.exp(-((unit[:, 0] / 0.15) ** 2) - ((unit[:, 1] / 0.25) ** 2))
    shape = np.column_stack([0.07 * unit[:, 0], 0.095 * unit[:, 1], 0.055 * bulge + 0.02 * nose])
    shape *= FACE_WIDTH_M / np.linalg.norm(shape[454] - shape[234])
    return shape - shape[FACE_OVAL].mean(0)


def expression_basis(shape: np.ndarray) -> np.ndarray:
    """Three smooth expressions [3, 478, 3] of about a centimetre: the jaw drops, the lips widen, the lips protrude."""
    lower = 1 / (1 + np.exp((shape[:, 1] + 0.03) / 0.008))
    mouth = np.exp(-((shape[:, 0] / 0.03) ** 2) - (((shape[:, 1] + 0.05) / 0.02) ** 2))
    mouth[RIGID], lower[RIGID] = 0, 0
    zero = np.zeros(478)
    jaw = np.column_stack([zero, -lower, -0.3 * lower])
    wide = np.column_stack([mouth * np.sign(shape[:, 0]) * np.minimum(np.abs(shape[:, 0]) / 0.02, 1), zero, zero])
    protrude = np.column_stack([zero, zero, mouth])
    return 0.01 * np.stack([jaw, wide, protrude])


def make_moving_face(frames: int, seed: int = 0) -> MovingFace:
    """A head that turns up to about 15 degrees, sways some centimetres and talks."""
    rng = np.random.default_rng(seed)
    shape = face_shape(rng)
    time = np.arange(frames)[:, None] / 25

    def wave(amplitudes: tuple[float, float, float], hz: float) -> np.ndarray:
        phases = rng.uniform(0, 2 * np.pi, (2, 3))
        slow = np.sin(2 * np.pi * hz * time + phases[0]) + 0.4 * np.sin(2 * np.pi * 2.7 * hz * time + phases[1])
        return slow * amplitudes

    turn = Rotation.from_euler("yxz", wave((0.2, 0.12, 0.08), 0.4)).as_matrix()
    place = np.array([0.01, -0.02, -DISTANCE_M]) + wave((0.03, 0.015, 0.03), 0.3)
    talk = np.abs(wave((0.5, 0.3, 0.3), 2.0))
    return MovingFace(
        FaceTrack(
            FOCAL_PX,
            *(torch.from_numpy(value).float() for value in (shape, expression_basis(shape), talk, turn, place)),
        )
    )


def rotation_errors_deg(estimated: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Angles between rotations [T, 3, 3] once the two head frames (right-hand factors) are aligned."""
    relative = Rotation.from_matrix(np.swapaxes(truth, 1, 2) @ estimated)
    return np.degrees((relative * relative.mean().inv()).magnitude())


def draw(face: FaceTrack, k: int) -> np.ndarray:
    """Picture of frame k [H, W, 3]: a face with freckles, painted on the mesh, before a grey wall."""
    shape = face.shape.double().numpy()[:468]
    faces = Delaunay(shape[:, :2]).simplices
    a, b = (shape[faces[:, i], :2] - shape[faces[:, 0], :2] for i in (1, 2))
    clockwise = a[:, 0] * b[:, 1] < a[:, 1] * b[:, 0]
    faces[clockwise] = faces[clockwise, ::-1]
    camera = (face.points()[k] @ face.rotations[k].T + face.translations[k])[:468]
    xy = face.project(torch.tensor([WIDTH / 2, HEIGHT / 2]))[k, :468].numpy()
    pixel, triangle, weights = rasterize(xy, -camera[:, 2].numpy(), faces.astype(np.int64), WIDTH, HEIGHT)
    place = (shape[faces[triangle], :2] * weights[..., None]).sum(1)
    rng = np.random.default_rng(7)
    frequencies, phases = rng.normal(size=(40, 2)) * 350, rng.uniform(0, 2 * np.pi, 40)
    paint = np.sin(place @ frequencies.T + phases).sum(1) * 8
    picture = np.full((HEIGHT * WIDTH, 3), 110.0)
    picture[pixel] = np.array([190, 150, 130]) + paint[:, None]
    return picture.clip(0, 255).astype(np.uint8).reshape(HEIGHT, WIDTH, 3)
