"""BiSeNet, EasyPortrait's FPN and the coefficient regressor against what the references gave (specs/one_shot.md)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fill import draw_image, fill_
from torch import Tensor, nn
from torch.nn.functional import interpolate

from gaussian_head.networks.bisenet import BiSeNet
from gaussian_head.networks.coefficient_regressor import CoefficientRegressor
from gaussian_head.networks.easyportrait_fpn import CLASSES, EasyPortraitFpn


class Case:
    """A recorded network: its manifest, its drawn input, and how its outputs are compared."""

    def __init__(self, folder: Path) -> None:
        self.manifest = json.loads((folder / "manifest.json").read_text())
        self.arrays = np.load(folder / "case.npz")

    def filled(self, network: nn.Module) -> nn.Module:
        """Check names, shapes and size of a network, and give it the case's pseudo-weights."""
        state = network.state_dict()
        assert {name: list(tensor.shape) for name, tensor in state.items()} == {
            name: shape for name, shape, _ in self.manifest["params"]
        }
        numbers = sum(tensor.numel() for tensor in state.values() if tensor.is_floating_point())
        assert numbers == self.manifest["n_params"][""]
        return fill_(network.eval(), self.manifest["fill_seed"], gain=self.manifest["fill_gain"])

    def pictures(self) -> Tensor:
        (given,) = self.manifest["inputs"]
        if given["stored_in_npz"]:
            return torch.from_numpy(self.arrays[f"in:{given['name']}"])
        low, high = re.search(r"lo=(\S+), hi=(\S+)\)", given["recipe"]).groups()
        seed = self.manifest["input_seed"]
        return torch.from_numpy(draw_image(given["name"], given["shape"], seed, lo=float(low), hi=float(high)))

    def judge(self, found: dict[str, Tensor]) -> None:
        """Compare every recorded output."""
        assert set(found) == {output["name"] for output in self.manifest["outputs"]}
        for output in self.manifest["outputs"]:
            name, whole = output["name"], found[output["name"]].numpy()
            assert list(whole.shape) == output["shape"], name
            steps = tuple(slice(None, None, step) for step in output["stride"] or [1] * whole.ndim)
            expected, limits = self.arrays[f"out:{name}"], self.manifest["tolerance"][name]
            if "min_agreement" in limits:
                assert np.mean(whole[steps] == expected) >= limits["min_agreement"], name
            else:
                error = np.abs(whole[steps] - expected)
                assert np.all(error <= limits["atol"] + limits["rtol"] * np.abs(expected)), f"{name}: {error.max()}"


@torch.inference_mode()
def test_bisenet_agrees(case_folder: Any) -> None:
    case = Case(case_folder("bisenet_face_parsing"))
    network, pictures = case.filled(BiSeNet()), case.pictures()
    out, out16, out32 = network(pictures)
    assert torch.equal(network.answer(pictures), out)
    case.judge({"out": out, "out16": out16, "out32": out32, "parsing": out.argmax(1).to(torch.uint8)})


@torch.inference_mode()
def test_coefficient_regressor_agrees(case_folder: Any) -> None:
    case = Case(case_folder("deep3d_recon_resnet50"))
    network, faces = case.filled(CoefficientRegressor()), case.pictures()
    case.judge({"coeffs": network(faces), "backbone": network.features(faces)})


@pytest.mark.parametrize(("edition", "classes"), [("fp", 8), ("ps", 2), ("9cls", 9)])
@torch.inference_mode()
def test_easyportrait_agrees(case_folder: Any, edition: str, classes: int) -> None:
    assert len(CLASSES[classes]) == classes
    case = Case(case_folder(f"easyportrait_fpn_r50_{edition}"))
    network, pictures = case.filled(EasyPortraitFpn(classes)), case.pictures()
    deepest = network.neck(network.backbone(pictures))[-1]
    quarter = network(pictures)
    logits = interpolate(quarter, pictures.shape[2:], mode="bilinear", align_corners=False)
    label = logits.argmax(1).to(torch.uint8)
    case.judge({"logits_quarter": quarter, "logits": logits, "label": label, "fpn3": deepest})
