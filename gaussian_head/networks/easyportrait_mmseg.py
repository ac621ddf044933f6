"""EasyPortrait's network as mmsegmentation itself builds it, where mmcv and mmsegmentation are installed.

The same weights and answers as `easyportrait_fpn`, which needs neither; for those who compare with the original.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from gaussian_head.errors import UserError

_NORM = {"type": "BN", "requires_grad": True}


class MmsegFpn(nn.Module):
    """Standardised RGB -> scores of the classes, at a quarter of the size; `EasyPortraitFpn`'s names and shapes."""

    def __init__(self, classes: int = 8) -> None:
        """Build it.

        Raises:
            UserError: mmsegmentation is no 1.x, or finds no mmcv that fits.
        """
        super().__init__()
        try:
            import mmseg.models  # noqa: F401 -- enters the parts in the registry
            from mmseg.registry import MODELS
        except (ImportError, AssertionError) as error:  # it asserts mmcv's version
            raise UserError(
                f"mmsegmentation 1.x with its mmcv cannot be loaded ({error}); --teeth easyportrait has the same one "
                "without them."
            ) from error
        network = MODELS.build(_config(classes))
        self.backbone, self.neck, self.decode_head = network.backbone, network.neck, network.decode_head

    def forward(self, pictures: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C _ _"]:
        """Score; sides of the pictures should be multiples of 32."""
        return self.decode_head(self.neck(self.backbone(pictures)))


def _config(classes: int) -> dict:
    """Return what mmsegmentation builds the network from (specs/one_shot.md 10, gaussian_head.md b.10)."""
    backbone = {
        "type": "ResNetV1c", "depth": 50, "num_stages": 4, "out_indices": (0, 1, 2, 3), "dilations": (1, 1, 1, 1),
        "strides": (1, 2, 2, 2), "norm_cfg": _NORM, "norm_eval": False, "style": "pytorch", "contract_dilation": True,
    }  # fmt: skip
    neck = {"type": "FPN", "in_channels": [256, 512, 1024, 2048], "out_channels": 256, "num_outs": 4}
    head = {
        "type": "FPNHead", "in_channels": [256] * 4, "in_index": [0, 1, 2, 3], "feature_strides": [4, 8, 16, 32],
        "channels": 128, "dropout_ratio": 0.1, "num_classes": classes, "norm_cfg": _NORM, "align_corners": False,
        "loss_decode": {"type": "CrossEntropyLoss"},
    }  # fmt: skip
    return {
        "type": "EncoderDecoder", "backbone": backbone, "neck": neck, "decode_head": head, "train_cfg": {},
        "test_cfg": {"mode": "whole"},
    }  # fmt: skip
