"""RetinaFace, FAN and SadTalker's crop against what the references gave (specs/one_shot.md 1)."""

from __future__ import annotations

from typing import Any

import torch
from recorded import Case

from gaussian_head.networks.fan import POINTS, Fan, coordinates, on_contours, points_of
from gaussian_head.networks.retinaface import RetinaFace, decode_points, places_of
from gaussian_head.networks.s3fd import decode


@torch.inference_mode()
def test_retinaface_agrees(case_folder: Any) -> None:
    case = Case(case_folder("retinaface_resnet50"))
    network, pictures = case.filled(RetinaFace()), case.tensor("image")
    offsets, scores, shifts = network(pictures)
    places = places_of(*pictures.shape[2:])
    case.judge({
        "loc": offsets, "conf": scores, "landms": shifts, "priors": places,
        "boxes": decode(offsets[0].numpy(), places), "points": decode_points(shifts[0].numpy(), places),
    })  # fmt: skip


@torch.inference_mode()
def test_fan_agrees(case_folder: Any) -> None:
    case = Case(case_folder("fan_awing_98"))
    network = case.filled(Fan())
    answers = network(case.tensor("image"))
    places = coordinates(answers[0])[:, :2]
    case.judge({
        "heatmap": answers[-1], "heatmap0": answers[0], "boundary": on_contours(places, answers[-2][:, -1:]),
        "points": points_of(answers[-1][:, :POINTS].numpy(), reference=True),
    })  # fmt: skip
