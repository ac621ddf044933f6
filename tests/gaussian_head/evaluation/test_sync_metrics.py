"""The lip-sync metric over whole clips, with a detector and encoders whose answers are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gaussian_head.evaluation.face_track import Track, crop_face, steady, track_faces
from gaussian_head.evaluation.measure import measure
from gaussian_head.evaluation.metric import ClipFacts, Figure, Look, Pair, Side, Unavailable
from gaussian_head.evaluation.sync import SAMPLES_PER_FRAME, AudioVisualSync, encode_sound, measure_sync
from gaussian_head.media.audio import write_wav
from gaussian_head.media.mfcc import extract_mfcc
from gaussian_head.networks.s3fd import S3FD
from gaussian_head.networks.syncnet import SyncNet

SIDE, FRAMES = 160, 125
BOX = np.array([[25.0, 20.0, 135.0, 130.0]])
LEVELS = np.random.default_rng(3).normal(size=FRAMES)
"""How bright and how loud each frame is."""


class LevelEncoders(SyncNet):
    """In SyncNet's place: five brightnesses, five loudnesses, on one scale."""

    def __init__(self, mean_log_energy: float) -> None:
        torch.nn.Module.__init__(self)  # without SyncNet's layers
        self.mean = mean_log_energy
        self.largest_batch = 0

    def encode_lips(self, pictures: torch.Tensor) -> torch.Tensor:
        assert pictures.shape[1:] == (3, 5, 224, 224)
        self.largest_batch = max(self.largest_batch, len(pictures))
        return (pictures[:, 0, :, 60:100, 90:130].mean((-1, -2)) - 128) / 25

    def encode_sound(self, mfcc: torch.Tensor) -> torch.Tensor:
        assert mfcc.shape[1:] == (1, 13, 20)
        return mfcc[:, 0, 0].unflatten(-1, (5, 4)).mean(-1) - self.mean


