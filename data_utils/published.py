"""Which parts of the front end are the field's published networks, and which are built in."""

from __future__ import annotations

from typing import Any, Literal

ParserChoice = Literal["auto", "builtin", "bisenet"]
LandmarksChoice = Literal["auto", "mesh", "task"]
TeethChoice = Literal["auto", "builtin", "easyportrait"]


def choose(choice: str, published: str) -> str:
    """Return what a choice means here: `auto` is the published network where its weights are on disk, else `builtin`.

    Args:
        choice: `auto`, `builtin`, or the published network's name.
        published: Key of `networks.weights.TABLE`.

    Raises:
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
    return published


def choose_landmarks(choice: LandmarksChoice) -> Literal["mesh", "task"]:
    """Return what a choice means here: `auto` is the mesh, which the task does not clearly beat (docs/formats.md).

    Raises:
        WeightsMissingError: The task is asked for and its file is not found.
    """
    if choice != "task":
        return "mesh"
    from gaussian_head.networks.weights import TABLE, WeightsMissingError, find_weights, search_folders

    try:
        find_weights("face_landmarker")
    except WeightsMissingError as error:
        weights, places = TABLE["face_landmarker"], search_folders()
        raise WeightsMissingError(
            f"--landmarks task: {error}; looked for as ${weights.variable} and {weights.file} in "
            f"{', '.join(map(str, places))}; get it: curl -L --create-dirs -o {places[0] / weights.file} "
            f"{weights.source}, or leave --landmarks out."
        ) from error
    return "task"


def weights_facts(name: str) -> dict[str, Any]:
    """Return what a manifest says of the weights that a stage has used."""
    from gaussian_head.networks.weights import find_weights, sha256_of

    path = find_weights(name)
    return {"weights": path.name, "weights_sha256": sha256_of(path)}
