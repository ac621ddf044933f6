"""Drop-in for the module `diff_gaussian_rasterization` (Inria's rasterizer and its forks) on `cuda_ext.rasterize`.

Code of the field that imports the original runs unchanged, on a CPU too, after one line:

    import cuda_ext.diff_gaussian_rasterization as d; d.install()   # d.install("ashawkey") for that fork's results

Interface: specs/rasterizer.md 8 and specs/gaussian_head.md j.1. Kept: transposed matrices, `means2D.grad` in NDC units
with a third column of zeros, `scale_modifier`, an image as background, the near plane at 0.2. Different, on purpose:

- A Gaussian reaches every pixel where its alpha is 1/255 or more; the original stops at the 16 x 16 tiles that three
  standard deviations touch.
- Gradients are the true ones: none where alpha is capped at 0.99 (the original passes it on), and the limited x/z of
  the Jacobian still depends on depth.
- Rotations are normalised. The original takes them as they are, and its callers normalise; then the pictures are the
  same, and so is what reaches the callers' parameters, though `rotations.grad` lacks the part along the quaternion.
- An off-centre principal point in `projmatrix` moves the limits of the Jacobian's x/z along.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cuda_ext._covariance import stand_ins
from cuda_ext.rasterize import Rasterization, rasterize

NAME = "diff_gaussian_rasterization"
NEAR = 0.2
"""Gaussians whose camera z is not greater are dropped."""
RETURNS = ("inria", "inria-2024", "ashawkey", "gaussian-talker")
"""What a rasterizer returns, by fork, after (color [3, H, W], radii [N]): nothing; inverse depth [1, H, W], the sum of
weight over z; depth and alpha [1, H, W] each (TalkingGaussian); depth without gradient (GaussianTalker)."""


class GaussianRasterizationSettings(NamedTuple):
    """A camera and how to draw; the matrices are transposed (they act on row vectors)."""

    image_height: int
    image_width: int
    tanfovx: float
    """Tangent of half the horizontal field of view."""
    tanfovy: float
    bg: Float[Tensor, " 3"] | Float[Tensor, "3 H W"]
    """What is behind everything: RGB, or a picture."""
    scale_modifier: float
    """Factor on `scales`; `cov3D_precomp` is taken as it is."""
    viewmatrix: Float[Tensor, "4 4"]
    """World to camera (x right, y down, z forward), transposed."""
    projmatrix: Float[Tensor, "4 4"]
    """World to clip coordinates, transposed."""
    sh_degree: int
    campos: Float[Tensor, " 3"]
    prefiltered: bool
    """Accepted; nothing is skipped for it."""
    debug: bool
    """Accepted; the operator checks its arguments always."""
    antialiasing: bool = False
    """Must be False."""


class GaussianRasterizer(nn.Module):
    """Renders one view per call, with the original's arguments."""

    returns: ClassVar[str] = "inria"
    """One of RETURNS; set it on the class, or give it to `install`."""

    def __init__(self, raster_settings: GaussianRasterizationSettings) -> None:
        """Keep the settings; callers may replace `raster_settings` later."""
        super().__init__()
        self.raster_settings = raster_settings

    @torch.no_grad()
    def markVisible(self, positions: Float[Tensor, "N 3"]) -> Bool[Tensor, " N"]:  # noqa: N802 -- the original's name
        """Say which points are in front of the near plane."""
        viewmatrix = self.raster_settings.viewmatrix.to(positions)
        return positions @ viewmatrix[:3, 2] + viewmatrix[3, 2] > NEAR

    def forward(
        self,
        means3D: Float[Tensor, "N 3"],
        means2D: Float[Tensor, "N 3"] | None,
        opacities: Float[Tensor, "N 1"] | Float[Tensor, " N"],
        shs: Float[Tensor, "N C 3"] | None = None,
        colors_precomp: Float[Tensor, "N 3"] | None = None,
        scales: Float[Tensor, "N 3"] | None = None,
        rotations: Float[Tensor, "N 4"] | None = None,
        cov3D_precomp: Float[Tensor, "N 6"] | None = None,
    ) -> tuple[Tensor, ...]:
        """Render Gaussians; gradients reach every tensor given here.

        Args:
            means3D: Centres in the world.
            means2D: Receives, in its first two columns, the gradient of the projected centres in NDC units, that is in
                px times (width/2, height/2). Its values do not matter.
            opacities: In [0, 1].
            shs: Spherical harmonics of the colours. Exactly one of `shs` and `colors_precomp`.
            colors_precomp: Colours as they are.
            scales: Standard deviations along the rotated axes. Either these and `rotations`, or `cov3D_precomp`.
            rotations: Quaternions (w, x, y, z); normalised here, unlike in the original.
            cov3D_precomp: Covariances in the world: xx, xy, xz, yy, yz, zz.

        Returns:
            Color [3, H, W], radii int32 [N], and what RETURNS says.

        Raises:
            ValueError: Arguments or settings that do not fit each other.
            NotImplementedError: `antialiasing` is asked for.
        """
        settings = self.raster_settings
        _check(settings, self.returns)
        if (scales is None) != (rotations is None) or (scales is None) == (cov3D_precomp is None):
            raise ValueError(f"{NAME}: give either scales and rotations, or cov3D_precomp.")
        viewmat, K = (matrix.to(means3D) for matrix in camera(settings))
        if shs is not None:
            _check_eye(settings)
        size = (settings.image_width, settings.image_height)
        if cov3D_precomp is None:
            quats, scales = rotations, settings.scale_modifier * scales
        else:
            quats, scales = stand_ins(cov3D_precomp, means3D, viewmat, K, size, NEAR)
        background = settings.bg.to(means3D)
        view = rasterize(
            means3D, quats, scales, opacities.reshape(-1), viewmat, K, *size,
            sh=shs, colors=colors_precomp, sh_degree=None if shs is None else settings.sh_degree,
            features=_inverse_depth(means3D, viewmat) if self.returns == "inria-2024" else None,
            background=background if background.ndim == 1 else None,
            means2d=None if means2D is None else (means2D - means2D.detach())[:, :2], near=NEAR,
        )  # fmt: skip
        color = view.color if background.ndim == 1 else view.color + (1 - view.alpha) * background
        return color, view.radii, *self._more(view)

    def _more(self, view: Rasterization) -> tuple[Tensor, ...]:
        """Return what the fork returns beside colour and radii."""
        if self.returns == "inria-2024":
            return (view.features,)
        if self.returns == "ashawkey":
            return view.depth, view.alpha
        return (view.depth.detach(),) if self.returns == "gaussian-talker" else ()


