"""Face-vid2vid as a face renderer, with small networks of random weights: what holds whatever the weights are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy import ndarray
from safetensors.torch import save_file
from torch import Tensor

from gaussian_head.errors import UserError
from gaussian_head.networks.vid2vid_blocks import SMALL
from gaussian_head.networks.vid2vid_generator import Generator
from gaussian_head.networks.vid2vid_head_pose import HeadPoseEstimator
from gaussian_head.networks.vid2vid_keypoints import KeypointDetector
from gaussian_head.networks.vid2vid_motion import MappingNet
from gaussian_head.networks.weights import WeightsMissingError, load_into
from gaussian_head.oneshot.face_renderer.renderer import FaceRenderer
from gaussian_head.oneshot.face_renderer.vid2vid import (
    Vid2VidOptions,
    Vid2VidRenderer,
    directed,
    load_vid2vid,
    pose_path,
    to_bytes,
)

SIDE = 64
RANDOM = np.random.default_rng(7)
PORTRAIT = RANDOM.integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
FIRST = RANDOM.normal(0, 0.3, 70).astype(np.float32)
MOTION = RANDOM.normal(0, 0.3, (7, 70)).astype(np.float32)


def lively(network: torch.nn.Module, gain: float) -> torch.nn.Module:
    """Make random weights so large that what goes in is seen in what comes out, and not so large that all is dark."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(gain)
    return network.eval()


@pytest.fixture(scope="module")
def networks() -> tuple[KeypointDetector, Generator, MappingNet]:
    torch.manual_seed(11)
    return lively(KeypointDetector(SMALL), 4), lively(Generator(SMALL), 1.5), MappingNet(70, SMALL)


def frames(networks: tuple, motion: ndarray = MOTION, moving: ndarray | None = None, **options: object) -> ndarray:
    renderer = Vid2VidRenderer(*networks, SIDE, Vid2VidOptions(**options))
    return np.stack(list(renderer.animate(PORTRAIT, FIRST, motion, moving)))


def test_it_is_a_face_renderer_of_either_width(networks: tuple) -> None:
    renderer = Vid2VidRenderer(*networks, SIDE)
    assert isinstance(renderer, FaceRenderer)
    assert not renderer.needs_crop
    assert Vid2VidRenderer(*networks[:2], MappingNet(73, SMALL), SIDE).needs_crop
    seen = frames(networks)
    assert seen.shape == (7, SIDE, SIDE, 3)
    assert seen.dtype == np.uint8
    assert seen.std(0).mean() > 5  # the motion is seen


def test_frames_do_not_depend_on_the_batch(networks: tuple) -> None:
    one = np.int64(frames(networks, batch=1))
    assert np.abs(one - frames(networks, batch=5)).max() <= 1


def test_the_source_is_read_once_and_nothing_is_overwritten(networks: tuple) -> None:
    given = [PORTRAIT.copy(), FIRST.copy(), MOTION.copy()]
    state = {name: value.clone() for network in networks for name, value in network.state_dict().items()}
    times = []
    handles = [
        network.register_forward_hook(lambda *_: times.append(1)) for network in (networks[0], networks[1].second)
    ]
    frames(networks, expression_scale=2, still=True)
    for handle in handles:
        handle.remove()
    assert len(times) == 2
    assert all(np.array_equal(a, b) for a, b in zip(given, (PORTRAIT, FIRST, MOTION), strict=True))
    assert all(torch.equal(state[name], value) for network in networks for name, value in network.state_dict().items())


def test_frames_come_before_the_motion_is_through(networks: tuple) -> None:
    renderer = Vid2VidRenderer(*networks, SIDE, Vid2VidOptions(batch=2))
    drawn = []
    networks[1].decoder.register_forward_hook(lambda _, __, out: drawn.append(len(out)))
    stream = renderer.animate(PORTRAIT, FIRST, np.tile(MOTION, (1000, 1)))
    first_three = [next(stream) for _ in range(3)]
    assert np.array_equal(first_three[0], frames(networks, np.tile(MOTION, (3, 1)))[0])
    assert drawn[:2] == [2, 2]
    networks[1].decoder._forward_hooks.clear()