def bright(level: float) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), np.clip(round(128 + 25 * level), 0, 255), np.uint8)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Noise as loud as LEVELS says, in [-1, 1]."""
    noise = np.random.default_rng(4).normal(size=FRAMES * SAMPLES_PER_FRAME)
    return (noise * np.exp(np.repeat(LEVELS, SAMPLES_PER_FRAME) / 2) * 0.02).clip(-1, 1)


@pytest.fixture
def encoders(speech: np.ndarray) -> LevelEncoders:
    return LevelEncoders(float(extract_mfcc((speech * 32767).astype(np.int16))[:, 0].mean()))


@pytest.fixture
def clip(tmp_path: Path) -> Callable[..., ClipFacts]:
    def make(speech: np.ndarray, fps: float = 25.0, early: int = 0) -> ClipFacts:
        """`early`: frames by which the sound comes too soon."""
        moved = np.roll(speech, -early * SAMPLES_PER_FRAME)
        write_wav(tmp_path / "sound.wav", moved, 16_000)
        return ClipFacts(fps, SIDE, SIDE, has_truth=False, picture=Side(sound=tmp_path / "sound.wav"))

    return make


def run(metric: AudioVisualSync, pictures: list[np.ndarray]) -> dict[str, Figure]:
    for i, rgb in enumerate(pictures):
        metric.update(Pair(i, Look(rgb, lambda _: None)))
    return {figure.entry: figure for figure in metric.finish()}


@pytest.mark.parametrize("early", [-4, 0, 3])
def test_shifted_sound_gives_its_offset(clip, speech, encoders, early: int) -> None:
    metric = AudioVisualSync(clip(speech, early=early), detect=lambda _: BOX, network=encoders)
    figures = run(metric, [bright(level) for level in LEVELS])
    assert figures["av_offset"].value == early
    assert figures["av_conf"].value == figures["sync_c"].value > 0.5
    assert figures["sync_d"].value < 1 < metric.sync.curve.min(initial=9, where=np.arange(31) != early + 15)
    assert {(f.region, f.counted, f.excluded, f.reason) for f in figures.values()} == {("full", FRAMES, 0, "")}
    trace = figures["sync_d"].trace
    assert len(trace) == FRAMES
    assert [trace.index(next(v for v in trace if v is not None)), trace[-3:]] == [2, (None, None, None)]
    held = [value for value in trace if value is not None]
    assert len(held) == FRAMES - 5
    assert np.mean(held) == pytest.approx(figures["sync_d"].value, rel=1e-5)
    assert metric.sync.curve[list(metric.sync.shifts).index(early)] == figures["sync_d"].value
    assert encoders.largest_batch <= 8


def test_worse_sync_gives_less_confidence_and_more_distance(clip, speech, encoders) -> None:
    noise = np.random.default_rng(5).normal(size=FRAMES)
    found = []
    for share in (0.0, 0.4, 0.8):
        metric = AudioVisualSync(clip(speech), detect=lambda _: BOX, network=encoders)
        found.append(run(metric, [bright(level) for level in (1 - share) * LEVELS + share * noise]))
    assert found[0]["sync_c"].value > found[1]["sync_c"].value > found[2]["sync_c"].value
    assert found[0]["sync_d"].value < found[1]["sync_d"].value < found[2]["sync_d"].value


@pytest.mark.parametrize("fps", [30.0, 50.0])
def test_other_rates_are_resampled_by_time(clip, speech, encoders, fps: float) -> None:
    pictures = [bright(LEVELS[round(k * 25 / fps)]) for k in range(int(FRAMES * fps / 25))]
    plain = AudioVisualSync(clip(speech), detect=lambda _: BOX, network=encoders)
    run(plain, [bright(level) for level in LEVELS])
    metric = AudioVisualSync(clip(speech, fps), detect=lambda _: BOX, network=encoders)
    figures = run(metric, pictures)
    np.testing.assert_allclose(metric.sync.curve, plain.sync.curve, rtol=1e-6)
    assert "resampled to 25" in figures["av_offset"].reason
    assert len(figures["av_conf"].trace) == len(pictures)


def test_slower_clips_repeat_frames(clip, speech, encoders) -> None:
    metric = AudioVisualSync(clip(speech, 12.5), detect=lambda _: BOX, network=encoders)
    figures = run(metric, [bright(level) for level in LEVELS[::2]])
    assert figures["av_conf"].counted == FRAMES
    assert abs(figures["av_offset"].value) <= 1


def test_unrelated_sound_is_told(clip, speech) -> None:
    class Unrelated(LevelEncoders):
        def encode_lips(self, pictures: torch.Tensor) -> torch.Tensor:
            return torch.randn(len(pictures), 64) + 3

        def encode_sound(self, mfcc: torch.Tensor) -> torch.Tensor:
            return torch.randn(len(mfcc), 64) - 3

    metric = AudioVisualSync(clip(speech), detect=lambda _: BOX, network=Unrelated(0.0))
    figures = run(metric, [bright(level) for level in LEVELS])
    assert abs(figures["av_offset"].value) == 15
    assert all("no sync found" in figure.reason for figure in figures.values())


class Recorder(LevelEncoders):
    """Keeps a thinned copy of what it is shown."""

    def encode_lips(self, pictures: torch.Tensor) -> torch.Tensor:
        self.largest_batch = max(self.largest_batch, len(pictures))
        return pictures[..., ::16, ::16].flatten(1)

    def encode_sound(self, mfcc: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(mfcc), 3 * 5 * 14 * 14)


def test_one_pass_cuts_the_same_faces_as_two_and_holds_few_pictures(clip, speech) -> None:
    rng = np.random.default_rng(6)
    pictures = list(rng.integers(0, 255, (FRAMES, SIDE, SIDE, 3), dtype=np.uint8))
    boxes = [BOX + rng.normal(size=4) * 2 + 0.1 * i for i in range(FRAMES)]
    for lost in (*range(4, 11), *range(100, 112)):
        boxes[lost] = BOX[:0]
    detections = iter(boxes)
    metric = AudioVisualSync(clip(speech), detect=lambda _: next(detections), network=Recorder(0.0))
    held = []
    for i, rgb in enumerate(pictures):
        metric.update(Pair(i, Look(rgb, lambda _: None)))
        held.append(len(metric._pictures))
    metric.finish()
    (track,) = track_faces(boxes)
    places = steady(np.stack(track.boxes))
    crops = np.stack([crop_face(rgb, *place)[..., ::-1] for rgb, place in zip(pictures, places, strict=True)])
    windows = torch.from_numpy(crops.copy()).float().unfold(0, 5, 1).permute(0, 3, 4, 1, 2)
    expected = windows[..., ::16, ::16].flatten(1)
    torch.testing.assert_close(metric._faces[0].features, expected)
    assert max(held[20:100]) == 6
    assert max(held) == 6 + 12
    assert metric._network.largest_batch <= 8


def test_pictures_wait_no_longer_than_a_second_for_a_lost_face(clip, speech) -> None:
    detections = iter([BOX] * 20 + [BOX[:0]] * (FRAMES - 20))
    metric = AudioVisualSync(clip(speech), detect=lambda _: next(detections), network=Recorder(0.0))
    held = []
    for i in range(FRAMES):
        metric.update(Pair(i, Look(bright(0), lambda _: None)))
        held.append(len(metric._pictures))
    assert max(held) == 6 + 25
    assert held[60:] == [0] * (FRAMES - 60)
    assert len(metric._faces[0]._numbers) == 0  # too short to count: nothing of it is kept


def test_of_two_faces_the_last_to_appear_is_measured(clip, speech, encoders) -> None:
    both = np.concatenate([BOX, BOX + (300, 0, 300, 0)])  # the second lies beside the picture: grey
    metric = AudioVisualSync(clip(speech), detect=lambda _: both[::-1], network=encoders)
    figures = run(metric, [bright(level) for level in LEVELS])
    assert figures["av_offset"].value == 0
    assert "2 faces" in figures["av_offset"].reason


def test_real_network_sees_the_clip_window_by_window(clip, speech, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Track, "counts", lambda _: True)
    network = SyncNet().eval().requires_grad_(False)
    pictures = list(np.random.default_rng(7).integers(0, 255, (16, SIDE, SIDE, 3), dtype=np.uint8))
    facts = clip(speech)
    metric = AudioVisualSync(facts, detect=lambda _: BOX, network=network)
    figures = run(metric, pictures)
    places = steady(np.tile(BOX, (16, 1)))
    crops = [crop_face(rgb, *place)[..., ::-1] for rgb, place in zip(pictures, places, strict=True)]
    looks = [torch.from_numpy(np.stack(crops[i : i + 5])).permute(3, 0, 1, 2)[None].float() for i in range(11)]
    lips = torch.cat([network.encode_lips(look) for look in looks])
    sound = encode_sound(network, (speech[: 16 * 640] * 32767).round().astype(np.int16), 11, facts.device)
    expected = measure_sync(lips, sound)
    assert figures["sync_d"].value == pytest.approx(expected.distance, rel=1e-3)
    assert figures["av_conf"].counted == 16


def test_without_sound_face_or_length_it_says_so(clip, speech, encoders, tmp_path: Path) -> None:
    def why(pictures: int, detect: Callable[[np.ndarray], np.ndarray], sound: np.ndarray = speech) -> str:
        with pytest.raises(Unavailable) as error:
            run(AudioVisualSync(clip(sound), detect=detect, network=encoders), [bright(0)] * pictures)
        return str(error.value)

    assert why(0, lambda _: BOX) == "no face found"
    assert why(110, lambda _: BOX[:0]) == "no face found"
    assert "more than 100 frames at 25 fps, the longest track has 100 (of 100 frames)" in why(100, lambda _: BOX)
    assert "more than 100 px, it has 90 px" in why(101, lambda _: BOX - (0, 0, 20, 20))
    assert "there is some for 5" in why(101, lambda _: BOX, speech[: 640 * 6 - 1])
    with pytest.raises(Unavailable, match="needs sound"):
        AudioVisualSync(ClipFacts(25.0, SIDE, SIDE, has_truth=False), detect=lambda _: BOX, network=encoders)
    small = ClipFacts(25.0, 100, SIDE, has_truth=False, picture=clip(speech).picture)
    with pytest.raises(Unavailable, match="at least 128 px, these are 100 x 160"):
        AudioVisualSync(small, detect=lambda _: BOX, network=encoders)


def test_sound_that_ends_early_is_told(clip, speech, encoders) -> None:
    metric = AudioVisualSync(clip(speech[: 80 * 640]), detect=lambda _: BOX, network=encoders)
    figures = run(metric, [bright(level) for level in LEVELS])
    assert (figures["av_offset"].value, figures["av_offset"].counted, figures["av_offset"].excluded) == (0, 80, 45)
    assert "45 of 125 frames lie outside" in figures["av_offset"].reason


def test_missing_weights_and_files_are_named(clip, speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    measured = measure([], clip(speech), [AudioVisualSync])
    assert measured.figures == ()
    assert set(measured.unavailable) == {"av_offset", "av_conf", "sync_c", "sync_d"}
    assert set(measured.unavailable.values()) == {"needs syncnet_v2.model, see scripts/prepare.sh"}
    silent = tmp_path / "no_sound.wav"
    silent.write_bytes(b"RIFF")
    facts = ClipFacts(25.0, SIDE, SIDE, has_truth=False, picture=Side(sound=silent))
    with pytest.raises(Unavailable, match="no_sound"):
        AudioVisualSync(facts, detect=lambda _: BOX, network=LevelEncoders(0.0))


def test_files_of_weights_are_all_it_needs(clip, speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(SyncNet().state_dict(), tmp_path / "syncnet_v2.model")
    torch.save(S3FD().state_dict(), tmp_path / "sfd_face.pth")
    monkeypatch.setenv("GAUSSIAN_HEAD_CHECKPOINTS", str(tmp_path))
    metric = AudioVisualSync(clip(speech))
    with pytest.raises(Unavailable, match="no face found"):  # a network that has learnt nothing is sure of nothing
        run(metric, [bright(0)] * 2)


def test_equal_features_agree_and_shifts_mirror() -> None:
    features = torch.randn(80, 32) * 3
    same = measure_sync(features, features)
    assert same.offset == 0
    assert same.distance == pytest.approx(0, abs=1e-4)
    sound_late, sound_early = measure_sync(features[4:], features[:-4]), measure_sync(features[:-4], features[4:])
    assert (sound_late.offset, sound_early.offset) == (-4, 4)
    assert list(same.shifts) == list(range(-15, 16))
    assert same.curve.argmin() == 15
    np.testing.assert_allclose(same.confidences, same.confidence, atol=1e-3)


def test_bad_features_are_refused() -> None:
    with pytest.raises(ValueError, match="same windows"):
        measure_sync(torch.zeros(4, 8), torch.zeros(5, 8))
    with pytest.raises(ValueError, match="same windows"):
        measure_sync(torch.zeros(0, 8), torch.zeros(0, 8))
    with pytest.raises(ValueError, match="finite"):
        measure_sync(torch.full((4, 8), float("nan")), torch.zeros(4, 8))