def camera(settings: GaussianRasterizationSettings) -> tuple[Float[Tensor, "4 4"], Float[Tensor, "3 3"]]:
    """Read our camera out of theirs.

    Their pixel centres are at integers, ((ndc + 1) size - 1) / 2, ours half a pixel further; so fx = W / (2 tanfovx)
    and cx = (1 + p) W / 2, where p, the projection's third element of its first row, is 0 for a centred camera.

    Returns:
        World-to-camera and intrinsics in px, float64 on the CPU.

    Raises:
        ValueError: The matrices are not transposed, not rigid, or no pinhole camera of that field of view.
    """
    viewmat, full = (m.detach().to("cpu", torch.float64).T for m in (settings.viewmatrix, settings.projmatrix))
    eye, last = torch.eye(3, dtype=torch.float64), torch.tensor([0, 0, 0, 1], dtype=torch.float64)
    rotation = viewmat[:3, :3]
    if not (torch.allclose(rotation @ rotation.T, eye, atol=1e-3) and torch.allclose(viewmat[3], last, atol=1e-3)):
        raise ValueError(f"{NAME}: viewmatrix must be a rigid world-to-camera matrix, transposed; "
                         f"transposed back it is {viewmat.tolist()}.")  # fmt: skip
    projection = (full @ torch.linalg.inv(viewmat))[[0, 1, 3]]
    x, y = 1 / settings.tanfovx, 1 / settings.tanfovy
    p, q = projection[0, 2].item(), projection[1, 2].item()
    expected = torch.tensor([[x, 0, p, 0], [0, y, q, 0], [0, 0, 1, 0]], dtype=torch.float64)
    rounding = 1e-4 * max(x, y, 1) * (1 + viewmat[:3, 3].norm())
    if not torch.allclose(projection, expected, rtol=0, atol=float(rounding)):
        raise ValueError(
            f"{NAME}: projmatrix must be viewmatrix times the projection, transposed, of a pinhole with "
            f"1 / tanfov = {x:.6g}, {y:.6g} and w = z; its rows for x, y, w are {projection.tolist()}."
        )
    width, height = settings.image_width / 2, settings.image_height / 2
    K = [[x * width, 0, (1 + p) * width], [0, y * height, (1 + q) * height], [0, 0, 1]]
    return viewmat, torch.tensor(K, dtype=torch.float64)


