"""Command: the morphable model's coefficients of every frame, as the one-shot pipelines' `.mat` files hold them.

python -m data_utils.coefficients SOURCE [--out FILE] [--layout deep3d|sadtalker]

Deep3DFaceRecon's regressor and alignment (specs/one_shot.md 1.3, 1.4); its weights must be on disk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray

from data_utils.stage import Progress, no_progress
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.errors import UserError, configure_logging, run_command
from gaussian_head.geometry.coefficients import FaceCoefficients
from gaussian_head.geometry.face_alignment import align_picture, cut_aligned, fill_gaps
from gaussian_head.geometry.landmarks import MESH_TO_68
from gaussian_head.media.image import read_rgb
from gaussian_head.media.mat import write_deep3d, write_sadtalker
from gaussian_head.media.video import read_frames
from gaussian_head.networks.coefficient_regressor import CoefficientRegressor, load_coefficient_regressor, regress

PICTURES = (".jpg", ".jpeg", ".png")
Layout = Literal["deep3d", "sadtalker"]
Picture = UInt8[ndarray, "H W 3"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Pictures of one face, in order, with what is known of its landmarks."""

    pictures: Callable[[], Iterator[Picture]]
    """Starts reading anew at each call: they are gone through twice and never held all at once."""
    landmarks: tuple[Path, ...] | None = None
    """A text of 68 lines `x y` for each picture, px; the file is absent where no face was found."""


def extract_coefficients(
    source: Path, network: CoefficientRegressor, batch: int = 16, progress: Progress = no_progress
) -> tuple[Float32[ndarray, "T 257"], Float32[ndarray, "T 5"]]:
    """Regress the coefficients of every picture.

    Where no face was found, the picture is cut as the nearest one in which there is one.

    Args:
        source: A video, a picture, a folder of pictures, or a subject folder, whose landmarks are then used.
        network: Ready to use.
        batch: Pictures shown to the network at once; the result does not depend on it.
        progress: Wraps the loop.

    Returns:
        Coefficients and transform parameters (`geometry.face_alignment`), a row a picture.

    Raises:
        FileNotFoundError: No such source.
        UserError: It holds no picture, or no face.
    """
    found = open_source(source)
    transforms = _fill_gaps(_align(found, source), source)
    crops = (cut_aligned(*pair) for pair in zip(found.pictures(), transforms, strict=True))
    return regress(network, progress(crops, len(transforms), "coefficients"), batch), transforms


def open_source(source: Path) -> Source:
    """Find out what a path names; see `extract_coefficients`."""
    if source.is_dir():
        layout = SubjectLayout(source)
        folder = layout.frame(0).parent if layout.frame(0).is_file() else source
        paths = sorted((path for path in folder.iterdir() if path.suffix.lower() in PICTURES), key=_in_order)
        if not paths:
            raise UserError(f"{folder} holds no picture ({', '.join(PICTURES)}); name a folder of frames or a video.")
        beside = tuple(path.with_suffix(layout.landmarks68(0).suffix) for path in paths)
        return Source(lambda: map(read_rgb, paths), beside if any(path.is_file() for path in beside) else None)
    if not source.is_file():
        raise FileNotFoundError(f"{source} does not exist; name a video, a picture or a folder of pictures.")
    if source.suffix.lower() in PICTURES:
        return Source(lambda: iter([read_rgb(source)]))
    return Source(lambda: (picture for _, picture in read_frames(source)))


def _in_order(path: Path) -> tuple[int, str]:
    """Sort numbered frames by number, others by name behind them."""
    return (int(path.stem), "") if path.stem.isdecimal() else (1 << 62, path.name)


