"""Clips on disk: what is read, what is refused, and which true frame belongs to which frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gaussian_head.errors import UserError
from gaussian_head.evaluation.clip import align, open_clip
from gaussian_head.evaluation.side import read_side, take_frames
from gaussian_head.media.audio import write_wav
from gaussian_head.media.image import write_jpeg, write_png
from gaussian_head.media.video import VideoWriter


def numbered(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A picture that tells its number in eight black or white columns."""
    bits = np.repeat(((number >> np.arange(8)) & 1) * 255, width // 8).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(bits[None, :, None], (height, len(bits), 3)))


def number_of(rgb: np.ndarray) -> int:
    columns = rgb[rgb.shape[0] // 2, rgb.shape[1] // 16 :: rgb.shape[1] // 8, 0] > 127
    return int((columns[:8] << np.arange(8)).sum())


def video(path: Path, frames: int, fps: float = 25, size: tuple[int, int] = (64, 48), **options: object) -> Path:
    with VideoWriter(path, fps, *size, **options) as writer:
        for number in range(frames):
            writer.write(numbered(number, *size))
    return path


def folder(path: Path, frames: int, size: tuple[int, int] = (64, 48)) -> Path:
    for number in range(frames):
        write_png(path / f"{number}.png", numbered(number, *size))
    return path


def test_a_video_is_seen_whole(tmp_path: Path) -> None:
    clip = open_clip(video(tmp_path / "x.mp4", 12, 30))
    assert (clip.kind, clip.width, clip.height, clip.fps, clip.frames, clip.sound) == ("video", 64, 48, 30, 12, None)
    assert [number_of(rgb) for rgb in clip.pictures()] == list(range(12))


def test_a_folder_is_lossless_and_in_natural_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (12, 31, 33, 3), dtype=np.uint8)  # odd sizes
    for number, frame in enumerate(frames):
        write_png(tmp_path / "talk" / f"frame_{number}.png", frame)
    clip = open_clip(tmp_path / "talk", fps=30)
    assert (clip.kind, clip.width, clip.height, clip.fps, clip.frames) == ("folder", 33, 31, 30, 12)
    assert np.array_equal(list(clip.pictures()), frames)
    assert open_clip(tmp_path / "talk").fps == 25


def test_a_grey_folder_becomes_rgb(tmp_path: Path) -> None:
    write_png(tmp_path / "grey" / "0.png", np.full((8, 8), 77, np.uint8))
    (picture,) = open_clip(tmp_path / "grey").pictures()
    assert picture.shape == (8, 8, 3)
    assert (picture == 77).all()


def test_a_grey_video_of_odd_size_becomes_rgb(tmp_path: Path) -> None:
    import av

    path = tmp_path / "grey.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 33, 31, "gray"
        for value in (10, 200):
            frame = av.VideoFrame.from_ndarray(np.full((31, 33), value, np.uint8), format="gray")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    clip = open_clip(path)
    dark, bright = clip.pictures()
    assert dark.shape == (31, 33, 3)
    assert clip.frames == 2
    assert np.ptp(bright.reshape(-1, 3), axis=1).max() == 0
    assert bright.mean() > dark.mean() + 150


def test_sound_is_found(tmp_path: Path) -> None:
    wav = tmp_path / "tone.wav"
    write_wav(wav, np.sin(np.arange(16_000) / 10).astype(np.float32), 16_000)
    loud = video(tmp_path / "loud.mp4", 5, audio=wav)
    assert open_clip(loud).sound == loud
    silent = open_clip(video(tmp_path / "silent.mp4", 5))
    assert silent.sound is None
    assert read_side(silent).sound is None
    assert read_side(silent, sound=wav).sound == wav
    write_wav(tmp_path / "silent.wav", np.zeros(100, np.float32), 16_000)
    assert open_clip(tmp_path / "silent.mp4").sound == tmp_path / "silent.wav"
    frames = folder(tmp_path / "frames", 2)
    assert open_clip(frames).sound is None
    write_wav(frames / "any.wav", np.zeros(100, np.float32), 16_000)
    assert open_clip(frames).sound == frames / "any.wav"
    write_wav(tmp_path / "frames.wav", np.zeros(100, np.float32), 16_000)
    assert open_clip(frames).sound == tmp_path / "frames.wav"
    with pytest.raises(FileNotFoundError, match=r"gone\.wav"):
        read_side(silent, sound=tmp_path / "gone.wav")


def test_two_sounds_in_a_folder_are_refused(tmp_path: Path) -> None:
    frames = folder(tmp_path / "frames", 2)
    for name in "ab":
        write_wav(frames / f"{name}.wav", np.zeros(100, np.float32), 16_000)
    with pytest.raises(UserError, match=r"2 \.wav files"):
        open_clip(frames)


def test_what_is_no_clip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        open_clip(tmp_path / "gone.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no .png or .jpg frames"):
        open_clip(tmp_path / "empty")
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(UserError, match="0 bytes"):
        open_clip(tmp_path / "empty.mp4")
    both = folder(tmp_path / "both", 2)
    write_jpeg(both / "2.jpg", numbered(2))
    with pytest.raises(UserError, match=r"\.jpg and \.png"):
        open_clip(both)
    with pytest.raises(UserError, match="--fps"):
        open_clip(folder(tmp_path / "frames", 2), fps=0.0)


def test_mixed_sizes_and_damaged_frames_are_named(tmp_path: Path) -> None:
    mixed = folder(tmp_path / "mixed", 3)
    write_png(mixed / "3.png", numbered(3, 32, 48))
    with pytest.raises(UserError, match=r"3\.png is 32x48 px, the frames before it 64x48"):
        list(open_clip(mixed).pictures())
    (mixed / "3.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"3\.png is not a readable picture"):
        list(open_clip(mixed).pictures())


def test_a_truncated_video_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    rng = np.random.default_rng(0)
    with VideoWriter(path, 25, 64, 48) as writer:
        for _ in range(60):
            writer.write(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="truncated"):
        list(open_clip(path).pictures())


def test_a_frame_that_cannot_be_decoded_is_no_shorter_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = open_clip(video(tmp_path / "x.mp4", 6))
    whole = list(clip.pictures())
    monkeypatch.setattr("gaussian_head.evaluation.clip.read_frames_by_default", lambda _: iter(whole[:4]))
    with pytest.raises(UserError, match="6 frames and 4 could be decoded"):
        list(clip.pictures())
    with pytest.raises(UserError, match="6 frames and 4 could be decoded"):
        list(align(clip, clip).pairs())


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    clip = open_clip(video(tmp_path / "x.mp4", 150, size=(512, 512)))
    pages = []
    for index, _ in enumerate(align(clip, clip).pairs()):
        if index >= 30:  # by then the decoders have their buffers
            pages.append(int(Path("/proc/self/statm").read_text().split()[1]))
    held = (max(pages) - pages[0]) * 4096
    assert len(pages) == 120
    assert held < 120 * 2 * clip.width * clip.height * 3 / 8  # an eighth of what these frames take


def test_alone_and_equal(tmp_path: Path) -> None:
    clip = open_clip(video(tmp_path / "x.mp4", 5))
    alone = align(clip, None)
    assert [truth for _, truth in alone.pairs()] == [None] * 5
    assert alone.compared["truth"] is None
    both = align(clip, clip)
    assert all(np.array_equal(*pair) for pair in both.pairs())
    assert both.compared["compared_frames"] == 5
    assert both.compared["changes"] == []
    assert both.compared["decoder"].startswith("PyAV ")
    assert both.compared["picture"] == {
        "path": "x.mp4", "kind": "video", "frames": 5, "fps": 25.0, "size_px": [64, 48], "sound": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("frames", "fps", "size", "told"),
    [
        (7, 25, (64, 48), ["10 frames", "7 frames", "--align shortest"]),
        (10, 30, (64, 48), ["25 frames/s", "30 frames/s", "--align resample"]),
        (10, 25, (32, 48), ["64x48 px", "32x48 px", "--align resample"]),
        (7, 30, (32, 48), ["10 frames, 64x48 px, 25 frames/s", "7 frames, 32x48 px, 30 frames/s"]),
    ],
)
def test_a_mismatch_is_an_error_that_tells_both(
    tmp_path: Path, frames: int, fps: int, size: tuple[int, int], told: list[str]
) -> None:
    picture = open_clip(folder(tmp_path / "p", 10), 25)
    truth = open_clip(folder(tmp_path / "g", frames, size), fps)
    with pytest.raises(UserError) as caught:
        align(picture, truth)
    assert all(part in str(caught.value) for part in told)
    if told[-1] != "--align shortest":
        with pytest.raises(UserError):
            align(picture, truth, "shortest")


def test_29_97_is_not_30(tmp_path: Path) -> None:
    ours, theirs = (open_clip(video(tmp_path / f"{fps}.mp4", 5, fps)) for fps in (30, 30_000 / 1001))
    with pytest.raises(UserError, match=r"30 frames/s but .* 29\.97 frames/s"):
        align(ours, theirs)


@pytest.mark.parametrize(("ours", "theirs"), [(10, 7), (7, 10)])
def test_shortest_cuts_the_longer(tmp_path: Path, ours: int, theirs: int) -> None:
    picture, truth = open_clip(folder(tmp_path / "p", ours)), open_clip(folder(tmp_path / "g", theirs))
    aligned = align(picture, truth, "shortest")
    assert [(number_of(p), number_of(g)) for p, g in aligned.pairs()] == [(i, i) for i in range(7)]
    cut = "picture" if ours == 10 else "truth"
    assert aligned.compared["changes"] == [f"{cut} cut from 10 to 7 frames"]


@pytest.mark.parametrize(("fps", "true_fps"), [(25, 30), (30, 25), (25, 50), (25, 25), (12, 30)])
def test_resampling_takes_the_nearest_moment(tmp_path: Path, fps: int, true_fps: int) -> None:
    picture = open_clip(folder(tmp_path / "p", 2 * fps), fps)
    truth = open_clip(folder(tmp_path / "g", 2 * true_fps, (32, 24)), true_fps)
    aligned = align(picture, truth, "resample")
    seen = [(number_of(p), number_of(g), g.shape) for p, g in aligned.pairs()]
    assert len(seen) == 2 * fps
    for ours, theirs, shape in seen:
        assert shape == (48, 64, 3)
        assert abs(ours / fps - theirs / true_fps) <= 0.5 / true_fps + 1e-9 or theirs == 2 * true_fps - 1
    assert "truth resized from 32x24 to 64x48 px (cubic)" in aligned.compared["changes"]
    assert any("resampled" in change for change in aligned.compared["changes"]) == (fps != true_fps)


def test_resampling_stops_where_the_truth_ends(tmp_path: Path) -> None:
    picture, truth = open_clip(folder(tmp_path / "p", 20), 10), open_clip(folder(tmp_path / "g", 15), 30)
    aligned = align(picture, truth, "resample")
    assert [number_of(g) for _, g in aligned.pairs()] == [0, 3, 6, 9, 12]
    assert "picture cut from 20 to 5 frames" in aligned.compared["changes"]


def test_resampling_at_one_rate_only_cuts(tmp_path: Path) -> None:
    picture, truth = open_clip(folder(tmp_path / "p", 4)), open_clip(folder(tmp_path / "g", 6))
    aligned = align(picture, truth, "resample")
    assert [number_of(g) for _, g in aligned.pairs()] == [0, 1, 2, 3]
    assert aligned.compared["changes"] == ["truth cut from 6 to 4 frames"]


OPENFACE = "frame, timestamp," + ",".join(
    f" AU{unit:02d}_r" for unit in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)
)


def test_companions_are_read(tmp_path: Path) -> None:
    from scipy.io import savemat

    rng = np.random.default_rng(0)
    coefficients, units = rng.normal(size=(4, 257)).astype(np.float32), rng.uniform(0, 5, (4, 17)).round(3)
    rows = [",".join(map(str, [i + 1, i / 25, *row])) for i, row in enumerate(units)]
    clip = open_clip(video(tmp_path / "id.speaker.mp4", 4))
    assert read_side(clip).coefficients is read_side(clip).action_units is read_side(clip).transcript is None
    (tmp_path / "id.speaker.au.csv").write_text("\n".join([OPENFACE, *rows]))
    (tmp_path / "id.speaker.txt").write_text("Well, hello.\n")
    np.save(tmp_path / "id.speaker.coeffs.npy", coefficients)
    side = read_side(clip)
    assert np.array_equal(side.coefficients, coefficients)
    assert np.array_equal(side.action_units, units)
    assert side.transcript == "Well, hello."
    cut = take_frames(side, np.array([0, 0, 3]))
    assert np.array_equal(cut.coefficients, coefficients[[0, 0, 3]])
    assert np.array_equal(cut.action_units, units[[0, 0, 3]])
    assert cut.transcript == side.transcript
    savemat(tmp_path / "id.speaker.mat", {"coeff_3dmm": coefficients, "transform_params": np.ones((4, 5))})
    with pytest.raises(UserError, match="leave one"):
        read_side(clip)
    (tmp_path / "id.speaker.coeffs.npy").unlink()
    assert np.array_equal(read_side(clip).coefficients, coefficients)
    frames = open_clip(folder(tmp_path / "id.speaker", 4))
    assert np.array_equal(read_side(frames).coefficients, coefficients)


def with_nan() -> np.ndarray:
    values = np.zeros((4, 257), np.float32)
    values[2, 5] = np.nan
    return values


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.zeros((3, 257), np.float32), r"has 3 rows but .*x\.mp4 has 4 frames"),
        (np.zeros((4, 73), np.float32), "one row of 257 numbers a frame .* got 4x73"),
        (np.zeros(257, np.float32), "got 257 of float32"),
        (with_nan(), r"frame 2 \(of 1 such\)"),
        (np.full((4, 257), "x"), "of <U1"),
    ],
)
def test_wrong_coefficients_are_refused(tmp_path: Path, values: np.ndarray, told: str) -> None:
    clip = open_clip(video(tmp_path / "x.mp4", 4))
    np.save(tmp_path / "x.coeffs.npy", values)
    with pytest.raises(UserError, match=told):
        read_side(clip)


