"""Who does the work of the steps: four parts that know nothing of files, and those that are used in earnest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray

from gaussian_head.errors import UserError
from gaussian_head.geometry.coefficients import FaceCoefficients
from gaussian_head.geometry.face_alignment import cut_aligned, fill_gaps, fit_alignment
from gaussian_head.geometry.landmarks import MESH_TO_68
from gaussian_head.networks.challenge_expression import load_challenge_expression
from gaussian_head.networks.challenge_pose import load_challenge_pose
from gaussian_head.networks.coefficient_regressor import CoefficientRegressor, load_coefficient_regressor, regress
from gaussian_head.networks.face_mesh import FaceMeshDetector, import_mediapipe
from gaussian_head.networks.weights import find_weights
from gaussian_head.oneshot.audio2coeff.challenge import ChallengeMotion
from gaussian_head.oneshot.face_renderer.renderer import FaceRenderer

Picture = UInt8[ndarray, "S S 3"]
Landmarks = Float[ndarray, "68 2"]
WorkerName = Literal["extractor", "expression", "pose", "renderer", "lips"]


@runtime_checkable
class Extractor(Protocol):
    """Finds faces and what they do."""

    def landmarks(self, pictures: Iterable[Picture]) -> Iterator[Landmarks | None]:
        """Give each picture's 68 points in px (pixel centres at + 0.5), or None where there is no face."""
        ...

    def coefficients(self, pictures: Iterable[Picture], landmarks: Sequence[Landmarks | None]) -> FaceCoefficients:
        """Return every picture's coefficients with its crop; at least one of the pictures has landmarks."""
        ...


@runtime_checkable
class Motion(Protocol):
    """Moves a first frame as a sound says; see `audio2coeff.challenge.ChallengeMotion`."""

    def move(
        self,
        speech: Float[ndarray, "S"],
        first: FaceCoefficients,
        *,
        crop: bool = True,
        expressions: Float[ndarray, "N 64"] | None = None,
    ) -> Iterator[Float32[ndarray, "n M"]]:
        """Give motion vectors in blocks, one for each whole frame of the sound; `expressions` are taken as they are."""
        ...


@runtime_checkable
class LipRefiner(Protocol):
    """Draws lips that say a sound into frames; see `wav2lip.lip_sync.LipPainter`."""

    def refine(
        self, frames: Iterable[Picture], count: int, fps: float | int, speech: Float[ndarray, "S"]
    ) -> Iterator[Picture]:
        """Give as many frames as there are."""
        ...


@runtime_checkable
class Workers(Protocol):
    """All who work; each is made when it is first asked for."""

    side_px: int
    """Of the pictures."""

    @property
    def extractor(self) -> Extractor:
        """Return who finds faces."""
        ...

    @property
    def expression(self) -> Motion:
        """Return who makes expressions from sound; the head stays."""
        ...

    @property
    def pose(self) -> Motion:
        """Return who turns the head, to a sound and given expressions."""
        ...

    @property
    def renderer(self) -> FaceRenderer:
        """Return who draws."""
        ...

    @property
    def lips(self) -> LipRefiner:
        """Return who draws lips."""
        ...

    def weights(self, name: WorkerName) -> list[Path]:
        """Return the files that a worker is made from: results that are older are made again.

        Raises:
            UserError: One is missing (WeightsMissingError), or a package that it needs.
        """
        ...


@dataclass(frozen=True)
class WorkerOptions:
    """Which networks do the work."""

    renderer: Literal["vid2vid", "pirender"] = "vid2vid"
    """Draws the pictures; the entry's was face-vid2vid with motion vectors of 73 numbers."""
    side_px: Literal[256, 512] = 256
    """Of the pictures; PIRender's are 256."""
    expression: Path | None = None
    """Weights of the expression network; default: transformer_Epoch_00042000.bin, see scripts/prepare.sh."""
    pose: Path | None = None
    """Weights of the head-pose network; default: lstm_Epoch_00042000.bin, see scripts/prepare.sh."""
    device: str = "auto"
    """cpu, cuda or cuda:NUMBER; auto: a GPU where there is one."""


