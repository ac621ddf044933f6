"""The house stands: imports point down, importing has no side effects, every option is read."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("cuda_ext", "gaussian_head", "data_utils")

LEVELS = (
    {"cuda_ext"},
    {"gaussian_head.errors", "gaussian_head.progress"},
    {"gaussian_head.device", "gaussian_head.checkpoints"},
    {"gaussian_head.config"},
    {"gaussian_head.geometry", "gaussian_head.media", "gaussian_head.talking_head"},
    {"gaussian_head.model", "gaussian_head.data", "gaussian_head.networks"},
    {"gaussian_head.driving"},
    {"gaussian_head.render"},
    {"gaussian_head.training", "gaussian_head.oneshot", "gaussian_head.evaluation"},
    {
        "gaussian_head.train",
        "gaussian_head.synthesize",
        "gaussian_head.stream",
        "gaussian_head.evaluate",
        "gaussian_head.benchmark",
        "gaussian_head.export",
        "gaussian_head.prepare",
        "gaussian_head.convert_weights",
        "gaussian_head.pretrain_landmarks",
    },
)
"""From the ground up: each may import itself and what lies on lower levels; neighbours do not see each other."""

FRONT_END_MAY_USE = {
    "data_utils",
    "gaussian_head.errors",
    "gaussian_head.geometry",
    "gaussian_head.media",
    "gaussian_head.networks",
    "gaussian_head.data.layout",
    "gaussian_head.data.transforms",
    "cuda_ext.mesh",
}
ONE_SHOT_MAY_NOT_USE = ("gaussian_head.model", "gaussian_head.render", "gaussian_head.training")


def source_files() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> set[str]:
    """Names of the project's modules that the file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {
                name if is_module(name := f"{node.module}.{alias.name}") else node.module or "" for alias in node.names
            }
    return {name for name in names if name.split(".")[0] in PACKAGES}


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def within(name: str, packages: object) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    module = module_name(path)
    if within(module, ["data_utils"]):
        allowed = FRONT_END_MAY_USE
    elif module == "gaussian_head":
        allowed = set()
    else:
        level = next((i for i, packages in enumerate(LEVELS) if within(module, packages)), None)
        assert level is not None, f"{path.relative_to(ROOT)} has no level; give it one in LEVELS"
        own = {package for package in LEVELS[level] if within(module, [package])}
        allowed = own.union(*LEVELS[:level])
    for name in imported(path):
        assert within(name, allowed), f"{path.relative_to(ROOT)} may not import {name}"
        if within(module, ["gaussian_head.oneshot"]):
            assert not within(name, ONE_SHOT_MAY_NOT_USE), f"{path.relative_to(ROOT)} may not import {name}"


IMPORT_EVERYTHING = """
import importlib, json, os, sys
import cv2, torch  # cv2 sets variables of its own
before = (torch.random.get_rng_state().sum().item(), torch.get_num_threads(), dict(os.environ), list(sys.path))
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
after = (torch.random.get_rng_state().sum().item(), torch.get_num_threads(), dict(os.environ), list(sys.path))
assert before == after, "an import seeded, changed the environment or the number of threads"
assert not torch.cuda.is_initialized(), "an import initialised CUDA"
print(json.dumps(sorted(sys.modules)))
"""


def test_importing_has_no_side_effects() -> None:
    modules = [module_name(path) for path in source_files()]
    command = [sys.executable, "-c", IMPORT_EVERYTHING, json.dumps(modules)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    optional = {"mediapipe", "transformers", "jax", "matplotlib", "pytest", "beartype"}
    assert not optional & set(json.loads(result.stdout.splitlines()[-1]))


def test_only_media_opens_pictures_and_video() -> None:
    opening = {"imread", "imwrite", "imdecode", "imencode", "VideoCapture", "VideoWriter"}
    for path in source_files():
        if within(module_name(path), ["gaussian_head.media"]):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert "av" not in {alias.name for alias in node.names}, path
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "cv2":
                assert node.attr not in opening, f"{path.relative_to(ROOT)}:{node.lineno}: use gaussian_head.media"


def test_subject_file_names_are_spelled_once() -> None:
    names = ("ori_imgs", "gt_imgs", "torso_imgs", "teeth_mask", "track_params", "transforms_", "landmarks478", "bc.jpg")
    for path in source_files():
        if path.name == "layout.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
                written = [name for name in names if node.value.startswith(name)]
                assert not written, f"{path.relative_to(ROOT)}:{node.lineno} spells {written[0]}; use SubjectLayout"