def test_a_frame_sees_thirteen_frames_either_side(networks: tuple) -> None:
    motion = np.tile(MOTION[:1], (40, 1))
    changed = motion.copy()
    changed[20] = 3
    still, moved = (frames(networks, given, batch=8) for given in (motion, changed))
    differ = np.flatnonzero((still != moved).any((1, 2, 3)))
    assert differ.min() >= 7
    assert differ.max() <= 33
    assert 20 in differ


def test_still_and_expression_scale(networks: tuple) -> None:
    options = Vid2VidOptions(expression_scale=1.5, still=True)
    found = directed(FIRST, MOTION, options)
    assert np.allclose(found[:, :64], 1.5 * MOTION[:, :64])
    assert np.array_equal(found[:, 64:], np.tile(FIRST[64:], (7, 1)))
    assert np.array_equal(directed(FIRST, MOTION, Vid2VidOptions()), MOTION)
    # without expression, a still head does not move
    quiet = frames(networks, still=True, expression_scale=0, batch=1)
    assert (quiet == quiet[0]).all()


def test_background_stays_byte_for_byte(networks: tuple) -> None:
    moving = np.zeros((SIDE, SIDE), np.float32)
    moving[16:48, 16:48] = 1
    moving[16:48, 48:52] = 0.5
    whole, masked = frames(networks), frames(networks, moving=moving)
    assert (masked[:, moving == 0] == PORTRAIT[moving == 0]).all()
    assert (masked[:, moving == 1] == whole[:, moving == 1]).all()
    between = (np.float32(whole) + PORTRAIT)[:, moving == 0.5] / 2
    assert np.abs(masked[:, moving == 0.5] - between).max() <= 1


def test_what_moves_in_from_outside(networks: tuple) -> None:
    generator = networks[1]
    picture = torch.rand(1, 3, SIDE, SIDE)
    points = torch.zeros(1, SMALL.points, 3)
    warped = []
    handle = generator.third.register_forward_pre_hook(lambda _, given: warped.append(given[0]))
    with torch.inference_mode():
        look = generator.encode(picture)
        look = look._replace(volume=torch.ones_like(look.volume))
        for beyond in ("zeros", "border"):
            generator.decode(look, points, points + torch.tensor([0.9, 0, 0]), beyond)
    handle.remove()
    dark, border = warped
    assert torch.allclose(border, torch.ones_like(border))  # a picture of one colour stays it
    assert dark.min() < 0.5
    assert (frames(networks, beyond="border") != frames(networks)).any()


@pytest.mark.parametrize("turn", ["yaw_deg", "pitch_deg", "roll_deg"])
def test_free_view_replaces_one_angle(networks: tuple, turn: str) -> None:
    straight, turned = (frames(networks, still=True, expression_scale=0, **{turn: keys}) for keys in ((0,), (0, 30)))
    assert np.abs(np.int64(straight[0]) - turned[0]).max() <= 1
    assert (straight[-1] != turned[-1]).mean() > 0.05


def test_pose_paths() -> None:
    assert pose_path((), 5) is None
    assert np.allclose(pose_path((7,), 3), 7)
    assert np.allclose(pose_path((4, 4, 4), 3), 4)
    assert np.allclose(pose_path((0, 90), 1), 0)
    assert np.allclose(pose_path((0, 30, 0), 5), [0, 15, 30, 15, 0])
    assert np.allclose(pose_path((0, 0, 10, 10, 0, 0), 5), [0, 5, 10, 5, 0])  # the reference divides by zero
    assert np.allclose(pose_path((0, 0, 30, 10), 6, restart_at_keys=True), [0, 10, 20, 30, 20, 20])
    uneven = pose_path((-20, 30, 10), 71)
    assert np.allclose(np.abs(np.diff(uneven)), 1)
    assert (uneven[0], uneven[-1], uneven.max()) == (-20, 10, 30)


