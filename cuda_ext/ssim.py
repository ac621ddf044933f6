"""The photometric loss of splatting in one pass: mean absolute difference and structural similarity."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from cuda_ext import _reference
from cuda_ext._library import choose


def l1_ssim(
    prediction: Float[Tensor, "C H W"],
    target: Float[Tensor, "C H W"],
    mask: Float[Tensor, "1 H W"] | None = None,
    *,
    implementation: str = "auto",
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Measure how far a picture is from its target, by L1 and by SSIM (Wang et al. 2004).

    SSIM uses an 11-tap Gaussian window of 1.5 px, zeros outside the picture, C1 = 0.01^2 and C2 = 0.03^2, population
    variances, and averages over all pixels and channels.

    Args:
        prediction: Values in [0, 1]; receives the gradient.
        target: Values in [0, 1]; no gradient.
        mask: Weights >= 0 of the pixels; both means become weighted means. No gradient.
        implementation: `auto`, `cpu` or `cuda` (compiled), or `reference` (plain PyTorch).

    Returns:
        Mean |prediction - target|, and mean SSIM (1 for equal pictures).

    Raises:
        ValueError: Shapes or types that do not fit.
    """
    if prediction.ndim != 3 or prediction.shape != target.shape:
        raise ValueError(
            "l1_ssim: prediction and target must both be [C, H, W], "
            f"got {list(prediction.shape)} and {list(target.shape)}."
        )
    if mask is not None and mask.shape != (1, *prediction.shape[1:]):
        raise ValueError(f"l1_ssim: mask must be {[1, *prediction.shape[1:]]}, got {list(mask.shape)}.")
    if target.dtype != prediction.dtype or target.device != prediction.device:
        raise ValueError(
            f"l1_ssim: prediction is {prediction.dtype} on {prediction.device}, "
            f"target {target.dtype} on {target.device}; convert one of them."
        )
    mask = None if mask is None else mask.detach().to(prediction.dtype)
    chosen = choose(implementation, prediction, "l1_ssim")
    if chosen == "cpu":
        from cuda_ext._cpu import FusedL1Ssim

        return FusedL1Ssim.apply(prediction, target.detach(), mask)
    if chosen == "cuda":
        from cuda_ext._cuda import FusedL1SsimCuda

        return FusedL1SsimCuda.apply(prediction, target.detach(), mask)
    return _reference.l1_ssim(prediction, target.detach(), mask)
