"""Sound becomes motion: any length, both rates, no jumps, constant memory, and every option does what it says."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch

from gaussian_head.errors import UserError
from gaussian_head.geometry.coefficients import FaceCoefficients
from gaussian_head.networks.challenge_expression import ChallengeExpression
from gaussian_head.networks.challenge_pose import ChallengePose
from gaussian_head.networks.sadtalker_expression import ExpressionNetwork
from gaussian_head.networks.sadtalker_pose import PoseNetwork
from gaussian_head.oneshot.audio2coeff.challenge import ChallengeMotion, ChallengeOptions
from gaussian_head.oneshot.audio2coeff.hearing import Speech
from gaussian_head.oneshot.audio2coeff.sadtalker import References, SadTalkerMotion, SadTalkerOptions


@lru_cache
def networks() -> dict[str, torch.nn.Module]:
    torch.manual_seed(3)
    found = {
        "expression": ExpressionNetwork(), "pose": PoseNetwork(), "turn": ChallengePose(), "say": ChallengeExpression()
    }  # fmt: skip
    return {name: network.eval() for name, network in found.items()}


def face(frames: int = 1, seed: int = 0) -> FaceCoefficients:
    rng = np.random.default_rng(seed)
    crop = np.tile(np.float32([1, 120, 130]), (frames, 1))
    return FaceCoefficients.from_vector(0.3 * rng.standard_normal((frames, 257), np.float32), crop)


def voice(seconds: float, seed: int = 0) -> np.ndarray:
    """A sound as changeable as speech."""
    rng = np.random.default_rng(seed)
    samples = round(16_000 * seconds)
    loud = np.repeat(rng.uniform(0, 0.3, samples // 1600 + 1), 1600)[:samples]
    return (loud * rng.standard_normal(samples)).astype(np.float32)


def sadtalker(**options: object) -> SadTalkerMotion:
    return SadTalkerMotion(networks()["expression"], networks()["pose"], SadTalkerOptions(**options))


def challenge(**options: object) -> ChallengeMotion:
    return ChallengeMotion(networks()["say"], networks()["turn"], ChallengeOptions(**options))


def joined(blocks: object) -> np.ndarray:
    return np.concatenate(list(blocks))


@pytest.mark.parametrize("fps", [25, 30])
@pytest.mark.parametrize("frames", [1, 2, 3, 13, 21, 34])
def test_any_length_at_both_rates(fps: int, frames: int) -> None:
    speech = voice(frames / 25)
    for chunks in ("faded", "independent"):
        motion = joined(sadtalker(fps=fps, chunks=chunks).move(speech, face(), crop=True))
        assert motion.shape == (frames * fps // 25, 73)
        assert motion.dtype == np.float32
        assert np.isfinite(motion).all()
        assert (motion[:, 70:] == [1, 120, 130]).all()
    motion = joined(challenge(fps=fps).move(speech, face()))
    assert motion.shape == (frames * fps // 25, 73)
    assert np.isfinite(motion).all()


@pytest.mark.parametrize("make", [sadtalker, challenge])
def test_too_short_a_sound_is_refused(make: object) -> None:
    with pytest.raises(UserError, match="expected at least"):
        make().move(np.zeros(500, np.float32), face())


class QuickExpression(ExpressionNetwork):
    """Takes no time."""

    def features(self, mels: torch.Tensor) -> torch.Tensor:
        return mels.mean((1, 2, 3))[:, None].expand(-1, 512)


class QuickPose(PoseNetwork):
    """Takes no time."""

    def features(self, mels: torch.Tensor) -> torch.Tensor:
        return mels.mean((1, 2, 3))[:, None].expand(-1, 512)

    def decode(
        self, latent: torch.Tensor, first: torch.Tensor, style: torch.Tensor, features: torch.Tensor
    ) -> torch.Tensor:
        return 0.1 * torch.sin(torch.arange(32) / 5)[:, None] + latent[:, None, :6]


class QuickSay(ChallengeExpression):
    """Says something else in each block."""

    def forward(self, mels: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        return (mels.mean() + 0.001 * torch.sin(torch.arange(mels.shape[1]) / 9)[None, :, None]).expand(-1, -1, 64)


class QuickTurn(ChallengePose):
    """Looks somewhere else in each block."""

    def forward(self, first: torch.Tensor, driven: torch.Tensor) -> torch.Tensor:
        return (driven.mean() + 0.001 * torch.sin(torch.arange(driven.shape[1]) / 9)[None, :, None]).expand(-1, -1, 9)


def speeds(motion: np.ndarray, borders: Iterable[int]) -> tuple[float, float]:
    """Return the largest change between frames at borders of chunks, and elsewhere, after a second."""
    speed = np.linalg.norm(np.diff(motion, axis=0), axis=1)
    near = np.isin(np.arange(len(speed)), [border + shift for border in borders for shift in (-1, 0)])
    return speed[25:][near[25:]].max(), speed[25:][~near[25:]].max()


def test_the_head_does_not_jump_between_chunks() -> None:
    def motion(chunks: str) -> np.ndarray:
        options = SadTalkerOptions(blinks="none", chunks=chunks, seed=1)
        return joined(SadTalkerMotion(QuickExpression(), QuickPose(), options).move(voice(12), portrait))[:, 64:]

    portrait = face()
    faded = motion("faded")
    border, within = speeds(faded, range(17, 300, 16))
    assert border <= within
    reach = np.ptp(faded, axis=0)
    assert reach.min() > 1  # as far as the latents lie apart
    assert (np.abs(faded[0] - portrait.motion(crop=False)[0, 64:]) < 0.05 * reach).all()  # begins at the portrait's
    border_before, within_before = speeds(motion("independent"), range(33, 300, 32))
    assert border_before > within_before  # what is mended: a jump, which the smoothing spreads over its neighbours
    assert border_before > 1.2 * max(border, within)
    assert border_before > 2 * border


def test_the_challenge_entry_does_not_jump_between_blocks() -> None:
    def motion(overlap: int) -> np.ndarray:
        return joined(
            ChallengeMotion(QuickSay(), QuickTurn(), ChallengeOptions(overlap=overlap)).move(voice(9), face())
        )

    for part in (slice(0, 64), slice(64, 67)):
        borders = sorted([*range(60, 270, 60), *range(90, 270, 60)])
        border, within = speeds(motion(30)[:, part], borders)
        assert border <= within
        border_before, within_before = speeds(motion(0)[:, part], range(90, 270, 90))
        assert border_before > 5 * max(border, within, within_before)


def test_a_seed_gives_the_same_motion() -> None:
    speech = voice(1)
    first, again, other = (joined(sadtalker(seed=seed).move(speech, face())) for seed in (4, 4, 5))
    assert np.array_equal(first, again)
    assert np.abs(first[:, 64:] - other[:, 64:]).max() > 1e-4
    style = joined(sadtalker(seed=4, style=45).move(speech, face()))
    assert np.abs(style[:, 64:] - first[:, 64:]).max() > 1e-4


@torch.inference_mode()
def test_expressions_are_those_of_the_network_at_once() -> None:
    speech, portrait = voice(2), face()
    mels = torch.from_numpy(Speech(speech, 25, offset_frames=-2).windows(0, 50))[:, None]
    rest, open_eyes = torch.from_numpy(portrait.expression).expand(50, -1), torch.zeros(50, 1)
    expected = networks()["expression"](mels, rest, open_eyes).numpy()
    found = joined(sadtalker(still=True, blinks="none").move(speech, portrait))
    assert np.allclose(found[:, :64], expected, atol=1e-5)
    assert (found[:, 64:] == portrait.motion(crop=False)[0, 64:]).all()
    larger = joined(sadtalker(still=True, blinks="none", expression_scale=1.5).move(speech, portrait))
    assert np.allclose(larger[:, :64], 1.5 * expected, atol=1e-5)
    blinking = joined(sadtalker(still=True, seed=1).move(speech, portrait))
    changed = np.flatnonzero(np.abs(blinking - found)[:, :64].max(1) > 1e-6)
    assert len(changed) in (5, 10)  # a blink or two in two seconds
    video = face(20, seed=2)
    watching = joined(sadtalker(still=True).move(speech, portrait, references=References(blinks=video)))
    turn = np.r_[0:20, 18:0:-1, 0:12]
    expected = networks()["expression"](mels, torch.from_numpy(video.expression[turn]), open_eyes).numpy()
    assert np.allclose(watching[:, :64], expected, atol=1e-5)


def test_a_reference_moves_the_head_relative_to_its_first_frame() -> None:
    speech, portrait, video = voice(2), face(), face(30, seed=2)
    relative = (video.motion(crop=False) - video.motion(crop=False)[0])[np.r_[0:30, 28:8:-1], 64:]
    followed = joined(
        sadtalker(reference_pose="replace").move(speech, portrait, references=References(pose=video))
    )  # fmt: skip
    assert np.allclose(followed[:, 64:], portrait.motion(crop=False)[0, 64:] + relative, atol=1e-6)
    added = joined(sadtalker().move(speech, portrait, references=References(pose=video)))
    plain = joined(sadtalker().move(speech, portrait))
    assert np.allclose(added[:, 64:], plain[:, 64:] + relative, atol=1e-5)
    with pytest.raises(UserError, match="reference video of pose has no frame"):
        sadtalker().move(speech, portrait, references=References(pose=video.take(slice(0))))


def test_idle_is_what_silence_says() -> None:
    silence = joined(sadtalker().move(np.zeros(32_000, np.float32), face()))
    assert np.allclose(joined(sadtalker().idle(2, face())), silence, atol=1e-5)
    assert not np.allclose(joined(sadtalker(idle_sound="zeros").idle(2, face())), silence, atol=1e-3)
    assert len(joined(sadtalker(fps=30).idle(0.5, face()))) == 15
    for seconds in (0, -1, float("nan")):
        with pytest.raises(UserError, match="idle: expected"):
            sadtalker().idle(seconds, face())


@torch.inference_mode()
def test_the_challenge_entry_within_a_block_is_its_networks() -> None:
    speech, first = voice(2), face()
    mels = torch.from_numpy(Speech(speech, 30, bands=40, width=5).windows(0, 60).copy())[None]
    expression = networks()["say"](mels, torch.from_numpy(first.expression))
    pose = torch.from_numpy(first.motion(crop=True)[:, 64:])
    turned = networks()["turn"](pose, torch.cat([expression, mels.flatten(2)], 2))[0].numpy()
    found = joined(challenge().move(speech, first))
    assert np.allclose(found[:, :64], expression[0].numpy(), atol=1e-5)
    assert np.allclose(found[:, 64:67], first.angles + turned[:, :3] - turned[0, :3], atol=1e-5)
    assert (found[:, 67:] == pose[0, 3:].numpy()).all()
    everything = joined(challenge(moves="all").move(speech, first))
    assert np.allclose(everything[:, 64:], pose.numpy() + turned - turned[0], atol=1e-4)

    given = face(40, seed=3).expression
    driven = joined(challenge().move(speech, first, expressions=given))
    assert np.array_equal(driven[:, :64], given[np.minimum(np.arange(60), 39)])
    still = ChallengeMotion(networks()["say"], None).move(speech, replace(first, crop=None), crop=False)
    assert (joined(still)[:, 64:] == first.motion(crop=False)[0, 64:]).all()
    with pytest.raises(ValueError, match="no expression network"):
        ChallengeMotion(None, networks()["turn"]).move(speech, first)


def test_memory_does_not_grow_with_the_sound() -> None:
    """A minute takes what ten seconds do."""
    peaks = {}
    motion = SadTalkerMotion(QuickExpression(), QuickPose(), SadTalkerOptions(fps=30))
    for seconds in (10, 60):
        speech = voice(seconds)
        tracemalloc.start()
        rows = sum(len(block) for block in motion.move(speech, face()))
        peaks[seconds] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert rows == 30 * seconds
    assert peaks[60] < 1.1 * peaks[10]


@pytest.mark.parametrize("wrong", [{"style": 46}, {"style": -1}, {"fps": 0}])
def test_options_beyond_their_limits_are_refused(wrong: dict) -> None:
    with pytest.raises(UserError, match="must"):
        SadTalkerOptions(**wrong)


def test_challenge_options_beyond_their_limits_are_refused() -> None:
    for wrong in ({"overlap": 46}, {"overlap": -1}, {"fps": -25}):
        with pytest.raises(UserError, match="must"):
            ChallengeOptions(**wrong)