def test_wrong_companions_are_refused(tmp_path: Path) -> None:
    from scipy.io import savemat

    clip = open_clip(video(tmp_path / "x.mp4", 2))
    savemat(tmp_path / "x.mat", {"id": np.zeros((2, 80))})
    with pytest.raises(UserError, match="must hold coeff or coeff_3dmm; it holds id"):
        read_side(clip)
    (tmp_path / "x.mat").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match=r"no readable \.mat"):
        read_side(clip)
    (tmp_path / "x.mat").unlink()
    np.save(tmp_path / "x.coeffs.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"no readable \.npy"):
        read_side(clip)
    (tmp_path / "x.coeffs.npy").unlink()
    (tmp_path / "x.au.csv").write_text(OPENFACE.replace(", AU45_r", "").replace(", AU01_r", "") + "\n1,0\n")
    with pytest.raises(UserError, match="lacks the columns AU01_r, AU45_r"):
        read_side(clip)
    (tmp_path / "x.au.csv").write_text(f"{OPENFACE}\n{','.join(['1'] * 19)}\n{','.join(['1'] * 18)},nan\n")
    assert np.isnan(read_side(clip).action_units).sum() == 1
    (tmp_path / "x.au.csv").write_text(f"{OPENFACE}\n{','.join(['1'] * 19)}\n")
    with pytest.raises(UserError, match=r"has 1 rows but .*x\.mp4 has 2 frames"):
        read_side(clip)
    (tmp_path / "x.au.csv").write_text("")
    with pytest.raises(UserError, match="has 0 rows"):
        read_side(clip)
    (tmp_path / "x.au.csv").unlink()
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UserError, match="UTF-8"):
        read_side(clip)