def test_bytes_are_rounded() -> None:
    colours = torch.tensor([0, 0.49, 0.51, 1.49, 254.51, 255, 400]) / 255
    assert to_bytes(colours.expand(1, 3, 1, -1))[0, 0, :, 0].tolist() == [0, 0, 1, 1, 255, 255, 255]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": PORTRAIT[:32, :32]}, r"source must be \[64, 64, 3\], got \[32, 32, 3\]"),
        (
            {"first": np.zeros(73, np.float32), "motion": np.zeros((3, 73), np.float32)},
            r"must have 70 numbers a frame, got \[73\] and \[3, 73\]",
        ),
        ({"moving": np.full((SIDE, SIDE), 255.0)}, r"moving must be \[64, 64\] within \[0, 1\]"),
        ({"moving": np.full((SIDE, SIDE), np.nan)}, r"moving must be \[64, 64\] within \[0, 1\]"),
    ],
)
def test_bad_input_is_told_at_once(networks: tuple, change: dict, message: str) -> None:
    given = {"source": PORTRAIT, "first": FIRST, "motion": MOTION} | change
    with pytest.raises(ValueError, match=message):
        Vid2VidRenderer(*networks, SIDE).animate(**given)


def test_bad_options_are_told() -> None:
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        Vid2VidOptions(batch=0)
    with pytest.raises(ValueError, match="must be finite"):
        Vid2VidOptions(yaw_deg=(0, float("nan")))


def prefixed(network: torch.nn.Module, prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value.contiguous() for name, value in network.state_dict().items()}


def test_both_published_forms_load(networks: tuple, tmp_path: Path) -> None:
    keypoints, generator, mapping = networks
    safe = tmp_path / "SadTalker_V0.0.2_256.safetensors"
    other = {"audio2exp.generator.x": torch.ones(1), "face_3drecon.kp_extractor.x": torch.ones(1)}
    save_file(prefixed(keypoints, "kp_extractor.") | prefixed(generator, "generator.") | other, safe)
    old = tmp_path / "facevid2vid_00189-model.pth.tar"
    estimator = HeadPoseEstimator(SMALL).eval()
    torch.save(
        {
            "generator": generator.state_dict(),
            "kp_detector": keypoints.state_dict(),
            "he_estimator": estimator.state_dict(),
            "optimizer_generator": {"state": {}, "param_groups": [{"lr": 0.0002}]},
            "epoch": 189,
        },
        old,
    )
    mapped = tmp_path / "mapping_00229-model.pth.tar"
    torch.save({"mapping": mapping.state_dict(), "epoch": 229}, mapped)
    expected = frames(networks)
    for path in (safe, old):
        renderer = load_vid2vid(given=path, mapping=mapped, size=SMALL)
        assert renderer.side_px == 256
        renderer.side_px = SIDE
        assert np.array_equal(np.stack(list(renderer.animate(PORTRAIT, FIRST, MOTION))), expected)
    found = load_into(HeadPoseEstimator(SMALL), old, "he_estimator.")
    assert torch.equal(found(torch.ones(1, 3, SIDE, SIDE)).yaw, estimator(torch.ones(1, 3, SIDE, SIDE)).yaw)
    with pytest.raises(UserError, match=r"another network than MappingNet: first\.0\.weight is \[64, 70, 7\], not"):
        load_vid2vid(crop=True, given=safe, mapping=mapped, size=SMALL)
    with pytest.raises(UserError, match="holds another network than Generator"):
        load_vid2vid(given=safe, mapping=mapped, size=replace(SMALL, picture=16))


def test_missing_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.delenv("GAUSSIAN_HEAD_CHECKPOINTS", raising=False)
    with pytest.raises(
        WeightsMissingError, match=r"needs SadTalker_V0\.0\.2_512\.safetensors, see scripts/prepare\.sh"
    ):
        load_vid2vid(512)
