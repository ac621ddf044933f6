"""Face-vid2vid's networks and its renderer against what SadTalker gave (specs/one_shot.md 3.6, 4)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recorded import Case

from gaussian_head.networks.vid2vid_blocks import PUBLISHED
from gaussian_head.networks.vid2vid_generator import DenseMotion, Generator
from gaussian_head.networks.vid2vid_head_pose import HeadPoseEstimator
from gaussian_head.networks.vid2vid_keypoints import KeypointDetector
from gaussian_head.networks.vid2vid_motion import (
    FreeView,
    HeadMotion,
    MappingNet,
    degrees,
    move_points,
    rotation_matrices,
)


def named(motion: HeadMotion) -> dict[str, torch.Tensor]:
    yaw, pitch, roll, translation, deformation = motion
    return {"yaw": yaw, "pitch": pitch, "roll": roll, "t": translation, "exp": deformation.flatten(1)}


@pytest.mark.parametrize("numbers", [70, 73])
@torch.inference_mode()
def test_mapping_agrees(case_folder: Any, numbers: int) -> None:
    case = Case(case_folder(f"sadtalker_mapping{numbers}"))
    case.judge(named(case.filled(MappingNet(numbers))(case.tensor("coef"))))


@torch.inference_mode()
def test_head_pose_estimator_agrees(case_folder: Any) -> None:
    case = Case(case_folder("sadtalker_he_estimator"))
    case.judge(named(case.filled(HeadPoseEstimator())(case.tensor("image"))))


@torch.inference_mode()
def test_keypoint_detector_agrees(case_folder: Any) -> None:
    case = Case(case_folder("sadtalker_kp_detector"))
    case.judge({"kp": case.filled(KeypointDetector())(case.tensor("image"))})


def test_moved_keypoints_agree(case_folder: Any) -> None:
    case = Case(case_folder("sadtalker_kp_transform"))
    canonical = case.tensor("kp")
    scores = (case.tensor(name) for name in ("yaw", "pitch", "roll"))
    motion = HeadMotion(*scores, case.tensor("t"), case.tensor("exp").unflatten(1, (-1, 3)))
    yaw, pitch, roll = case.tensor("deg").unbind(1)
    before = motion.translation.clone()
    case.judge(
        {
            "kp": move_points(canonical, motion),
            "kp_wo_exp": move_points(canonical, motion, deform=False),
            "kp_free_view": move_points(canonical, motion, FreeView(yaw, pitch, roll)),
            "yaw_degree": degrees(motion.yaw),
            "rot": rotation_matrices(yaw, pitch, roll),
        }
    )
    assert torch.equal(motion.translation, before)  # the reference overwrites it


@torch.inference_mode()
def test_dense_motion_agrees(case_folder: Any) -> None:
    case = Case(case_folder("sadtalker_dense_motion"))
    network = case.filled(DenseMotion(PUBLISHED))
    thin = network.squeeze(case.tensor("feature"))
    shares, flow, seen = network(thin, case.tensor("kp_source"), case.tensor("kp_driving"))
    few = (shares < 1e-3).double().mean()[None]
    case.judge({"mask": shares, "deformation": flow, "occlusion_map": seen, "fraction_mask_below_1e3": few})


@torch.inference_mode()
def test_generator_agrees(case_folder: Any) -> None:
    case = Case(case_folder("sadtalker_generator"))
    network = case.filled(Generator())
    source = network.encode(case.tensor("image"))
    found = network.decode(source, case.tensor("kp_source"), case.tensor("kp_driving"))
    case.judge(
        {
            "prediction": found.pictures,
            "occlusion_map": found.seen,
            "mask": found.shares,
            "deformation": found.flow,
            "feature_3d": source.volume,
        }
    )
