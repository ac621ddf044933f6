"""Face enhancers as plug-ins: a picture in, a sharper one out. GFPGAN is one; users register others.

Enhancers raise measures of sharpness and may lower FID where the truth is less sharp (specs/one_shot.md 5).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from gaussian_head.errors import UserError
from gaussian_head.media.image import resize
from gaussian_head.networks.weights import WeightsMissingError, find_weights, load_state_dict


@runtime_checkable
class Enhancer(Protocol):
    """Makes faces in a picture sharper."""

    def enhance(self, rgb: UInt8[ndarray, "H W 3"]) -> UInt8[ndarray, "h w 3"]:
        """Return the picture, RGB in 0..255, of the same shape or larger in the same proportions."""
        ...


ENHANCERS: dict[str, Callable[[], Enhancer]] = {}
"""By name; see `register_enhancer`."""


def register_enhancer(name: str, build: Callable[[], Enhancer]) -> None:
    """Make an enhancer known; `build` is called when it is first wanted, so it may import what it needs.

    Raises:
        ValueError: The name is taken.
    """
    if name in ENHANCERS:
        raise ValueError(f"an enhancer named {name} is registered already; take another name.")
    ENHANCERS[name] = build


def open_enhancer(name: str) -> Enhancer:
    """Build an enhancer.

    Raises:
        UserError: There is none of that name, or it lacks its package or its weights (WeightsMissingError).
    """
    if name not in ENHANCERS:
        raise UserError(f"there is no enhancer {name}; known: {', '.join(sorted(ENHANCERS))}.")
    return ENHANCERS[name]()


def enhanced(
    frames: Iterable[UInt8[ndarray, "H W C"]], enhancer: Enhancer, *, keep_size: bool = True
) -> Iterator[UInt8[ndarray, "h w C"]]:
    """Enhance one frame after the other; an alpha channel goes along.

    Args:
        frames: RGB or RGBA.
        enhancer: What to do.
        keep_size: Shrink what the enhancer enlarged.

    Raises:
        ValueError: The enhancer returned something other than an RGB picture of uint8.
    """
    for frame in frames:
        out = enhancer.enhance(np.ascontiguousarray(frame[:, :, :3]))
        if out.dtype != np.uint8 or out.ndim != 3 or out.shape[2] != 3:
            raise ValueError(f"an enhancer must return uint8 [H, W, 3], got {out.dtype} {list(out.shape)}.")
        if keep_size:
            out = resize(out, frame.shape[1], frame.shape[0])
        if frame.shape[2] == 4:
            alpha = resize(np.ascontiguousarray(frame[:, :, 3]), out.shape[1], out.shape[0])
            out = np.dstack([out, alpha])
        yield out


class Gfpgan:
    """GFPGAN v1.4 (Wang et al. 2021) by its own package: every face of the picture, background as it is."""

    FOLDER = Path("gfpgan") / "weights"
    """Where the package looks for its helpers, below the working folder; it downloads what is not there."""
    HELPERS = ("detection_Resnet50_Final.pth", "parsing_parsenet.pth")

    def __init__(self, upscale: int = 2) -> None:
        """Load the package and its weights.

        Args:
            upscale: How many times as wide and high the results are.

        Raises:
            UserError: The package or a file is missing (nothing is downloaded), or the weights are damaged.
        """
        path = find_weights("gfpgan")
        absent = [self.FOLDER / name for name in self.HELPERS if not (self.FOLDER / name).is_file()]
        if absent:
            raise WeightsMissingError(
                f"gfpgan needs {' and '.join(str(file) for file in absent)} (releases of github.com/xinntao/facexlib); "
                "it would download them by itself, which is not allowed here."
            )
        load_state_dict(path)  # plain tensors? the package does not ask
        try:
            package = importlib.import_module("gfpgan")
        except ImportError as error:
            raise UserError(
                f"the enhancer gfpgan needs the package gfpgan ({error}); install it (pip install gfpgan), "
                "or leave --enhancer out."
            ) from error
        self._network = package.GFPGANer(
            model_path=str(path), upscale=upscale, arch="clean", channel_multiplier=2, bg_upsampler=None
        )

    def enhance(self, rgb: UInt8[ndarray, "H W 3"]) -> UInt8[ndarray, "h w 3"]:
        """See `Enhancer`."""
        bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        _, _, restored = self._network.enhance(bgr, has_aligned=False, only_center_face=False, paste_back=True)
        return cv2.cvtColor(restored, cv2.COLOR_BGR2RGB)


register_enhancer("gfpgan", Gfpgan)
