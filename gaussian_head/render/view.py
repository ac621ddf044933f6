"""Rasterize one branch, or the whole head: face over mouth over background."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from cuda_ext import Rasterization, rasterize
from gaussian_head.model.head import Deformed, Head, Prepared
from gaussian_head.model.landmark_space import Condition
from gaussian_head.render.composite import over
from gaussian_head.render.rasterizers import Rasterizer


class Eye(NamedTuple):
    """A camera on the working device: world-to-camera (OpenCV axes), intrinsics in px, picture size in px."""

    viewmat: Float[Tensor, "4 4"]
    K: Float[Tensor, "3 3"]
    width: int
    height: int

    def crop(self, left: int, top: int, width: int, height: int) -> Eye:
        """Return the camera that sees only the box starting at (left, top)."""
        K = self.K.clone()
        K[0, 2] -= left
        K[1, 2] -= top
        return Eye(self.viewmat, K, width, height)

    def half(self) -> Eye:
        """Return the camera whose picture is half as wide and high; an odd last row or column is left out."""
        return Eye(self.viewmat, self.K * self.K.new_tensor([[0.5], [0.5], [1]]), self.width // 2, self.height // 2)


class HeadView(NamedTuple):
    """The head in one frame, both layers premultiplied by their coverage."""

    face: Float[Tensor, "3 H W"]
    face_alpha: Float[Tensor, "1 H W"]
    mouth: Float[Tensor, "3 H W"]
    mouth_alpha: Float[Tensor, "1 H W"]

    def over(self, background: Float[Tensor, "3 H W"]) -> Float[Tensor, "3 H W"]:
        """Lay face over mouth over the background."""
        return over(self.face, self.face_alpha, over(self.mouth, self.mouth_alpha, background))

    @property
    def alpha(self) -> Float[Tensor, "1 H W"]:
        """Coverage of the whole head."""
        return self.face_alpha + (1 - self.face_alpha) * self.mouth_alpha


def render_branch(
    gaussians: Deformed, eye: Eye, means2d: Float[Tensor, "N 2"] | None = None, rasterizer: Rasterizer = rasterize
) -> Rasterization:
    """Rasterize one branch over black."""
    return rasterizer(
        gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, eye.viewmat, eye.K, eye.width,
        eye.height, sh=gaussians.sh, means2d=means2d,
    )  # fmt: skip


class HeadRenderer:
    """A trained head as a function of frame conditions; what depends only on its Gaussians is computed once."""

    def __init__(self, head: Head, rasterizer: Rasterizer = rasterize) -> None:
        """Prepare both branches."""
        self.head = head
        self.rasterizer = rasterizer
        with torch.no_grad():
            self._face: Prepared = head.face.prepare()
            self._mouth: Prepared = head.mouth.prepare()

    @torch.no_grad()
    def __call__(self, condition: Condition, eye: Eye) -> HeadView:
        """Render one frame."""
        face = render_branch(self.head.face.deform(self._face, condition), eye, rasterizer=self.rasterizer)
        mouth = render_branch(self.head.mouth.deform(self._mouth, condition), eye, rasterizer=self.rasterizer)
        return HeadView(face.color, face.alpha, mouth.color, mouth.alpha)
