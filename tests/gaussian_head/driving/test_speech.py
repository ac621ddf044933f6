"""Any sound, of any length, moves the head: in pieces, the same as in one."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gaussian_head.data.subject import Subject
from gaussian_head.driving.regression import fit_speech_regression
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.driving.speech import CHUNK, Manner, SpeechDriver, load_speech
from gaussian_head.driving.upper_face import BLINK_UNIT
from gaussian_head.errors import UserError
from gaussian_head.geometry.landmarks import INNER_LIPS, LEFT_BROW, mouth_aperture
from gaussian_head.media.audio import load_audio, write_wav
from gaussian_head.model.audio_code import audio_windows

HZ = 16_000
TEN_MINUTES = 15_000


@pytest.fixture(scope="module")
def driver(tiny_subject: Path) -> SpeechDriver:
    subject = Subject(tiny_subject, 64)
    return SpeechDriver(fit_speech_regression(subject), DrivingSequence.from_subject(subject, subject.train))


@pytest.fixture(scope="module")
def speech(tiny_subject: Path) -> np.ndarray:
    """A sentence, two seconds of nothing, and the sentence again."""
    sentence = load_audio(Subject(tiny_subject, 64).layout.speech)
    return np.concatenate([sentence, np.zeros(2 * HZ, np.float32), sentence])


def said(driver: SpeechDriver, speech: np.ndarray, **manner: object) -> DrivingSequence:
    changed = replace(driver, manner=replace(driver.manner, **manner))
    return changed.drive(changed.hear(speech), speech)


@pytest.mark.parametrize("chunk", [7, CHUNK])
def test_pieces_are_the_same_as_the_whole(driver: SpeechDriver, speech: np.ndarray, chunk: int) -> None:
    features = driver.hear(speech)
    whole = next(driver.perform(features, speech, chunk=len(features)))
    pieces = DrivingSequence.join(list(driver.perform(features, speech, chunk=chunk)))
    assert len(whole) == len(features)
    for name, part in whole.parts().items():
        assert torch.allclose(part.double(), pieces.parts()[name].double(), rtol=0, atol=1e-7), name


@pytest.mark.parametrize("chunk", [7, CHUNK])
def test_a_head_that_hears_is_given_the_new_sound_across_pieces(
    driver: SpeechDriver, speech: np.ndarray, chunk: int
) -> None:
    features = driver.hear(speech)
    hearing = replace(driver, head_hears="mel")
    pieces = DrivingSequence.join(list(hearing.perform(features, speech, chunk=chunk)))
    assert torch.equal(pieces.audio, audio_windows(features))
    assert driver.drive(features, speech).audio is None
    for name, part in driver.drive(features, speech).parts().items():
        assert torch.allclose(part.double(), pieces.parts()[name].double(), rtol=0, atol=1e-7), name


def test_a_head_that_hears_otherwise_than_the_predictor_is_refused(driver: SpeechDriver) -> None:
    with pytest.raises(UserError, match="the head hears hubert features, but its landmarks are predicted from mel"):
        replace(driver, head_hears="hubert")


def test_seed_decides(driver: SpeechDriver, speech: np.ndarray) -> None:
    one, again, other = (said(driver, speech, seed=seed, blink_rate=30) for seed in (3, 3, 4))
    assert torch.equal(one.landmarks, again.landmarks)
    assert torch.equal(one.viewmats, again.viewmats)
    assert not torch.equal(one.action_units, other.action_units)


def test_silence_closes_the_mouth(driver: SpeechDriver, speech: np.ndarray) -> None:
    opening = mouth_aperture(said(driver, speech).landmarks.numpy())
    silent = slice(88 + 5, 88 + 50 - 5)
    leakage = opening[silent].var() / np.concatenate([opening[:88], opening[138:]]).var()
    assert leakage < 0.05
    assert opening[silent].mean() < np.quantile(mouth_aperture(driver.motion.landmarks.numpy()), 0.2) + 1e-5


def test_the_gate_closes_the_mouth_whatever_predicts_it(driver: SpeechDriver, speech: np.ndarray) -> None:
    class Chatterbox:
        """Predicts a mouth that never rests."""

        facts = driver.predictor.facts

        def check(self, features: np.ndarray) -> None:
            """It listens to anything."""

        def predict(self, features: np.ndarray, rest: torch.Tensor) -> torch.Tensor:
            moved = rest.clone()
            moved[:, INNER_LIPS[1:10], 1] -= 0.01 * torch.rand(len(features), 1)
            return moved

    restless = replace(driver, predictor=Chatterbox())
    opening = mouth_aperture(restless.drive(driver.hear(speech), speech).landmarks.numpy())
    assert opening[93:133].var() < 0.05 * opening[:88].var()
    without = mouth_aperture(restless.drive(driver.hear(speech)).landmarks.numpy())
    assert without[93:133].var() > 0.5 * without[:88].var()


def test_mouth_gain_widens_from_the_closed_mouth(driver: SpeechDriver, speech: np.ndarray) -> None:
    half, one, twice = (mouth_aperture(said(driver, speech, mouth_gain=gain).landmarks.numpy()) for gain in (0.5, 1, 2))
    assert half.std() == pytest.approx(0.5 * one.std(), rel=0.15)
    assert twice.std() == pytest.approx(2 * one.std(), rel=0.15)
    rest = slice(95, 130)
    assert half[rest] == pytest.approx(twice[rest], abs=1e-5)


def test_brow_gain_and_blink_rate(driver: SpeechDriver, speech: np.ndarray) -> None:
    calm, lively = (said(driver, speech, brow_gain=gain, blink_rate=0) for gain in (0, 2))
    assert float(calm.landmarks[:, LEFT_BROW].var(0).sum()) < float(lively.landmarks[:, LEFT_BROW].var(0).sum())
    assert float(calm.action_units[:, BLINK_UNIT].max()) < 0.5
    assert float(said(driver, speech, blink_rate=60).action_units[:, BLINK_UNIT].max()) > 1.5


def test_still_heads_speak(driver: SpeechDriver, speech: np.ndarray) -> None:
    motion = said(driver, speech, pose="still")
    assert float((motion.viewmats - motion.viewmats[0]).abs().max()) == 0
    assert motion.frame_index.unique().numel() == 1
    assert motion.fade is None
    assert mouth_aperture(motion.landmarks.numpy()).std() > 1e-3


def test_a_track_of_poses_is_followed_and_turned_around_at_its_end(driver: SpeechDriver, speech: np.ndarray) -> None:
    track = driver.motion.viewmats[:20].clone()
    track[:, 2, 3] += torch.linspace(0, 0.1, 20)
    motion = said(driver, speech, pose=track)
    assert torch.allclose(motion.viewmats[:12], track[:12], atol=1e-4)
    assert len(motion) > 200
    depth = motion.viewmats[:, 2, 3]
    assert float(depth.diff().abs().max()) < 1.1 * float(track[:, 2, 3].diff().max())
    assert float(depth.max()) > float(track[-4, 2, 3])
    assert motion.frame_index.unique().numel() == 1


def test_eyes_on_the_camera(driver: SpeechDriver, speech: np.ndarray) -> None:
    irises = said(driver, speech, gaze="camera", blink_rate=0).landmarks[:, 468:478, 0]
    turned = irises.mean(1) - irises.mean()
    away = -(said(driver, speech).viewmats[:, 0, 2])
    assert abs(np.corrcoef(turned.numpy(), away.numpy())[0, 1]) > 0.95


def test_ten_minutes_come_in_pieces_without_a_jump(driver: SpeechDriver, speech: np.ndarray) -> None:
    long = np.tile(speech, -(-TEN_MINUTES * HZ // 25 // len(speech)))[: TEN_MINUTES * HZ // 25]
    features = driver.hear(long)
    assert not features.flags.owndata  # windows overlap: they are a view
    frames, largest, last = 0, 0.0, None
    for piece in driver.perform(features, long):
        assert len(piece) <= CHUNK
        views = piece.viewmats if last is None else torch.cat([last, piece.viewmats])
        largest = max(largest, float(views.diff(dim=0).abs().max()))
        frames, last = frames + len(piece), piece.viewmats[-1:]
    assert frames == TEN_MINUTES
    assert largest < 1.5 * float(driver.motion.viewmats.diff(dim=0).abs().max())


def test_sound_beside_features_is_heard_too(driver: SpeechDriver, speech: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", driver.hear(speech))
    assert driver.read(tmp_path / "x.npy").speech is None
    write_wav(tmp_path / "x.wav", speech, HZ)
    assert len(driver.read(tmp_path / "x.npy").speech) == len(speech)


def test_sound_shorter_than_a_frame_is_refused(tmp_path: Path) -> None:
    write_wav(tmp_path / "short.wav", np.ones(600) * 0.1, HZ)
    with pytest.raises(UserError, match=r"37.5 ms; give a sound of at least one frame \(40 ms\)"):
        load_speech(tmp_path / "short.wav")
    write_wav(tmp_path / "frame.wav", np.ones(640) * 0.1, HZ)
    assert len(load_speech(tmp_path / "frame.wav")) == 640


@pytest.mark.parametrize(("gain", "told"), [(0.0, "is silent"), (40.0, "is clipped")])
def test_silent_and_clipped_sound_is_told_of_and_works(
    driver: SpeechDriver, speech: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture, gain: float, told: str
) -> None:
    write_wav(tmp_path / "odd.wav", gain * speech, HZ)
    with caplog.at_level(logging.WARNING):
        heard = driver.read(tmp_path / "odd.wav")
    assert told in caplog.text
    opening = mouth_aperture(driver.drive(*heard).landmarks.numpy())
    assert np.isfinite(opening).all()
    if gain == 0:
        assert opening.std() < 1e-6


def test_samples_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    import soundfile

    soundfile.write(tmp_path / "nan.wav", np.full(HZ, np.nan), HZ, subtype="DOUBLE")
    with pytest.raises(UserError, match="no finite numbers"):
        load_speech(tmp_path / "nan.wav")


def test_manner_by_default_is_a_walk(driver: SpeechDriver) -> None:
    assert driver.manner == Manner()
    assert driver.manner.pose == "walk"
