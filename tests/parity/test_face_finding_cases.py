"""RetinaFace, FAN and SadTalker's crop against what the references gave (specs/one_shot.md 1)."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import numpy as np
import torch
from recorded import Case

from gaussian_head.networks.fan import POINTS, Fan, coordinates, on_contours, points_of
from gaussian_head.networks.retinaface import RetinaFace, decode_points, places_of
from gaussian_head.networks.s3fd import decode
from gaussian_head.oneshot.source.crop import choose_box, reference_crop


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


def test_crop_agrees(case_folder: Any) -> None:
    case = Case(case_folder("sadtalker_align_face"))
    rows = []
    for (width, height), landmarks in zip(case.given("sizes"), case.given("lm"), strict=True):
        found = reference_crop(landmarks, int(width), int(height))
        outer, inner = found.outer, found.inner
        corners = [outer.left, outer.top, outer.right, outer.bottom]
        row = [found.width, found.height, *corners, *found.limits, inner.top, inner.bottom, inner.left, inner.right]
        rows.append(row)
    case.judge({"result": np.array(rows, np.float64)})


def test_our_crop_is_the_references_where_that_is_right(case_folder: Any) -> None:
    case = Case(case_folder("sadtalker_align_face"))
    width, height = case.given("sizes")[0].tolist()
    landmarks = case.given("lm")[0]  # of four, the face neither shrunk nor cut off
    inner, box = reference_crop(landmarks, width, height).inner, choose_box(landmarks + 0.5, width, height, "crop")
    assert np.abs(np.subtract(astuple(box), astuple(inner))).max() <= 1
