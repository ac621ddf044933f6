"""Face-vid2vid's networks and its renderer against what SadTalker gave (specs/one_shot.md 3.6, 4)."""

from __future__ import annotations

from typing import Any

import numpy as np
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
from gaussian_head.oneshot.face_renderer.vid2vid import Vid2VidRenderer, pose_path
from gaussian_head.oneshot.face_renderer.windows import contiguous_rows, semantic_windows, still_window


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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [70, 73])
def test_renderer_agrees(case_folder: Any, numbers: int) -> None:
    case = Case(case_folder(f"sadtalker_animate{numbers}"))
    networks = {"kp_extractor": KeypointDetector(), "generator": Generator(), "mapping": MappingNet(numbers)}
    case.filled(torch.nn.ModuleDict(networks))
    renderer = Vid2VidRenderer(*networks.values(), 256)
    assert renderer.needs_crop == (numbers == 73)
    first, motion = case.given("source_semantics")[0], case.given("target_coeffs")
    windows = semantic_windows(motion)
    look = renderer.look_at(case.tensor("image"), first)
    frames = torch.cat([renderer.draw(look, windows[i : i + 1]) for i in (0, 3)])
    case.judge({"frames": frames[None], "source_window": still_window(first)[None], "target_windows": windows[None]})


def test_camera_path_agrees(case_folder: Any) -> None:
    case = Case(case_folder("sadtalker_facerender_data"))
    rows = contiguous_rows(len(case.given("gen")), 2)
    yaw, pitch = (pose_path(keys, int(rows.max()) + 1, restart_at_keys=True) for keys in ((-20, 30, 10), (5,)))
    case.judge({"yaw_seq": np.float32(yaw[rows]), "pitch_seq": np.float32(pitch[rows])}, every=False)
