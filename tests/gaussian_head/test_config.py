"""Configuration to JSON and back: exact, and strict about what it does not know."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

import pytest

from gaussian_head.config import from_json, to_json
from gaussian_head.errors import UserError
from gaussian_head.training.presets import PRESETS, FitConfig


@dataclass(frozen=True)
class Inner:
    sizes: tuple[int, ...] = (1, 2)
    weight: float = 0.1


@dataclass(frozen=True)
class Outer:
    name: str = "x"
    inner: Inner = field(default_factory=Inner)
    shape: tuple[int, int] | None = None


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_come_back_equal_through_text(preset):
    text = json.dumps(to_json(PRESETS[preset]))
    assert from_json(FitConfig, json.loads(text)) == PRESETS[preset]


@pytest.mark.parametrize("config", [Outer(), Outer("y", Inner((3,), 1 / 3), (4, 5))])
def test_nested_values_and_tuples_come_back(config):
    again = from_json(Outer, json.loads(json.dumps(to_json(config))))
    assert again == config
    assert isinstance(again.inner.sizes, tuple)


def test_what_is_left_out_is_the_default():
    assert from_json(Outer, {"inner": {"weight": 2.0}}) == replace(Outer(), inner=Inner(weight=2.0))


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"nme": "z"}, "Outer has no option nme.*name, inner, shape"),
        ({"inner": {"wieght": 1}}, "Inner.*wieght.*weight"),
    ],
)
def test_unknown_options_are_refused_with_the_valid_ones(document, told):
    with pytest.raises(UserError, match=told):
        from_json(Outer, document)


def test_presets_differ_in_every_part_a_gpu_allows():
    quick, full = PRESETS["quick"], PRESETS["full"]
    assert quick.face.densify.max_gaussians < full.face.densify.max_gaussians
    for stage in ("mouth", "face", "fuse"):
        assert getattr(quick, stage).steps < getattr(full, stage).steps
