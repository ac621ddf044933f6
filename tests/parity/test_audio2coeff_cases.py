"""SadTalker's and the challenge entry's audio2coeff against what the references gave (specs/one_shot.md 3, 7)."""

from __future__ import annotations

import random
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from recorded import Case

from gaussian_head.networks.challenge_expression import ChallengeExpression
from gaussian_head.networks.challenge_pose import ChallengePose
from gaussian_head.networks.sadtalker_expression import ExpressionNetwork
from gaussian_head.networks.sadtalker_pose import PoseNetwork
from gaussian_head.oneshot.audio2coeff.blinks import closed_eyes
from gaussian_head.oneshot.audio2coeff.head_motion import HeadMotion
from gaussian_head.oneshot.audio2coeff.references import repeated
from gaussian_head.oneshot.audio2coeff.streams import smoothed


class Recorded:
    """A sound whose windows are given."""

    def __init__(self, windows: np.ndarray) -> None:
        self.frames, self._windows = len(windows), windows

    def windows(self, first: int, last: int) -> np.ndarray:
        return self._windows[np.clip(np.arange(first, last), 0, self.frames - 1)]


@torch.inference_mode()
def test_expression_network_agrees(case_folder: Any) -> None:
    case = Case(case_folder("sadtalker_audio2exp"))
    network = case.filled(ExpressionNetwork())
    mels, reference, blink = case.tensor("mel")[0], case.tensor("ref")[0, :, :64], case.tensor("ratio")[0]
    every = torch.cat([network(mels[i : i + 10], reference[i : i + 10], blink[i : i + 10]) for i in range(0, 23, 10)])
    case.judge({
        "exp_first4": network(mels[:4], reference[:4], blink[:4])[None],
        "exp_all": every[None],
        "audio_feature": network.features(mels[:4]),
    })  # fmt: skip


@pytest.mark.parametrize("name", ["sadtalker_audio2pose", "sadtalker_audio2pose_short"])
@torch.inference_mode()
def test_pose_network_agrees(case_folder: Any, name: str) -> None:
    case = Case(case_folder(name))
    network = case.filled(PoseNetwork())
    first, style = case.tensor("ref")[:, 0, -6:], case.tensor("cls")
    motion, features, z = case.tensor("gt"), case.tensor("aemb"), case.tensor("z")
    mean, spread = network.encode(motion, first, style, features)
    heard = Recorded(case.given("mel")[0, :, 0])
    chunks = HeadMotion(network, heard, first[0].numpy(), int(style)).independent(iter(case.given("z")))
    pose = np.stack([first[0].numpy() + row for row in chunks])
    case.judge({
        "pose_pred": pose[None],
        "pose_savgol13": np.stack(list(smoothed(iter(pose), len(pose))))[None],
        "decoder_motion": network.decode(z[:1], first, style, features),
        "encoder_mu": mean,
        "encoder_logvar": spread,
        "disc": network.netD_motion(motion),
    })  # fmt: skip


def test_blinks_and_reference_video_agree(case_folder: Any) -> None:
    case = Case(case_folder("sadtalker_get_data"))
    seed = int(case.given("random_seed")[0])

    def blinks(frames: int, kind: str) -> np.ndarray:
        return np.array(list(closed_eyes(frames, kind, seed)))

    first, video = case.given("first_coeff")[:, :70], case.given("blink_coeff")[:, :64]
    looped = np.stack(list(islice(repeated(video, "wrap"), 66)))
    rest = np.concatenate([looped, np.repeat(first[:, 64:], 66, 0)], 1)
    before = random.getstate()
    case.judge(
        {
            "ratio_gt": blinks(66, "random")[None, :, None],
            "ratio_with_blink_video": blinks(66, "none")[None, :, None],
            "blink400": blinks(400, "random")[:, None],
            "blink_fixed": blinks(200, "regular")[:, None],
            "ref": np.repeat(first, 66, 0)[None, case_rows(case, "ref")],
            "ref_with_blink_video": rest[None, case_rows(case, "ref_with_blink_video")],
        },
        every=False,
    )  # the windows are judged in test_window_cases.py
    # fmt: skip
    assert random.getstate() == before  # Python's own generator is left alone


def case_rows(case: Case, name: str) -> slice:
    """Return which rows of 66 were recorded."""
    output = next(output for output in case.manifest["outputs"] if output["name"] == name)
    return slice(None, None, -(-66 // output["shape"][1]))


@torch.inference_mode()
def test_challenge_expression_agrees(case_folder: Any) -> None:
    case = Case(case_folder("vico2023_transformer3dmm"))
    network = case.filled(ChallengeExpression())
    mels, first = case.tensor("mel"), case.tensor("init")
    case.judge({"exp": network(mels, first), "exp_T37": network(mels[:, :37], first)})


@torch.inference_mode()
def test_challenge_pose_agrees(case_folder: Any) -> None:
    case = Case(case_folder("vico2023_lstm_pose"))
    network = case.filled(ChallengePose())
    case.judge({"head": network(case.tensor("init")[:, 0], case.tensor("driven"))})
