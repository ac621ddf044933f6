"""`cuda_ext.rasterize` against float64 recordings of a brute-force renderer (mode `exact`), values and gradients."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cuda_ext import Rasterization, _cuda, rasterize
from cuda_ext._library import is_built, is_cuda_built

CUDA_SCHEMES = ("8 pixels", "16 pixels", "8 lanes", "16 lanes")
"""Tiles' side, and what a thread of backward takes."""
ALL = pytest.mark.parametrize(
    "implementation",
    [
        "reference",
        pytest.param("cpu", marks=pytest.mark.skipif(not is_built(), reason="operators not compiled")),
        *(f"cuda {scheme} emulated" for scheme in CUDA_SCHEMES),
        *(
            pytest.param(
                f"cuda {scheme}",
                marks=[pytest.mark.cuda, pytest.mark.skipif(not is_cuda_built(), reason="CUDA operators not compiled")],
            )
            for scheme in CUDA_SCHEMES
        ),
    ],
    indirect=True,
)
INPUTS = {"means": "means", "quats": "quats", "scales": "scales", "opacities": "opacities", "sh": "shs"}
"""Our argument -> the recording's array."""


@pytest.fixture
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of the implementation; sets CUDA's scheme, and up the emulator where it is to run."""
    name, *scheme = request.param.split()
    if name == "cuda":
        monkeypatch.setattr(_cuda, "TILE_PX", int(scheme[0]))
        monkeypatch.setattr(_cuda, "LANES", scheme[1] == "lanes")
    if "emulated" in scheme:
        request.getfixturevalue("emulated_cuda")
        return "emulated"
    return name


def tolerances(case: Path) -> tuple[dict[str, float], float]:
    """Read the largest error allowed in each picture, and the relative L2 error allowed in gradients."""
    limits = json.loads((case.parent / "manifest.json").read_text())["tolerances"]
    if "needles" in case.stem:
        limits = limits["needles"]
        return dict.fromkeys(("color", "alpha", "depth"), limits["color,alpha,depth"]["max_abs"]), limits["grad_*"][
            "rel_l2"
        ]
    color = limits["color,alpha"]["max_abs"]
    return {"color": color, "alpha": color, "depth": limits["depth"]["max_abs"]}, limits["grad_*"]["rel_l2"]


def mixed(bits: np.ndarray) -> np.ndarray:
    """Hash 32-bit integers."""
    bits = (bits ^ (bits >> 16)) * 0x7FEB352D % 2**32
    bits = (bits ^ (bits >> 15)) * 0x846CA68B % 2**32
    return bits ^ (bits >> 16)


def loss_weights(height: int, width: int, seed: int) -> torch.Tensor:
    """Return the recordings' pseudo-random weights in [-1, 1) of red, green, blue, depth and alpha, [5, H, W]."""
    index = np.arange(5 * height * width, dtype=np.uint64) + np.uint64(5 * seed * height * width)
    weights = mixed(index % 2**32).astype(np.float64) / 2**31 - 1
    return torch.from_numpy(weights.reshape(5, height, width))


def render(case: dict[str, np.ndarray], implementation: str) -> tuple[dict[str, torch.Tensor], Rasterization]:
    """Render a recording's inputs; returns the leaves and the view."""
    dtype = torch.float64 if implementation == "reference" else torch.float32
    like = {"dtype": dtype, "device": "cuda" if implementation == "cuda" else "cpu"}
    leaves = {ours: torch.tensor(case[theirs], **like).requires_grad_() for ours, theirs in INPUTS.items()}
    leaves["means2d"] = torch.zeros(len(case["means"]), 4, **like, requires_grad=True)
    view = rasterize(
        **leaves,
        viewmat=torch.tensor(case["viewmat"]),
        K=torch.tensor(case["K"]),
        width=int(case["width"]),
        height=int(case["height"]),
        sh_degree=int(case["sh_degree"]),
        background=torch.tensor(case["bg"], **like),
        implementation="cuda" if implementation == "emulated" else implementation,
    )
    return leaves, view


@ALL
def test_pictures_agree(rasterizer_case: Path, implementation: str) -> None:
    case = dict(np.load(rasterizer_case))
    limits, _ = tolerances(rasterizer_case)
    _, view = render(case, implementation)
    pictures = {"color": view.color.permute(1, 2, 0), "alpha": view.alpha[0], "depth": view.depth[0]}
    for name, picture in pictures.items():
        assert np.abs(picture.detach().cpu().numpy() - case[name]).max() <= limits[name], name
    assert np.array_equal(view.n_contrib.cpu().numpy(), case["n_contrib"])
    assert np.array_equal(view.radii.cpu().numpy(), case["radii"])


@pytest.mark.parametrize("loss", ["all", "color"])
@ALL
def test_gradients_agree(rasterizer_case: Path, implementation: str, loss: str) -> None:
    case = dict(np.load(rasterizer_case))
    _, limit = tolerances(rasterizer_case)
    leaves, view = render(case, implementation)
    weights = loss_weights(int(case["height"]), int(case["width"]), int(case["loss_seed"])).to(view.color)
    total = (view.color * weights[:3]).sum()
    if loss == "all":
        total = total + (view.depth * weights[3]).sum() + (view.alpha * weights[4]).sum()
    total.backward()
    half = np.array([case["width"], case["height"], case["width"], case["height"]]) / 2
    centres = leaves.pop("means2d").grad.cpu().numpy() / half
    found = {INPUTS[name]: leaf.grad.cpu().numpy() for name, leaf in leaves.items()}
    found |= {"means2d": centres[:, :2], "means2d_abs": centres[:, 2:]}
    for name, gradient in found.items():
        # The colour loss alone gives the same gradient on the harmonics, so it is recorded once.
        expected = case["grad_all_shs" if name == "shs" else f"grad_{loss}_{name}"]
        assert np.linalg.norm(gradient - expected) <= limit * np.linalg.norm(expected), name