class NetworkWorkers:
    """The networks of this project, with weights from disk."""

    def __init__(self, options: WorkerOptions, device: torch.device) -> None:
        """Load nothing yet.

        Raises:
            UserError: The renderer has no such size.
        """
        if options.renderer == "pirender" and options.side_px != 256:
            raise UserError(f"--renderer pirender draws pictures of 256 px, got --side-px {options.side_px}.")
        self._options, self._device = options, device
        self.side_px = options.side_px

    def weights(self, name: WorkerName) -> list[Path]:
        """See `Workers`."""
        options = self._options
        given = {"challenge_expression": options.expression, "challenge_pose": options.pose}
        of_renderer = ("pirender",)
        if options.renderer == "vid2vid":
            of_renderer = (f"sadtalker_{options.side_px}", "sadtalker_mapping_full")
        names: dict[str, tuple[str, ...]] = {
            "extractor": ("deep3d",),
            "expression": ("challenge_expression",),
            "pose": ("challenge_pose",),
            "renderer": of_renderer,
            "lips": ("wav2lip_gan",),
        }
        if name == "extractor":
            import_mediapipe()
        return [find_weights(network, given.get(network)) for network in names[name]]

    @cached_property
    def extractor(self) -> Extractor:
        """See `Workers`."""
        return FaceExtractor(load_coefficient_regressor(), self.side_px)

    @cached_property
    def expression(self) -> Motion:
        """See `Workers`."""
        return ChallengeMotion(load_challenge_expression(self._options.expression).to(self._device), None)

    @cached_property
    def pose(self) -> Motion:
        """See `Workers`."""
        return ChallengeMotion(None, load_challenge_pose(self._options.pose).to(self._device))

    @cached_property
    def renderer(self) -> FaceRenderer:
        """See `Workers`."""
        if self._options.renderer == "pirender":
            from gaussian_head.oneshot.face_renderer.pirender import load_pirender_renderer

            return load_pirender_renderer(device=self._device)
        from gaussian_head.oneshot.face_renderer.vid2vid import load_vid2vid

        return load_vid2vid(self.side_px, crop=True, device=self._device)

    @cached_property
    def lips(self) -> LipRefiner:
        """See `Workers`."""
        from gaussian_head.oneshot.wav2lip.lip_sync import LipSyncConfig
        from gaussian_head.oneshot.wav2lip.loading import load_painter

        (weights,) = self.weights("lips")
        return load_painter(LipSyncConfig(), weights, "auto", self._device)


class FaceExtractor:
    """MediaPipe's face mesh, Deep3DFaceRecon's alignment and regressor (specs/one_shot.md 1.3, 1.4)."""

    def __init__(self, network: CoefficientRegressor, side_px: int, batch: int = 16) -> None:
        """Take a network that is ready to use.

        Args:
            network: The regressor.
            side_px: Of the pictures.
            batch: Pictures shown to it at once; any number of pictures is worked on to the last one (one_shot.md 8, 7).
        """
        self._network, self._side_px, self._batch = network, side_px, batch

    def landmarks(self, pictures: Iterable[Picture]) -> Iterator[Landmarks | None]:
        """See `Extractor`."""
        with FaceMeshDetector() as detector:
            for picture in pictures:
                mesh = detector.detect(picture)
                yield None if mesh is None else mesh[MESH_TO_68, :2]

    def coefficients(self, pictures: Iterable[Picture], landmarks: Sequence[Landmarks | None]) -> FaceCoefficients:
        """See `Extractor`; a picture without landmarks is cut as the nearest one that has them."""
        side = self._side_px
        transforms = fill_gaps([
            None if points is None else fit_alignment(points - 0.5, side, side) for points in landmarks
        ])  # fmt: skip
        faces = (cut_aligned(picture, transform) for picture, transform in zip(pictures, transforms, strict=True))
        return FaceCoefficients.from_deep3d(regress(self._network, faces, self._batch), transforms)
