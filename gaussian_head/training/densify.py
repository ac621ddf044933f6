"""Adding Gaussians where the picture asks for more, removing those that show nothing (specs/gaussian_head.md d)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gaussian_head.geometry.rotations import matrix_from_quat
from gaussian_head.model.gaussians import Gaussians

SPLIT_SHRINK = 1.6
"""A split Gaussian's halves are this much smaller."""
EXTENT_M = 0.3
"""The scene's size, a constant: the reference derives it from how much the subject happens to move."""


@dataclass(frozen=True)
class DensifyConfig:
    """When Gaussians are cloned, split and pruned. Shares are of the stage's steps."""

    start_share: float = 0.05
    """Share of the run before the first change."""
    stop_share: float = 0.7
    """Share of the run after which the set is fixed."""
    every: int = 100
    """Steps between changes."""
    gradient_threshold: float = 5e-4
    """Mean screen-space gradient (NDC units) above which a Gaussian is cloned or split."""
    split_scale: float = 0.005
    """Gaussians larger than this share of the extent are split, smaller ones cloned."""
    min_opacity: float = 0.05
    """Gaussians fainter than this are removed; the bar rises by `opacity_rise` until `stop_share`."""
    opacity_rise: float = 0.05
    """How much the opacity bar rises."""
    max_scale: float = 0.1
    """Gaussians larger than this share of the extent are removed."""
    max_gaussians: int = 16_000
    """No Gaussians are added beyond this number."""

    def __post_init__(self) -> None:
        """Check that the window is one."""
        if not 0 <= self.start_share < self.stop_share <= 1:
            raise ValueError(
                f"densify.start_share must come before densify.stop_share, both in [0, 1], "
                f"got {self.start_share} and {self.stop_share}."
            )


class Densifier:
    """Watches one set of Gaussians and changes it, together with its optimizer's state."""

    def __init__(self, config: DensifyConfig, gaussians: Gaussians, steps: int) -> None:
        """Start with empty statistics."""
        self.config = config
        self.gaussians = gaussians
        self._steps = steps
        self._reset()

    def _reset(self) -> None:
        self.gradient_sum = self.gaussians.means.new_zeros(len(self.gaussians))
        self.views = self.gaussians.means.new_zeros(len(self.gaussians))

    @torch.no_grad()
    def observe(self, means2d_gradient: Float[Tensor, "N 2"], radii: Int[Tensor, " N"]) -> None:
        """Add one view's screen-space gradients (NDC units); Gaussians out of view do not count."""
        seen = radii > 0
        self.gradient_sum += means2d_gradient.norm(dim=1) * seen
        self.views += seen

    def due(self, step: int) -> bool:
        """Say whether the set changes after `step` steps."""
        config = self.config
        window = config.start_share * self._steps <= step < config.stop_share * self._steps
        return window and step % config.every == 0

    @torch.no_grad()
    def update(self, step: int, optimizer: torch.optim.Optimizer, prefix: str, seed: int) -> None:
        """Clone, split and prune.

        Args:
            step: Steps finished.
            optimizer: Its parameters named `prefix + parameter name` are edited along.
            prefix: Such as `face.gaussians.`.
            seed: Seed of the split's offsets; draws depend on (seed, step) alone.
        """
        config, g = self.config, self.gaussians
        score = self.gradient_sum / self.views.clamp_min(1)
        keep = self._alive(step)
        grow = keep & (score > config.gradient_threshold)
        room = max(config.max_gaussians - int(keep.sum()), 0)
        if int(grow.sum()) > room:  # the neediest first
            order = torch.argsort(torch.where(grow, score, score.new_tensor(-1.0)), descending=True, stable=True)
            grow = torch.zeros_like(grow).index_fill(0, order[:room], True)
        large = g.scales.max(1).values > config.split_scale * EXTENT_M
        clone, split = (grow & ~large).nonzero()[:, 0], (grow & large).nonzero()[:, 0]
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        rows = {name: getattr(g, name)[torch.cat([clone, split, split])].clone() for name in g.NAMES}
        first = len(clone)
        halves = torch.cat([split, split])
        noise = torch.randn(len(halves), 3, generator=generator).to(g.means)
        rows["means"][first:] += _rotate(g.quats[halves], noise * g.scales[halves])
        rows["log_scales"][first:] -= torch.log(torch.tensor(SPLIT_SHRINK))
        keep[split] = False
        edit_rows(g, optimizer, prefix, keep, rows)
        self._reset()

    def _alive(self, step: int) -> Bool[Tensor, " N"]:
        config, g = self.config, self.gaussians
        bar = config.min_opacity + config.opacity_rise * min(step / (config.stop_share * self._steps), 1)
        return (g.opacities > bar) & (g.scales.max(1).values < config.max_scale * EXTENT_M)


def edit_rows(
    gaussians: Gaussians,
    optimizer: torch.optim.Optimizer,
    prefix: str,
    keep: Bool[Tensor, " N"],
    rows: dict[str, Tensor],
) -> None:
    """Keep some Gaussians and append new ones, in the parameters and in the optimizer's moments (new rows: zero)."""
    places = {name: (group, i) for group in optimizer.param_groups for i, name in enumerate(group["param_names"])}
    for name in gaussians.NAMES:
        old = getattr(gaussians, name)
        new = torch.nn.Parameter(torch.cat([old.detach()[keep], rows[name]]), requires_grad=old.requires_grad)
        setattr(gaussians, name, new)
        if prefix + name not in places:
            continue
        group, i = places[prefix + name]
        state = optimizer.state.pop(group["params"][i], {})
        for moment in ("exp_avg", "exp_avg_sq"):
            if moment in state:
                state[moment] = torch.cat([state[moment][keep], torch.zeros_like(rows[name])])
        group["params"][i] = new
        if state:
            optimizer.state[new] = state


def _rotate(quats: Float[Tensor, "N 4"], vectors: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    return (matrix_from_quat(quats) @ vectors[:, :, None])[..., 0]
