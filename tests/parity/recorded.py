"""One recorded case: a manifest.json, a case.npz, and the pseudo-weights of `fill.py` (specs: parity/INDEX_*.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from fill import draw, draw_image, fill_
from numpy import ndarray
from torch import Tensor, nn

_DRAWN = re.compile(r"fill\.(draw|draw_image)\('.*?', \[.*?\], seed=\d+, lo=(\S+), hi=(\S+)\)$")


class Case:
    """What a reference was given and gave, and how near one must come."""

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
        assert numbers == sum(self.manifest["n_params"].values())
        return fill_(network.eval(), self.manifest["fill_seed"], gain=self.manifest["fill_gain"])

    def given(self, name: str) -> ndarray:
        """Return an input: stored, or drawn anew by the recipe `fill.draw(...)` or `fill.draw_image(...)`."""
        entry = next(entry for entry in self.manifest["inputs"] if entry["name"] == name)
        if entry["stored_in_npz"]:
            return self.arrays[f"in:{name}"]
        how, low, high = _DRAWN.match(entry["recipe"]).groups()
        drawn = {"draw": draw, "draw_image": draw_image}[how]
        return drawn(name, entry["shape"], self.manifest["input_seed"], lo=float(low), hi=float(high))

    def tensor(self, name: str) -> Tensor:
        """Return an input as a tensor."""
        return torch.from_numpy(self.given(name))

    def judge(self, found: Mapping[str, Tensor | ndarray], *, every: bool = True) -> None:
        """Compare outputs with the recorded ones.

        Args:
            found: Outputs by name.
            every: Whether all recorded outputs must be among them.
        """
        names = {output["name"] for output in self.manifest["outputs"]}
        assert set(found) == names if every else set(found) <= names
        for output in self.manifest["outputs"]:
            if output["name"] in found:
                self._compare(output, np.asarray(found[output["name"]]))

    def _compare(self, output: dict, whole: ndarray) -> None:
        name = output["name"]
        assert list(whole.shape) == output["shape"], name
        steps = tuple(slice(None, None, step) for step in output["stride"] or [1] * whole.ndim)
        seen, expected, limits = whole[steps], self.arrays[f"out:{name}"], self.manifest["tolerance"][name]
        if limits.get("exact"):
            assert np.array_equal(seen, expected), name
        elif "min_agreement" in limits:
            assert np.mean(seen == expected) >= limits["min_agreement"], name
        else:
            error = np.abs(seen.astype(np.float64) - expected)
            beyond = error > limits["atol"] + limits["rtol"] * np.abs(expected)
            assert np.mean(beyond) <= limits.get("max_outlier_fraction", 0), f"{name}: {error.max()}"