def _check(settings: GaussianRasterizationSettings, returns: str) -> None:
    """Refuse settings that cannot be followed."""
    if returns not in RETURNS:
        raise ValueError(f"{NAME}: GaussianRasterizer.returns must be one of {RETURNS}, got {returns!r}.")
    if settings.antialiasing:
        raise NotImplementedError(f"{NAME}: antialiasing is not implemented; set antialiasing=False.")
    expected = ((3,), (3, settings.image_height, settings.image_width))
    if tuple(settings.bg.shape) not in expected:
        raise ValueError(f"{NAME}: bg must be [3] or {list(expected[1])}, got {list(settings.bg.shape)}.")


def _check_eye(settings: GaussianRasterizationSettings) -> None:
    """Refuse harmonics seen from another place than the camera's."""
    viewmatrix = settings.viewmatrix.detach()
    eye = -viewmatrix[:3, :3] @ viewmatrix[3, :3]
    if not torch.allclose(settings.campos.detach().to(eye), eye, rtol=1e-3, atol=1e-3):
        raise ValueError(
            f"{NAME}: campos must be the centre of viewmatrix, {eye.tolist()}, got {settings.campos.tolist()}."
        )


def _inverse_depth(means: Float[Tensor, "N 3"], viewmat: Float[Tensor, "4 4"]) -> Float[Tensor, "N 1"]:
    z = means @ viewmat[2, :3] + viewmat[2, 3]
    return (1 / torch.where(z.detach() > NEAR, z, torch.ones_like(z)))[:, None]


def install(returns: str = "inria", *, replace: bool = False) -> None:
    """Make `import diff_gaussian_rasterization` find this module, in this process; call it before that import.

    Args:
        returns: Whose results to return, one of RETURNS.
        replace: Also where the original is imported already. Names that were imported from it stay the original's.

    Raises:
        ValueError: `returns` is none of RETURNS.
        RuntimeError: The original is imported already.
    """
    if returns not in RETURNS:
        raise ValueError(f"{NAME}: returns must be one of {RETURNS}, got {returns!r}.")
    found = sys.modules.get(NAME)
    if found is not None and not isinstance(found, _Installed) and not replace:
        raise RuntimeError(f"{NAME} is imported already, from {getattr(found, '__file__', 'somewhere')}; "
                           "call install() before that, or install(replace=True).")  # fmt: skip
    sys.modules[NAME] = _Installed(returns)


class _Installed(ModuleType):
    """What stands in `sys.modules` for the original."""

    devices = ("cpu", "cuda")
    """Where it runs; the original has no such list and runs on CUDA only (see `cuda_ext.adapters`)."""

    def __init__(self, returns: str) -> None:
        super().__init__(NAME, __doc__)
        self.__spec__ = ModuleSpec(NAME, None)
        self.GaussianRasterizationSettings = GaussianRasterizationSettings
        self.GaussianRasterizer = type("GaussianRasterizer", (GaussianRasterizer,), {"returns": returns})
