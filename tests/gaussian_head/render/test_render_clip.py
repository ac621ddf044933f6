"""Heads in motion, and what stands behind them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from gaussian_head.data.layout import SPEECH_HZ
from gaussian_head.data.subject import Subject
from gaussian_head.driving.live import Voice
from gaussian_head.driving.regression import fit_speech_regression
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.driving.speech import SpeechDriver
from gaussian_head.media.audio import load_audio
from gaussian_head.model.head import Head
from gaussian_head.render.backdrop import Backdrop, Layer, cover, own_scene, resize_premultiplied
from gaussian_head.render.clip import GaussianTalkingHead, RenderClock, render_clip
from gaussian_head.talking_head import TalkingHead


@pytest.fixture
def subject(tiny_subject: Path) -> Subject:
    return Subject(tiny_subject, 64)


def backdrop(subject: Subject, scene: np.ndarray | None) -> Backdrop:
    return Backdrop(subject.layout, subject.width, subject.height, scene)


def test_own_backdrop_is_what_the_training_had_behind_the_head(subject: Subject) -> None:
    layer = backdrop(subject, own_scene(subject.layout)).frame(3)
    assert layer.opaque
    assert float((layer.color * 255 - subject.frame(3).background).abs().max()) <= 1.01


def test_frames_come_one_by_one(subject: Subject, tiny_head: Head) -> None:
    clock = RenderClock()
    motion = DrivingSequence.from_subject(subject, subject.val)
    frames = render_clip(tiny_head, motion, backdrop(subject, own_scene(subject.layout)), clock)
    assert isinstance(frames, Iterator)
    next(frames)
    next(frames)
    assert clock.frames == 1  # the first does not count, the third is not begun
    assert len(list(frames)) == len(subject.val) - 2


def test_a_clip_in_pieces_is_the_same(subject: Subject, tiny_head: Head) -> None:
    behind = backdrop(subject, own_scene(subject.layout))
    whole = list(render_clip(tiny_head, DrivingSequence.from_subject(subject, subject.val), behind))
    clock = RenderClock()
    pieces = (DrivingSequence.from_subject(subject, part) for part in (subject.val[:3], subject.val[3:]))
    assert np.array_equal(np.stack(whole), np.stack(list(render_clip(tiny_head, pieces, behind, clock))))
    assert clock.frames == len(subject.val) - 1


@pytest.mark.parametrize("scene", [True, False])
def test_torsos_are_cross_faded(subject: Subject, tiny_head: Head, scene: bool) -> None:
    class Grey(Backdrop):
        def frame(self, k: int) -> Layer:
            level = torch.full((1, 64, 64), 0.2 if k == 1 else 0.6)
            return Layer(level.expand(3, -1, -1), torch.ones_like(level) if scene else level, opaque=scene)

    behind = Grey(subject.layout, 64, 64, None)
    one = DrivingSequence.from_subject(subject, [1, 2])
    faded = one.blended(torch.tensor([0, 0, 0]), torch.tensor([1, 1, 1]), torch.tensor([0.0, 0.25, 0.5]))
    corners = [frame[0, 0].astype(int) for frame in render_clip(tiny_head, faded, behind)]
    if scene:
        assert [int(corner[0]) for corner in corners] == [51, 76, 102]
    else:
        assert [int(corner[3]) for corner in corners] == [51, 76, 102]


def test_transparent_frames_laid_over_a_scene_are_the_opaque_ones(subject: Subject, tiny_head: Head) -> None:
    scene = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    motion = DrivingSequence.from_subject(subject, subject.val[:2])
    for solid, clear in zip(
        render_clip(tiny_head, motion, backdrop(subject, scene)),
        render_clip(tiny_head, motion, backdrop(subject, None)),
        strict=True,
    ):
        assert solid.shape == (64, 64, 3)
        assert clear.shape == (64, 64, 4)
        alpha = clear[..., 3:] / 255
        laid = clear[..., :3] * alpha + scene * (1 - alpha)
        assert np.abs(laid - solid).max() < 3
        assert clear[0, 0, 3] == 0  # a corner without person
        assert clear[32, 32, 3] == 255  # the face


def test_cover_keeps_the_middle() -> None:
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 30:70] = 200
    covered = cover(image, 64, 64)
    assert covered.shape == (64, 64, 3)
    assert covered[32, 10:54].min() > 190


def test_hidden_colours_do_not_bleed() -> None:
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[..., 0] = 255  # red everywhere, seen nowhere but in the lower half's green
    rgba[4:] = (0, 255, 0, 255)
    assert resize_premultiplied(rgba, 4, 4)[..., 0].max() == 0


def test_a_trained_head_is_a_talking_head(subject: Subject, tiny_head: Head) -> None:
    driver = SpeechDriver(fit_speech_regression(subject), DrivingSequence.from_subject(subject, subject.train))
    head = GaussianTalkingHead(tiny_head, driver, backdrop(subject, own_scene(subject.layout)))
    assert isinstance(head, TalkingHead)
    frames = list(head.speak(load_audio(subject.layout.speech)[: SPEECH_HZ // 2]))
    assert len(frames) == 13
    assert all(frame.shape == (64, 64, 3) for frame in frames)


def test_a_stream_is_what_is_spoken(subject: Subject, tiny_head: Head) -> None:
    driver = SpeechDriver(fit_speech_regression(subject), DrivingSequence.from_subject(subject, subject.train))
    head = GaussianTalkingHead(tiny_head, driver, backdrop(subject, own_scene(subject.layout)))
    speech = load_audio(subject.layout.speech)[: SPEECH_HZ // 2 + 77]
    voice = Voice.measure(speech)
    spoken = np.stack(list(head.speak(speech)))
    for samples in (len(speech), 112, SPEECH_HZ // 10):
        chunks = (speech[start : start + samples] for start in range(0, len(speech), samples))
        streamed = np.stack(list(head.stream(chunks, voice)))
        assert streamed.shape == spoken.shape
        assert np.abs(streamed.astype(int) - spoken).max() <= 1  # positions equal to 1e-8 m, rounded to 8 bits


def test_no_sound_is_asked_for_before_a_frame_needs_it(subject: Subject, tiny_head: Head) -> None:
    driver = SpeechDriver(fit_speech_regression(subject), DrivingSequence.from_subject(subject, subject.train))
    head = GaussianTalkingHead(tiny_head, driver, backdrop(subject, own_scene(subject.layout)))
    given = []
    chunks = (given.append(k) or part for k, part in enumerate(np.split(load_audio(subject.layout.speech), 88)))
    frames = head.stream(chunks)
    assert not given
    next(frames)
    needed = int(np.ceil(head.delay.total_s * 25))
    assert len(given) == needed
    next(frames)
    assert len(given) == needed + 1
