"""What the built-in network hears, and how a portrait acts on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data_utils.synthetic.utterances import UtteranceOptions, make_utterances, utter
from gaussian_head.driving.silence import loudness
from gaussian_head.errors import UserError
from gaussian_head.media.mel import loud_level
from gaussian_head.oneshot.mesh.acting import Actor, Manner
from gaussian_head.oneshot.mesh.mouth_shapes import FIELDS, SHIPPED, MouthShapes
from gaussian_head.oneshot.mesh.pretrain import HEAD_CM, MouthShapesOptions, correlations, load_utterances, pretrain
from gaussian_head.oneshot.mesh.renderer import FacePose

SECONDS = 6.0


@pytest.fixture(scope="module")
def spoken() -> tuple[np.ndarray, np.ndarray]:
    """A voice and a room that the shipped network never heard."""
    speech, shapes = utter(SECONDS, np.random.default_rng(90_210))
    shapes[:, :2] /= HEAD_CM
    return speech.astype(np.float32), shapes


@pytest.fixture(scope="module")
def shipped() -> MouthShapes:
    return MouthShapes.load()


def apertures(poses: list[FacePose]) -> np.ndarray:
    return np.array([pose.aperture for pose in poses])


def test_an_utterance_is_reproducible(spoken: tuple[np.ndarray, np.ndarray]) -> None:
    again, shapes = utter(SECONDS, np.random.default_rng(90_210))
    np.testing.assert_array_equal(again, spoken[0])
    assert shapes.shape == (round(25 * SECONDS), len(FIELDS))
    other, _ = utter(SECONDS, np.random.default_rng(1))
    assert not np.array_equal(other, again)


def test_the_shipped_network_hears_new_voices(spoken: tuple[np.ndarray, np.ndarray], shipped: MouthShapes) -> None:
    speech, shapes = spoken
    heard = np.concatenate(list(shipped.hear(speech, loud_level(speech))))
    assert heard.shape == shapes.shape
    for name in ("aperture", "jaw", "width", "protrusion"):
        k = FIELDS.index(name)
        assert np.corrcoef(heard[:, k], shapes[:, k])[0, 1] > 0.9, name
    assert heard[:, 0].std() > 0.6 * shapes[:, 0].std()


def test_the_manifest_tells_of_the_shipped_file() -> None:
    import hashlib

    told = json.loads(SHIPPED.with_suffix(".json").read_text())
    assert told["sha256"] == hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    assert "procedural" in told["data"]
    assert SHIPPED.stat().st_size < 2e6
    assert MouthShapes.load().made["utterances"] == told["utterances"]


def test_blocks_change_nothing(spoken: tuple[np.ndarray, np.ndarray], shipped: MouthShapes) -> None:
    speech = spoken[0][: 2 * 16_000]
    whole = np.concatenate(list(shipped.hear(speech, -20.0, block=len(speech))))
    pieces = np.concatenate(list(shipped.hear(speech, -20.0, block=1700)))
    np.testing.assert_allclose(pieces, whole, atol=1e-5)


def test_the_mouth_follows_the_voice_and_shuts_in_silence(
    spoken: tuple[np.ndarray, np.ndarray], shipped: MouthShapes
) -> None:
    quiet = np.zeros(16_000, np.float32)
    speech = np.concatenate([quiet, spoken[0], quiet])
    opening = apertures(list(Actor(shipped).act(speech)))
    assert len(opening) == round(25 * (SECONDS + 2))
    assert opening[:20].max() < 1e-3
    assert opening[-18:].max() < 1e-3
    assert opening.max() > 0.04
    assert np.corrcoef(opening, loudness(speech, len(opening)))[0, 1] > 0.5


def test_loudness_of_the_recording_does_not_matter(spoken: tuple[np.ndarray, np.ndarray], shipped: MouthShapes) -> None:
    near, far = (apertures(list(Actor(shipped).act(spoken[0][:48_000] * gain))) for gain in (1.0, 0.2))
    assert np.corrcoef(near, far)[0, 1] > 0.97
    np.testing.assert_allclose(near.mean(), far.mean(), rtol=0.1)


def test_the_seed_decides_the_motion_and_nothing_else(
    spoken: tuple[np.ndarray, np.ndarray], shipped: MouthShapes
) -> None:
    first, again, other = (list(Actor(shipped, Manner(seed=s)).act(spoken[0][:48_000])) for s in (3, 3, 4))
    assert first == again
    assert [p.angles for p in first] != [p.angles for p in other]
    np.testing.assert_array_equal(apertures(first), apertures(other))


def test_the_head_sets_out_from_the_portrait_and_moves_slowly(shipped: MouthShapes) -> None:
    poses = list(Actor(shipped, Manner(seed=1)).act(np.zeros(30 * 16_000, np.float32)))
    angles = np.degrees([pose.angles for pose in poses])
    assert np.abs(angles[0]).max() == 0
    assert 1.0 < np.abs(angles).max() < 8.0
    assert np.abs(np.diff(angles, axis=0)).max() < 0.4  # 10 degrees a second
    assert apertures(poses).max() == 0
    blinks = np.array([pose.blink for pose in poses])
    assert blinks.max() == 1
    assert 0 < np.count_nonzero(np.diff((blinks > 0.5).astype(int)) == 1) < 20


def test_a_still_head_that_never_blinks(shipped: MouthShapes) -> None:
    still = Manner(motion=0, blink_rate=0)
    assert set(Actor(shipped, still).act(np.zeros(5 * 16_000, np.float32))) == {FacePose()}


def test_no_sound_is_no_frame(shipped: MouthShapes) -> None:
    assert list(Actor(shipped).act(np.zeros(0, np.float32))) == []
    assert len(list(Actor(shipped).act(np.zeros(10, np.float32)))) == 1


def test_pretraining_learns_and_says_how(tmp_path: Path) -> None:
    data, out = tmp_path / "utterances", tmp_path / "shapes.safetensors"
    make_utterances(UtteranceOptions(data, count=2, seconds=6.0, seed=5))
    options = MouthShapesOptions(data, out, steps=40, batch=8, channels=8, members=1)
    pretrain(options)
    loaded = MouthShapes.load(out)
    found = correlations(loaded, load_utterances(data)[:1])
    assert found["aperture"] > 0.5
    told = json.loads(out.with_suffix(".json").read_text())
    assert told["utterances"]["count"] == 2
    assert told["held_out_correlation"].keys() == set(FIELDS)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="pretrain"):
        MouthShapes.load(tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no tensors")
    with pytest.raises(UserError, match="damaged"):
        MouthShapes.load(broken)
    with pytest.raises(FileNotFoundError, match="data_utils.synthetic.utterances"):
        load_utterances(tmp_path)
