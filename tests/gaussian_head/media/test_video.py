"""Video in and out: time, colour, sound, rotation, damage."""

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from gaussian_head.errors import UserError
from gaussian_head.media.audio import load_audio, write_wav
from gaussian_head.media.video import (
    VideoWriter,
    add_sound,
    probe_video,
    read_frames,
    read_frames_at,
    read_frames_backwards,
    resampled_frame_count,
    sample_frames,
)


def numbered(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A picture that tells its number in eight black or white columns."""
    bits = (number >> np.arange(8)) & 1
    return np.repeat(np.broadcast_to(np.repeat(bits * 255, width // 8), (height, width))[..., None], 3, -1).astype(
        np.uint8
    )


def number_of(rgb: np.ndarray) -> int:
    columns = rgb[rgb.shape[0] // 2, rgb.shape[1] // 16 :: rgb.shape[1] // 8, 0] > 127
    return int((columns[:8] << np.arange(8)).sum())


def write_numbered(path: Path, fps: float, frames: int, **options: object) -> Path:
    with VideoWriter(path, fps, 64, 48, **options) as writer:
        for number in range(frames):
            writer.write(numbered(number))
    return path


@pytest.mark.parametrize("fps", [25, 30, 30_000 / 1001, 24_000 / 1001, 50, 12])
def test_resampling_by_time_does_not_drift(tmp_path: Path, fps: float) -> None:
    frames = 240
    path = write_numbered(tmp_path / "x.mp4", fps, frames)
    numbers = np.array([number_of(rgb) for rgb in read_frames_at(path, 25)])
    assert len(numbers) == resampled_frame_count(path, 25)
    assert abs(len(numbers) - frames / fps * 25) <= 1
    shown_s, wanted_s = numbers / fps, np.arange(len(numbers)) / 25
    assert np.abs(shown_s - wanted_s).max() <= 0.5 / fps + 1e-3 or numbers[-1] == frames - 1
    assert np.abs(shown_s - wanted_s)[:-1].max() <= 0.5 / fps + 1e-3


def test_fps_survives(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "x.mp4", 30_000 / 1001, 30)
    info = probe_video(path)
    assert Fraction(info.fps).limit_denominator(2000) == Fraction(30_000, 1001)
    assert (info.width, info.height, info.frames, info.has_audio) == (64, 48, 30, False)


def test_colours_survive(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(20, 236, (20, 3), dtype=np.uint8)
    with VideoWriter(tmp_path / "x.mp4", 25, 32, 32) as writer:
        for colour in colours:
            writer.write(np.broadcast_to(colour, (32, 32, 3)))
    read = np.array([rgb.reshape(-1, 3).mean(0) for _, rgb in read_frames(tmp_path / "x.mp4")])
    assert np.abs(read - colours).max() < 4
    assert np.abs((read - colours).mean(0)).max() < 0.7  # no systematic shift


def test_odd_sizes_are_padded(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "x.mp4", 25, 33, 31) as writer:
        writer.write(np.full((31, 33, 3), 200, np.uint8))
    (_, rgb), *_ = read_frames(tmp_path / "x.mp4")
    assert rgb.shape == (32, 34, 3)
    assert np.abs(rgb.astype(int) - 200).max() < 4


def test_sound_is_muxed_in_time(tmp_path: Path) -> None:
    speech = np.zeros(3 * 16_000, np.float32)
    speech[24_000:25_600] = np.sin(np.arange(1600) * 0.3) * 0.5  # a beep at 1.5 s
    write_wav(tmp_path / "beep.wav", speech, 16_000)
    path = write_numbered(tmp_path / "x.mp4", 25, 50, audio=tmp_path / "beep.wav", audio_start_s=0.5)
    heard = load_audio(path)
    assert probe_video(path).has_audio
    assert abs(len(heard) - 32_000) < 2500
    loud = np.flatnonzero(np.abs(heard) > 0.2)
    assert abs(loud[0] - 16_000) < 200
    assert abs(loud[-1] - 17_600) < 200


def test_writer_failing_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "x.mp4", 25, 5)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"must be \(48, 64, 3\) uint8"), VideoWriter(path, 25, 64, 48) as writer:
        writer.write(np.zeros((5, 5, 3), np.uint8))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_rotation_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    with VideoWriter(path, 25, 64, 48) as writer:
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[:24, :32] = 255  # bright top left
        for _ in range(5):
            writer.write(picture)
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 4 + 20 + 16  # version, times and ids, layer to volume
    clockwise = (0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30)
    struct.pack_into(">9i", content, matrix, *clockwise)
    path.write_bytes(content)
    (_, rgb), *_ = read_frames(path)
    assert rgb.shape == (64, 48, 3)
    assert rgb[8, 40].min() > 200  # bright top right
    assert rgb[56, 8].max() < 50
    assert (probe_video(path).width, probe_video(path).height) == (48, 64)


def test_sample_frames_spreads(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "x.mp4", 25, 100)
    numbers = [number_of(rgb) for rgb in sample_frames(path, 5)]
    assert numbers == [10, 30, 50, 70, 90]


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.mp4 does not exist"):
        probe_video(tmp_path / "none.mp4")
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(UserError, match=r"empty\.mp4 is empty"):
        probe_video(tmp_path / "empty.mp4")
    (tmp_path / "text.mp4").write_text("no video " * 100)
    with pytest.raises(UserError, match=r"text\.mp4 is not a readable media file"):
        probe_video(tmp_path / "text.mp4")
    write_wav(tmp_path / "sound.wav", np.zeros(16_000), 16_000)
    with pytest.raises(UserError, match="not a video"):
        probe_video(tmp_path / "sound.wav")


def test_truncated_video_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    noise = np.random.default_rng(0)
    with VideoWriter(path, 25, 64, 48) as writer:
        for _ in range(60):
            writer.write(noise.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    with pytest.raises(UserError, match="truncated"):
        resampled_frame_count(path, 25)
    with pytest.raises(UserError, match="truncated"):
        list(read_frames(path))


def test_sound_is_in_time_to_the_end_of_a_long_clip(tmp_path: Path) -> None:
    click = int(59.5 * 44_100)
    sound = np.zeros(60 * 44_100, np.float32)
    sound[click : click + 441] = 0.8
    write_wav(tmp_path / "clicks.wav", sound, 44_100)
    with VideoWriter(tmp_path / "long.mp4", 25, 16, 16, audio=tmp_path / "clicks.wav") as writer:
        for _ in range(1500):
            writer.write(np.zeros((16, 16, 3), np.uint8))
    heard = load_audio(tmp_path / "long.mp4", 16_000)
    assert np.argmax(np.abs(heard) > 0.3) / 16_000 == pytest.approx(59.5, abs=0.01)
    assert len(heard) / 16_000 == pytest.approx(60, abs=0.04)


def test_another_sound_leaves_the_pictures_as_they_are_coded(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "x.mp4", 30, 45)
    sound = np.zeros(3 * 16_000, np.float32)  # longer than the picture
    sound[16_000:16_160] = 0.8
    write_wav(tmp_path / "click.wav", sound, 16_000)
    add_sound(path, tmp_path / "click.wav", tmp_path / "out/y.mp4")
    pairs = zip(read_frames(path), read_frames(tmp_path / "out/y.mp4"), strict=True)
    assert all(a[0] == b[0] and np.array_equal(a[1], b[1]) for a, b in pairs)
    heard = load_audio(tmp_path / "out/y.mp4", 16_000)
    assert np.argmax(np.abs(heard) > 0.3) / 16_000 == pytest.approx(1, abs=0.01)
    assert len(heard) / 16_000 == pytest.approx(1.5, abs=0.04)
    with pytest.raises(UserError, match="no sound"):
        add_sound(path, path, tmp_path / "out/y.mp4")
    assert [item.name for item in (tmp_path / "out").iterdir()] == ["y.mp4"]


def write_with_key_frames(path: Path, fps: int, frames: int, every: int) -> Path:
    """An H.264 video that can be entered at each `every`-th frame, with frames in between that look both ways."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"crf": "4", "g": str(every), "bf": "2", "sc_threshold": "0"}
        for number in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(number), format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("every", [7, 250])
@pytest.mark.parametrize("fps", [30, 25, 47])
def test_reading_from_the_middle_and_backwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, fps: int
) -> None:
    path = write_with_key_frames(tmp_path / "v.mp4", 30, 50, every)
    whole = [number_of(rgb) for rgb in read_frames_at(path, fps)]
    assert len(whole) == resampled_frame_count(path, fps)
    assert sorted(whole) == whole
    for first in (0, 1, 6, 13, 29, len(whole) - 1):
        assert [number_of(rgb) for rgb in read_frames_at(path, fps, first)] == whole[first:]
    assert next(read_frames_at(path, fps, len(whole)), None) is None
    monkeypatch.setattr("gaussian_head.media.video.BACKWARDS_BYTES", 9 * 64 * 48 * 3)
    for last in (len(whole) - 1, 17, 0):
        assert [number_of(rgb) for rgb in read_frames_backwards(path, fps, last)] == whole[last::-1]
