"""Fit a morphable face model to a clip: first its landmarks, then its pictures (specs/gaussian_head.md b.1).

Notation: T frames, 68 landmarks in px, coefficients in standard deviations, space in decimetres, axes of the head and
of the camera OpenGL's (`gaussian_head.geometry.face_model`). Where b.1 weighs an error in px against the mean square of
coefficients, both are here what they would be by probability: squares in units of their standard deviations, summed.
Its bounds are gone: any focal length, pictures that are not square, clips of any length, frames without a face.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cuda_ext.mesh import interpolate_mesh, rasterize_mesh
from data_utils.stage import Progress, no_progress
from gaussian_head.geometry.face_model import FaceModel, move, project, shade
from gaussian_head.geometry.rotations import matrix_from_rotvec

FOCAL_STARTS = (1.0, 2.0, 4.0)
"""Focal lengths, in the picture's longer side, from which the fit sets out; it may end anywhere."""
KEY_FRAMES, LIGHT_FRAMES, BATCH = 40, 8, 16
"""Frames that tell focal length and identity; albedo and light; and frames refined at a time."""
START_STEPS, KEY_STEPS, POSE_STEPS, LIGHT_STEPS, REFINE_STEPS = 150, 400, 200, 80, 25
LANDMARK_PX = 1.0
"""Standard deviation of landmarks, px at 512 px; larger errors count by their size, not its square."""
OUTLINE_WEIGHT = 0.2
"""Of the 17 landmarks of the cheeks and the chin, which detectors place by the outline."""
COLOR_DEVIATION = 0.05
"""Standard deviation of the pictures' RGB around the model's."""
INDEPENDENT_PX = 8.0
"""So many px (squared) of a picture tell as much as one independent measurement would."""
PICTURE_PX = 256
"""Longer side at which pictures are compared."""
STEADY_ROTATION, STEADY_PX, STEADY_EXPRESSION = 0.02, 1.5, 1.0
"""Standard deviations of second differences in time: radians, px at 512 px, deviations."""


@dataclass(frozen=True)
class ModelTrack:
    """A clip explained by the model."""

    focal_px: float
    identity: Float[Tensor, "1 I"]
    expression: Float[Tensor, "T E"]
    rotations: Float[Tensor, "T 3 3"]
    translations: Float[Tensor, "T 3"]
    albedo: Float[Tensor, "1 A"]
    light: Float[Tensor, "T 3 9"]

    def frames(self, chosen: Int[Tensor, " F"]) -> ModelTrack:
        """Return some frames of the clip."""
        parts = {name: getattr(self, name)[chosen] for name in ("expression", "rotations", "translations", "light")}
        return replace(self, **parts)


def fit_landmarks(
    model: FaceModel, landmarks: Float[Tensor, "T 68 2"], size: tuple[int, int], progress: Progress = no_progress
) -> ModelTrack:
    """Find focal length, identity, expressions and poses from landmarks.

    Args:
        model: Landmarks of its cheeks slide along the outline where it has contours.
        landmarks: px; NaN where a frame has none: its pose and expression follow from its neighbours.
        size: Picture width and height in px.
        progress: Wraps the iterations.
    """
    sparse, valid = landmark_model(model), landmarks.isfinite().all((1, 2))
    found = valid.nonzero()[:, 0]
    seen = landmarks[_nearest_in_time(found, len(landmarks))]
    keys = found[torch.linspace(0, len(found) - 1, min(KEY_FRAMES, len(found))).round().long()]
    problems = []
    for start in FOCAL_STARTS:
        problem = _Unknowns(_weak_perspective(sparse, seen[keys], start * max(size), size), size)
        of_keys = _landmark_energy(sparse, problem, seen[keys], torch.ones(len(keys), dtype=torch.bool))
        energy = problem.minimize(of_keys, START_STEPS, ("pose", "face", "focal"), progress, "focal length")
        problems.append((energy, problem, of_keys))
    _, problem, of_keys = min(problems, key=lambda entry: entry[0])
    problem.minimize(of_keys, KEY_STEPS, ("pose", "face", "focal"), progress, "face")
    keyed = problem.track()
    whole = _weak_perspective(sparse, seen, keyed.focal_px, size)
    expression = keyed.expression[(found[:, None] - keys).abs().argmin(1)] if len(found) else keyed.expression
    whole = replace(whole, identity=keyed.identity, expression=expression[_nearest_rank(found, len(landmarks))])
    problem = _Unknowns(whole, size)
    of_all = _landmark_energy(sparse, problem, seen, valid, in_time=True)
    problem.minimize(of_all, POSE_STEPS, ("pose", "expression"), progress, "all frames")
    return problem.track()