def _align(found: Source, source: Path) -> list[Float32[ndarray, "5"] | None]:
    """Fit each picture's alignment; None where there is no face."""
    if found.landmarks is not None:
        pairs = zip(found.pictures(), found.landmarks, strict=True)
        return [_fit(_read_landmarks(path), picture) for picture, path in pairs]
    from gaussian_head.networks.face_mesh import FaceMeshDetector

    transforms = []
    with FaceMeshDetector() as detector:
        for picture in found.pictures():
            mesh = detector.detect(picture)
            transforms.append(_fit(None if mesh is None else mesh[MESH_TO_68, :2], picture))
    if not transforms:
        raise UserError(f"{source} holds no picture; name a video, a picture or a folder of pictures.")
    return transforms


def _fit(landmarks: Float[ndarray, "68 2"] | None, picture: Picture) -> Float32[ndarray, "5"] | None:
    return None if landmarks is None else align_picture(landmarks, picture)


def _read_landmarks(path: Path) -> Float[ndarray, "68 2"] | None:
    if not path.is_file():
        return None
    try:
        landmarks = np.loadtxt(path, ndmin=2)
    except ValueError as error:
        raise UserError(f"{path} is no table of numbers ({error}); it must hold 68 lines `x y`, in px.") from error
    if landmarks.shape != (68, 2) or not np.isfinite(landmarks).all():
        raise UserError(f"{path} must hold 68 lines `x y` of finite numbers, in px, got {list(landmarks.shape)}.")
    return landmarks


def _fill_gaps(transforms: list[Float32[ndarray, "5"] | None], source: Path) -> Float32[ndarray, "T 5"]:
    """Give pictures without a face the alignment of the nearest one with a face."""
    count, missing = len(transforms), sum(transform is None for transform in transforms)
    if missing == count:
        raise UserError(f"no face found in {source} ({count} pictures); give pictures of a face, lit and large.")
    if missing:
        logger.warning("%d of %d pictures show no face; they are cut as their neighbours.", missing, count)
    return fill_gaps(transforms)


@dataclass(frozen=True)
class CoefficientOptions:
    """Regress the coefficients of a face model (257 a frame) and write them as the one-shot pipelines' .mat file."""

    source: Annotated[Path, tyro.conf.Positional]
    """A video, a picture, a folder of pictures, or a subject folder (whose landmarks are then used)."""
    out: Path | None = None
    """The .mat file to write; default: named like the source, beside it (where evaluate looks for coefficients)."""
    layout: Layout = "deep3d"
    """deep3d: coeff and transform_params of every frame; sadtalker: coeff_3dmm [frames, 73] and full_3dmm [1, 257]."""
    weights: Path | None = None
    """epoch_20.pth or a file of SadTalker that holds it; default: see scripts/prepare.sh."""
    batch: int = 16
    """Pictures at once; more are faster until memory is short."""
    debug: bool = False
    """Show the traceback of an error."""


def run(options: CoefficientOptions, progress: Progress = no_progress) -> Path:
    """Extract and write; see `CoefficientOptions`.

    Returns:
        The file written.

    Raises:
        FileNotFoundError: No such source.
        UserError: The weights are missing or another network's, or the source shows no face.
    """
    out = options.out or options.source.resolve().with_suffix(".mat")
    if out.suffix != ".mat":
        raise UserError(f"--out must end in .mat, got {out}.")
    if options.batch < 1:
        raise UserError(f"--batch must be at least 1, got {options.batch}.")
    network = load_coefficient_regressor(options.weights)
    coefficients, transforms = extract_coefficients(options.source, network, options.batch, progress)
    if options.layout == "sadtalker":
        write_sadtalker(out, *FaceCoefficients.from_deep3d(coefficients, transforms).sadtalker())
    else:
        write_deep3d(out, coefficients, transforms)
    print(f"coefficients of {len(coefficients)} frames")
    return out


def main() -> None:
    """Parse the command line and run."""
    options = tyro.cli(CoefficientOptions)
    configure_logging()

    def body() -> None:
        from data_utils.process import show_progress

        print(run(options, show_progress))

    run_command(body, debug=options.debug)


if __name__ == "__main__":
    main()
