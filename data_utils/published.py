"""Which parts of the front end are the field's published networks, and which are built in."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from typing import Any, Literal

from gaussian_head.errors import UserError

ParserChoice = Literal["auto", "builtin", "bisenet"]
LandmarksChoice = Literal["auto", "mesh", "task"]
ActionUnitChoice = Literal["auto", "builtin", "blendshapes", "openface"]
OPENFACE = "FeatureExtraction"
"""OpenFace's program."""
TeethChoice = Literal["auto", "builtin", "easyportrait", "easyportrait-mmseg"]


def choose(choice: str, published: str) -> str:
    """Return what a choice means here: `auto` is the published network where its weights are on disk, else `builtin`.

    Args:
        choice: `auto`, `builtin`, or the published network's name, or what else takes its weights.
        published: Key of `networks.weights.TABLE`.

    Raises:
        UserError: mmsegmentation is asked for and not installed.
        WeightsMissingError: The published network is asked for and its weights are not on disk.
    """
    if choice == "builtin":
        return choice
    from gaussian_head.networks.weights import WeightsMissingError, find_weights

    try:
        find_weights(published)
    except WeightsMissingError:
        if choice == "auto":
            return "builtin"
        raise
    if choice == "easyportrait-mmseg" and find_spec("mmseg") is None:
        raise UserError("--teeth easyportrait-mmseg needs mmsegmentation and mmcv; --teeth easyportrait does not.")
    return published if choice == "auto" else choice


def choose_landmarks(choice: LandmarksChoice) -> Literal["mesh", "task"]:
    """Return what a choice means here: `auto` is the task where its file is found, since it is nearer to the truth.

    Raises:
        WeightsMissingError: The task is asked for and its file is not found.
    """
    if choice == "mesh":
        return choice
    from gaussian_head.networks.weights import TABLE, WeightsMissingError, find_weights, search_folders

    try:
        find_weights("face_landmarker")
    except WeightsMissingError as error:
        if choice == "auto":
            return "mesh"
        weights, places = TABLE["face_landmarker"], search_folders()
        raise WeightsMissingError(
            f"--landmarks task: {error}; looked for as ${weights.variable} and {weights.file} in "
            f"{', '.join(map(str, places))}; fetch it: bash scripts/prepare.sh {weights.name}, or leave out "
            "--landmarks."
        ) from error
    return "task"


def choose_action_units(choice: ActionUnitChoice, landmarks: str) -> str:
    """Return what a choice means here: `auto` is OpenFace where its program is on the PATH, else `builtin`.

    Args:
        choice: What was asked for.
        landmarks: Who finds the face; only the task has blendshapes.

    Raises:
        UserError: OpenFace is asked for and its program is not on the PATH, or blendshapes and the task is not used.
    """
    there = shutil.which(OPENFACE) is not None
    if choice == "openface" and not there:
        raise UserError(f"{OPENFACE} is not on the PATH; add OpenFace's folder to it, or put its CSV in as au.csv.")
    if choice == "blendshapes" and landmarks != "task":
        raise UserError("--action-units blendshapes needs --landmarks task, whose network gives them.")
    if choice == "auto":
        return "openface" if there else "builtin"
    return choice


def weights_facts(name: str) -> dict[str, Any]:
    """Return what a manifest says of the weights that a stage has used."""
    from gaussian_head.networks.weights import find_weights, sha256_of

    path = find_weights(name)
    return {"weights": path.name, "weights_sha256": sha256_of(path)}
