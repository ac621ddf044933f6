"""Which tracker runs: the built-in one, or that of the morphable model where its file is found."""

from __future__ import annotations

from typing import Literal

from gaussian_head.networks.weights import WeightsMissingError, find_weights

Tracker = Literal["auto", "canonical", "bfm"]


def choose_tracker(wanted: Tracker) -> Literal["canonical", "bfm"]:
    """Turn `auto` into the model's tracker where its file is found, else the built-in one.

    Raises:
        WeightsMissingError: `bfm` was asked for and its file is not found.
    """
    if wanted == "canonical":
        return "canonical"
    try:
        find_weights("bfm")
    except WeightsMissingError as error:
        if wanted == "bfm":
            raise WeightsMissingError(
                f"--tracker bfm {error}; make it by python -m data_utils.convert_bfm 01_MorphableModel.mat, "
                "or leave --tracker out."
            ) from error
        return "canonical"
    return "bfm"