def fit_pictures(
    model: FaceModel,
    track: ModelTrack,
    landmarks: Float[Tensor, "T 68 2"],
    picture: Callable[[int], Float[Tensor, "h w 3"]],
    size: tuple[int, int],
    progress: Progress = no_progress,
) -> ModelTrack:
    """Refine a track until the model, lit and drawn, looks like the pictures.

    Args:
        model: With its triangles.
        track: What `fit_landmarks` gave.
        landmarks: px, NaN where a frame has none.
        picture: Frame number -> RGB in [0, 1], at the size of `drawn_size(size)`.
        size: Width and height that landmarks and focal length are given for, px.
        progress: Wraps the iterations.
    """
    valid = landmarks.isfinite().all((1, 2))
    found, sparse = valid.nonzero()[:, 0], landmark_model(model)
    seen = landmarks[_nearest_in_time(found, len(landmarks))]
    some = found[torch.linspace(0, len(found) - 1, min(LIGHT_FRAMES, len(found))).round().long()]

    def problem_of(chosen: Tensor, of: ModelTrack) -> tuple[_Unknowns, Callable[[], Tensor]]:
        problem = _Unknowns(of.frames(chosen), size)
        pictures = torch.stack([picture(int(k)) for k in chosen])
        by_landmarks = _landmark_energy(sparse, problem, seen[chosen], valid[chosen], in_time=len(chosen) == BATCH)
        by_pictures = _picture_energy(model, problem, pictures, size, valid[chosen])
        return problem, lambda: by_landmarks() + by_pictures()

    problem, energy = problem_of(some, track)
    problem.minimize(energy, LIGHT_STEPS // 2, ("light",), progress, "light")
    problem.minimize(energy, LIGHT_STEPS, ("light", "pose", "face"), progress, "light and face", fine=True)
    lit = problem.track()
    light = lit.light[(torch.arange(len(landmarks))[:, None] - some).abs().argmin(1)]
    track = replace(track, identity=lit.identity, albedo=lit.albedo, light=light)
    refined: list[ModelTrack] = []
    for chosen in _batches(len(landmarks)):
        problem, energy = problem_of(chosen, track)
        problem.minimize(energy, REFINE_STEPS, ("pose", "expression"), progress, "pictures", fine=True)
        fresh = len(refined) and sum(len(part.expression) for part in refined)
        refined.append(problem.track().frames(torch.arange(len(chosen))[chosen >= fresh]))
    joined = {
        name: torch.cat([getattr(part, name) for part in refined])
        for name in ("expression", "rotations", "translations", "light")
    }
    return replace(track, **joined)


def render(
    model: FaceModel, track: ModelTrack, size: tuple[int, int], drawn: tuple[int, int]
) -> tuple[Float[Tensor, "T h w 3"], Bool[Tensor, "T h w"], Float[Tensor, "T h w"]]:
    """Draw the model as a track has it.

    Args:
        model: With its triangles.
        track: Some frames of a clip.
        size: Width and height that the focal length is given for, px.
        drawn: Width and height to draw at, of the same shape up to rounding.

    Returns:
        RGB; whether a pixel shows the model; depth, decimetres, 0 where it does not.
    """
    shape = model.shape(track.identity, track.expression)
    camera = move(shape, track.rotations, track.translations)
    scale = shape.new_tensor([drawn[0] / size[0], drawn[1] / size[1]])
    pixels = scale * project(camera, track.focal_px, shape.new_tensor(size) / 2)
    fragments = rasterize_mesh(torch.cat([pixels, -camera[..., 2:]], -1), model.faces, *drawn)
    normals = model.normals(shape) @ track.rotations.transpose(1, 2)
    colors = shade(model.albedo(track.albedo), normals, track.light)
    return interpolate_mesh(fragments, model.faces, colors), fragments.face_index >= 0, fragments.depth


def drawn_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the width and height at which pictures are compared: at most PICTURE_PX."""
    share = min(1.0, PICTURE_PX / max(size))
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def landmark_model(model: FaceModel) -> FaceModel:
    """Return the part of a model that landmarks need: their vertices and those they may slide to, no triangles."""
    tables = {"landmarks": model.landmarks, "left_contour": model.left_contour, "right_contour": model.right_contour}
    given = {name: table for name, table in tables.items() if table is not None}
    kept = torch.cat([table.flatten() for table in given.values()]).unique()
    arrays = ("mean_shape", "identity_basis", "expression_basis", "mean_albedo", "albedo_basis")
    return replace(
        model, **{name: getattr(model, name)[kept] for name in arrays},
        **{name: torch.searchsorted(kept, table) for name, table in given.items()},
        faces=model.faces[:0], vertex_faces=model.vertex_faces[kept][:, :0], skin=None, rigid=None,
    )  # fmt: skip


def project_landmarks(model: FaceModel, track: ModelTrack, size: tuple[int, int]) -> Float[Tensor, "T 68 2"]:
    """Return where a track puts the landmarks, px."""
    camera = move(model.shape(track.identity, track.expression), track.rotations, track.translations)
    pixels = project(camera, track.focal_px, camera.new_tensor(size) / 2)
    return pixels.gather(1, model.landmark_vertices(pixels)[..., None].expand(-1, -1, 2))


class _Unknowns:
    """A track under refinement.

    Poses are told by where the head's origin is seen and how large, so that a change of the focal length leaves the
    picture nearly as it is.
    """

    def __init__(self, track: ModelTrack, size: tuple[int, int]) -> None:
        self.start, self.size, self.unit = track, size, max(size) / 512
        depth = -track.translations[:, 2]
        self.center = depth.new_tensor(size) / 2
        self.turn = torch.zeros_like(track.translations)
        scale = track.focal_px / depth
        self.place = self.center + scale[:, None] * track.translations[:, :2] * depth.new_tensor([1.0, -1.0])
        self.log_scale = scale.log()
        self.log_focal = depth.new_tensor(math.log(track.focal_px))
        self.identity, self.expression = track.identity.clone(), track.expression.clone()
        self.albedo, self.light = track.albedo.clone(), track.light.clone()

    def current(self) -> ModelTrack:
        """Return the track, with its way back to the unknowns."""
        scale, focal = self.log_scale.exp()[:, None], self.log_focal.exp()
        across = (self.place - self.center) / scale * self.place.new_tensor([1.0, -1.0])
        return replace(
            self.start, identity=self.identity, expression=self.expression, albedo=self.albedo, light=self.light,
            rotations=matrix_from_rotvec(self.turn) @ self.start.rotations,
            translations=torch.cat([across, -focal / scale], 1),
        )  # fmt: skip

    def track(self) -> ModelTrack:
        """Return the track as it stands, and its focal length."""
        now = self.current()
        tensors = {name: x.detach() for name, x in vars(now).items() if isinstance(x, Tensor)}
        return replace(now, **tensors, focal_px=float(self.log_focal.detach().exp()))

    def prior(self) -> Tensor:
        """Sum the squares of the coefficients."""
        parts = (self.identity, self.expression, self.albedo)
        return sum(part.square().sum() for part in parts) + 0.1 * self.light.square().sum()

    def unsteadiness(self) -> Tensor:
        """Sum the squared second differences over time."""
        rotations = matrix_from_rotvec(self.turn) @ self.start.rotations
        bent = [
            rotations.diff(n=2, dim=0) / STEADY_ROTATION,
            self.place.diff(n=2, dim=0) / (STEADY_PX * self.unit),
            self.log_scale.diff(n=2, dim=0) / STEADY_ROTATION,
            self.expression.diff(n=2, dim=0) / STEADY_EXPRESSION,
        ]
        return sum(_gentle(part).sum() for part in bent)

    def minimize(
        self, energy: Callable[[], Tensor], steps: int, what: tuple[str, ...], progress: Progress, label: str,
        *, fine: bool = False,
    ) -> float:  # fmt: skip
        """Adam with a cosine schedule over some of the unknowns; returns the last energy."""
        step = 0.2 if fine else 1.0
        groups = {
            "pose": [(self.turn, 0.02), (self.place, 2.0 * self.unit), (self.log_scale, 0.02)],
            "expression": [(self.expression, 0.1)],
            "face": [(self.expression, 0.1), (self.identity, 0.1)],
            "focal": [(self.log_focal, 0.02)],
            "light": [(self.albedo, 0.5), (self.light, 0.1)],
        }
        chosen = [{"params": [x.requires_grad_()], "lr": step * rate} for name in what for x, rate in groups[name]]
        optimizer = torch.optim.Adam(chosen, betas=(0.9, 0.99))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        value = 0.0
        for _ in progress(range(steps), steps, f"tracking: {label}"):
            optimizer.zero_grad()
            loss = energy() + self.prior()
            loss.backward()
            optimizer.step()
            schedule.step()
            value = float(loss.detach())
        for group in chosen:
            group["params"][0].requires_grad_(False)
        return value


def _landmark_energy(
    model: FaceModel, unknowns: _Unknowns, seen: Float[Tensor, "F 68 2"], valid: Bool[Tensor, " F"], *,
    in_time: bool = False,
) -> Callable[[], Tensor]:  # fmt: skip
    weights = seen.new_ones(68)
    weights[:17] = OUTLINE_WEIGHT

    def energy() -> Tensor:
        track = unknowns.current()
        camera = move(model.shape(track.identity, track.expression), track.rotations, track.translations)
        pixels = project(camera, unknowns.log_focal.exp(), unknowns.center)
        found = pixels.gather(1, model.landmark_vertices(pixels)[..., None].expand(-1, -1, 2))
        error = (found - seen)[valid] / (LANDMARK_PX * unknowns.unit)
        total = (weights[:, None] * _gentle(error)).sum()
        return total + unknowns.unsteadiness() if in_time else total

    return energy


def _picture_energy(
    model: FaceModel, unknowns: _Unknowns, pictures: Float[Tensor, "F h w 3"], size: tuple[int, int],
    valid: Bool[Tensor, " F"],
) -> Callable[[], Tensor]:  # fmt: skip
    drawn = (pictures.shape[2], pictures.shape[1])

    def energy() -> Tensor:
        colors, shown, _ = render(model, unknowns.current(), size, drawn)
        counted = shown & valid[:, None, None]
        error = (colors - pictures)[counted] / COLOR_DEVIATION
        return _gentle(error).sum() / INDEPENDENT_PX

    return energy


def _gentle(x: Tensor) -> Tensor:
    """Square of small values, twice the size of large ones."""
    return 2 * (torch.sqrt(1 + x.square()) - 1)


def _weak_perspective(
    model: FaceModel, seen: Float[Tensor, "F 68 2"], focal_px: float, size: tuple[int, int]
) -> ModelTrack:
    """Lay the mean face's landmarks onto each frame's: the affine map nearest to it, made a rotation."""
    points = model.mean_shape[model.landmarks]
    homogeneous = torch.cat([points, torch.ones_like(points[:, :1])], 1)
    upright = (seen - seen.new_tensor(size) / 2) * seen.new_tensor([1.0, -1.0])
    affine = torch.linalg.lstsq(homogeneous.expand(len(seen), -1, -1), upright).solution.transpose(1, 2)  # [F, 2, 4]
    u, s, vh = torch.linalg.svd(affine[..., :3], full_matrices=False)
    two = u @ vh
    rotations = torch.cat([two, torch.linalg.cross(two[:, :1], two[:, 1:])], 1)
    scale = s.mean(1)
    translations = torch.cat([affine[..., 3] / scale[:, None], -focal_px / scale[:, None]], 1)
    frames = len(seen)

    def zeros(*shape: int) -> Tensor:
        return seen.new_zeros(shape)

    return ModelTrack(
        focal_px, zeros(1, model.identity_basis.shape[2]), zeros(frames, model.expression_basis.shape[2]),
        rotations, translations, zeros(1, model.albedo_basis.shape[2]), zeros(frames, 3, 9),
    )  # fmt: skip


def _nearest_rank(found: Int[Tensor, " G"], frames: int) -> Int[Tensor, " T"]:
    """Return for every frame which of the found ones is nearest."""
    return (torch.arange(frames)[:, None] - found).abs().argmin(1)


def _nearest_in_time(found: Int[Tensor, " G"], frames: int) -> Int[Tensor, " T"]:
    return found[_nearest_rank(found, frames)]


def _batches(frames: int) -> Iterator[Int[Tensor, " F"]]:
    """Give all frames, BATCH at a time; each batch but the first sets in two frames earlier, to join smoothly."""
    start = 0
    while start < frames:
        first = max(0, min(start - 2, frames - BATCH)) if start else 0
        end = min(first + BATCH, frames)
        yield torch.arange(first, end)
        start = end
