"""BiSeNet, EasyPortrait's FPN and the coefficient regressor against what the references gave (specs/one_shot.md)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recorded import Case
from torch.nn.functional import interpolate

from gaussian_head.networks.bisenet import BiSeNet
from gaussian_head.networks.coefficient_regressor import CoefficientRegressor
from gaussian_head.networks.easyportrait_fpn import CLASSES, EasyPortraitFpn


@torch.inference_mode()
def test_bisenet_agrees(case_folder: Any) -> None:
    case = Case(case_folder("bisenet_face_parsing"))
    network, pictures = case.filled(BiSeNet()), case.tensor("image")
    out, out16, out32 = network(pictures)
    assert torch.equal(network.answer(pictures), out)
    case.judge({"out": out, "out16": out16, "out32": out32, "parsing": out.argmax(1).to(torch.uint8)})


@torch.inference_mode()
def test_coefficient_regressor_agrees(case_folder: Any) -> None:
    case = Case(case_folder("deep3d_recon_resnet50"))
    network, faces = case.filled(CoefficientRegressor()), case.tensor("image")
    case.judge({"coeffs": network(faces), "backbone": network.features(faces)})


@pytest.mark.parametrize(("edition", "classes"), [("fp", 8), ("ps", 2), ("9cls", 9)])
@torch.inference_mode()
def test_easyportrait_agrees(case_folder: Any, edition: str, classes: int) -> None:
    assert len(CLASSES[classes]) == classes
    case = Case(case_folder(f"easyportrait_fpn_r50_{edition}"))
    network, pictures = case.filled(EasyPortraitFpn(classes)), case.tensor("image")
    deepest = network.neck(network.backbone(pictures))[-1]
    quarter = network(pictures)
    logits = interpolate(quarter, pictures.shape[2:], mode="bilinear", align_corners=False)
    label = logits.argmax(1).to(torch.uint8)
    case.judge({"logits_quarter": quarter, "logits": logits, "label": label, "fpn3": deepest})
