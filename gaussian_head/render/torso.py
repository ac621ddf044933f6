"""The torso that a model draws, as what stands behind the head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cuda_ext import Rasterization, rasterize
from gaussian_head.data.subject import Subject
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.model.torso import Torso
from gaussian_head.render.backdrop import Layer, cover
from gaussian_head.render.composite import over
from gaussian_head.render.rasterizers import Rasterizer
from gaussian_head.render.trained import load_torso
from gaussian_head.render.view import Eye, render_branch


def torso_eye(torso: Torso, K: Float[Tensor, "3 3"], width: int, height: int) -> Eye:
    """Return the camera, which stands still in the torso frame."""
    return Eye(torso.viewmat, K, width, height)


class TorsoRenderer:
    """A trained torso as a function of the head's pose; what depends only on its Gaussians is computed once."""

    def __init__(self, torso: Torso, rasterizer: Rasterizer = rasterize) -> None:
        """Prepare the torso."""
        self.torso = torso
        self.rasterizer = rasterizer
        with torch.no_grad():
            self._prepared = torso.prepare()

    @torch.no_grad()
    def __call__(
        self, viewmat: Float[Tensor, "4 4"], K: Float[Tensor, "3 3"], width: int, height: int
    ) -> Rasterization:
        """Draw the torso over black.

        Args:
            viewmat: The head's pose, world to camera.
            K: Intrinsics in px.
            width: Of the picture, px.
            height: Likewise.
        """
        deformed = self.torso.deform(self._prepared, self.torso.condition(viewmat))
        return render_branch(deformed, torso_eye(self.torso, K, width, height), rasterizer=self.rasterizer)


class TorsoBackdrop:
    """The model's torso over a scene, whatever the pose; the footage's frame numbers do not matter."""

    def __init__(
        self, torso: Torso, width: int, height: int, scene: UInt8[np.ndarray, "h w 3"] | None,
        rasterizer: Rasterizer = rasterize,
    ) -> None:  # fmt: skip
        """Prepare torso and scene.

        Args:
            torso: A trained one, on the device that renders.
            width: Of the pictures, px.
            height: Likewise.
            scene: As `Backdrop` takes it: what is behind the torso; None: nothing, a transparent picture.
            rasterizer: Draws the Gaussians.
        """
        self._render = TorsoRenderer(torso, rasterizer)
        self._scene = None
        if scene is not None:
            covering = np.ascontiguousarray(cover(scene, width, height).transpose(2, 0, 1))
            self._scene = torch.from_numpy(covering).to(torso.viewmat) / 255

    def __call__(self, sequence: DrivingSequence, i: int) -> Layer:
        """Lay the torso that goes with the pose of frame i over the scene."""
        view = self._render(sequence.viewmats[i], sequence.K, sequence.width, sequence.height)
        if self._scene is None:
            return Layer(view.color, view.alpha, opaque=False)
        return Layer(over(view.color, view.alpha, self._scene), torch.ones_like(view.alpha), opaque=True)


def torso_backdrop(
    run: Path, subject: Subject, device: torch.device, scene: UInt8[np.ndarray, "h w 3"] | None = None,
    rasterizer: Rasterizer = rasterize,
) -> TorsoBackdrop:  # fmt: skip
    """Load a run's torso as what stands behind the head, at the subject's size.

    Args:
        run: The run folder.
        subject: The person.
        device: Where to draw.
        scene: What is behind the torso (`own_scene` is the subject's own); None: nothing.
        rasterizer: Draws the Gaussians.

    Raises:
        UserError: The run has no torso of this person (`load_torso`).
    """
    torso = load_torso(run, subject.layout).to(device)
    return TorsoBackdrop(torso, subject.width, subject.height, scene, rasterizer)
