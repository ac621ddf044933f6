"""A head that speaks while the sound goes on does what it would do had it heard the whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gaussian_head.data.subject import Subject
from gaussian_head.driving.audio_landmarks import AudioLandmarkConfig, AudioLandmarkNet
from gaussian_head.driving.live import LiveDriver, Voice, in_steps, stream_delay
from gaussian_head.driving.predictor import NetworkFacts, SpeechNetwork
from gaussian_head.driving.regression import SpeechRegression, fit_speech_regression
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.driving.speech import SpeechDriver
from gaussian_head.errors import UserError
from gaussian_head.geometry.landmarks import mouth_aperture
from gaussian_head.media.audio import load_audio

HZ = 16_000
FRAME = 640


def network(ridge: SpeechRegression, look_ahead: int) -> SpeechNetwork:
    """A network whose linear path was drawn: whether it is any good does not matter here."""
    config = AudioLandmarkConfig((16, 80), len(ridge.space.basis), look_ahead, channels=8, dilations=(1, 2), members=2)
    net = AudioLandmarkNet(config, seed=1)
    with torch.no_grad():
        net.linear.copy_(0.05 * torch.randn(net.linear.shape, generator=torch.Generator().manual_seed(2)))
    figures = {"train_aperture_correlation": 0.0, "val_aperture_correlation": 0.0}
    errors = {"train_lip_error_mm": 0.0, "val_lip_error_mm": 0.0}
    facts = NetworkFacts("mel", (16, 80), "tiny", 0.0, 1.0, 1, False, **figures, **errors)
    return SpeechNetwork(facts, ridge.space, net.requires_grad_(False))


@pytest.fixture(scope="module")
def driver(tiny_subject: Path) -> SpeechDriver:
    subject = Subject(tiny_subject, 64)
    return SpeechDriver(fit_speech_regression(subject), DrivingSequence.from_subject(subject, subject.train))


@pytest.fixture(scope="module", params=["ridge", 0, 2, 4])
def any_driver(driver: SpeechDriver, request: pytest.FixtureRequest) -> SpeechDriver:
    """With the ridge regression, and with networks of each look-ahead."""
    ridge = request.param == "ridge"
    return driver if ridge else replace(driver, predictor=network(driver.predictor, request.param))


@pytest.fixture(scope="module")
def speech(tiny_subject: Path) -> np.ndarray:
    """Words, two thirds of a second of nothing, and words again; the last frame is not whole."""
    sentence = load_audio(Subject(tiny_subject, 64).layout.speech)
    return np.concatenate(
        [sentence[: 45 * FRAME], np.zeros(16 * FRAME, np.float32), sentence[FRAME : 22 * FRAME - 234]]
    )


def cut(speech: np.ndarray, samples: int) -> Iterator[np.ndarray]:
    return (speech[start : start + samples] for start in range(0, len(speech), samples))


def said(driver: SpeechDriver, chunks: object, voice: Voice | None = None) -> DrivingSequence:
    return DrivingSequence.join(list(LiveDriver(driver, voice).perform(chunks)))


def assert_same(one: DrivingSequence, other: DrivingSequence, tolerance: float) -> None:
    assert len(one) == len(other)
    for name, part in one.parts().items():
        assert torch.allclose(part.double(), other.parts()[name].double(), rtol=0, atol=tolerance), name


def test_chunks_change_nothing(any_driver: SpeechDriver, speech: np.ndarray) -> None:
    whole = said(any_driver, [speech])
    assert len(whole) == -(-len(speech) // FRAME)
    for samples in (HZ, 7 * HZ // 1000):
        assert_same(whole, said(any_driver, cut(speech, samples)), 0)


def test_single_samples_and_empty_chunks(any_driver: SpeechDriver, speech: np.ndarray) -> None:
    short = speech[: 3 * FRAME + 5]
    singly = (part for sample in short for part in (short[:0], np.array([sample])))
    assert_same(said(any_driver, [short]), said(any_driver, singly), 0)


def test_it_is_the_whole_sounds_motion_where_the_levels_are_known(any_driver: SpeechDriver, speech: np.ndarray) -> None:
    whole = any_driver.drive(any_driver.hear(speech), speech)
    live = said(any_driver, cut(speech, 1000), Voice.measure(speech))
    if stream_delay(any_driver.predictor).total_s >= 0.25:
        assert_same(whole, live, 1e-6)
        return
    # With less heard ahead some onsets are noticed late: only the mouth, and only there, is another.
    assert_same(whole.with_landmarks(live.landmarks), live, 1e-6)
    apart = (whole.landmarks - live.landmarks).abs().amax((1, 2)) > 1e-6
    assert float(apart.double().mean()) < 0.25


def test_estimated_levels_move_the_mouth_alike_and_silence_closes_it(driver: SpeechDriver, speech: np.ndarray) -> None:
    whole, live = (
        mouth_aperture(motion.landmarks.numpy())
        for motion in (driver.drive(driver.hear(speech), speech), said(driver, [speech]))
    )
    assert np.corrcoef(whole[25:], live[25:])[0, 1] > 0.98
    assert live[45 + 5 : 45 + 11].var() < 0.05 * live[:45].var()


def test_frames_come_as_soon_as_declared(any_driver: SpeechDriver, speech: np.ndarray) -> None:
    delay = round(stream_delay(any_driver.predictor).total_s * HZ)
    given = 0

    def microphone() -> Iterator[np.ndarray]:
        nonlocal given
        for chunk in cut(speech, 80):
            given += len(chunk)
            yield chunk

    came = [given for _ in LiveDriver(any_driver).perform(microphone())]
    for frame, samples in enumerate(came):
        due = frame * FRAME + delay
        assert samples == (due if due <= len(speech) else len(speech))


@pytest.mark.parametrize("samples", [0, 1, FRAME, FRAME + 1])
def test_short_sounds(any_driver: SpeechDriver, speech: np.ndarray, samples: int) -> None:
    frames = list(LiveDriver(any_driver).perform([speech[:samples]]))
    assert len(frames) == -(-samples // FRAME)
    assert all(bool(frame.landmarks.isfinite().all()) for frame in frames)


def test_delay_is_declared(driver: SpeechDriver) -> None:
    assert stream_delay(driver.predictor).total_s == pytest.approx(0.41)
    for look_ahead in (0, 2, 4):
        delay = stream_delay(network(driver.predictor, look_ahead))
        assert (delay.look_ahead_s, delay.window_s) == pytest.approx((0.04 * look_ahead, 0.09))


def test_what_cannot_stream_is_refused(driver: SpeechDriver) -> None:
    encoder = replace(driver.predictor.facts, extractor="wavlm")
    with pytest.raises(UserError, match="trained with wavlm, which needs whole sentences"):
        stream_delay(SpeechRegression(encoder, driver.predictor.space, {}))
    whole_only = SimpleNamespace(
        facts=driver.predictor.facts, predict=lambda features, rest: rest, check=lambda features: None
    )
    with pytest.raises(UserError, match="--predictor network"):
        stream_delay(whole_only)


@pytest.mark.parametrize(
    ("chunk", "told"),
    [
        (np.zeros((10, 2)), r"one channel, got float64 \[10, 2\]"),
        (np.zeros(10, np.int16), "got int16"),
        (np.array([0.0, np.nan]), "no finite numbers"),
    ],
)
def test_chunks_that_are_no_sound_are_refused(chunk: np.ndarray, told: str) -> None:
    with pytest.raises(UserError, match=told):
        list(in_steps([chunk]))


def test_a_silent_recording_tells_nothing_of_a_voice() -> None:
    with pytest.raises(UserError, match="silent"):
        Voice.measure(np.zeros(HZ))
