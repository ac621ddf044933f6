"""Sets of clips: which clips there are, several processes, what is kept, what the tables say."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import os
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from gaussian_head.errors import UserError
from gaussian_head.evaluation import measure_clip as measure_clip_module
from gaussian_head.evaluation import sets
from gaussian_head.evaluation.annotations import list_clips
from gaussian_head.evaluation.measure_clip import MeasuredClip, find_regions, measure_clip
from gaussian_head.evaluation.metric import ClipFacts, Entry, Figure, FrameMetric, Metric, Pair, Unavailable
from gaussian_head.evaluation.protocols import PROTOCOLS, Protocol, vico_ranking
from gaussian_head.evaluation.set_figures import average_row, set_tables
from gaussian_head.evaluation.sets import measure_set, require_whole
from gaussian_head.geometry.landmarks import FACE_OVAL, OUTER_LIPS
from gaussian_head.media.audio import write_wav
from gaussian_head.media.image import write_png

TRUTH = frozenset({"truth"})


class Brightness(FrameMetric):
    entries = (Entry("brightness", "brightness", "", "neither", frozenset(), "this test"),)
    regions = ("full", "head", "mouth")

    def measure(self, pair: Pair) -> dict[tuple[str, str], float | None]:
        rgb = pair.picture.rgb
        values = {("brightness", name): rgb[region.mask].mean() for name, region in pair.regions.items()}
        return values | {("brightness", "full"): rgb.mean()}


class Darker(FrameMetric):
    entries = (Entry("darker", "darker", "", "lower", TRUTH, "this test"),)

    def measure(self, pair: Pair) -> dict[tuple[str, str], float | None]:
        return {("darker", "full"): pair.truth.rgb.mean() - pair.picture.rgb.mean()}


class Pooled(Metric):
    """A vector a clip: one clip alone has no distance, several together have."""

    entries = (Entry("pooled", "pooled", "", "lower", TRUTH, "this test"),)

    def __init__(self, clip: ClipFacts) -> None:
        super().__init__(clip)
        self.rows: list[tuple[float, float]] = []

    def update(self, pair: Pair) -> None:
        self.rows.append((pair.picture.rgb.mean(), pair.truth.rgb.mean()))

    def finish(self) -> list[Figure]:
        return [Figure("pooled", "full", None, 1, reason="one clip is too little")]

    def features(self) -> dict[str, np.ndarray]:
        ours, theirs = np.mean(self.rows, 0)
        return {"pooled.picture": np.full((1, 3), ours), "pooled.truth": np.full((1, 3), theirs)}


class Smile(FrameMetric):
    entries = (Entry("smile", "smile", "", "higher", frozenset({"landmarks"}), "this test"),)

    def measure(self, pair: Pair) -> dict[tuple[str, str], float | None]:
        return {("smile", "full"): None if pair.picture.mesh is None else 1.0}


class Locked(Metric):
    entries = (Entry("locked", "locked", "", "lower", frozenset({"weights"}), "this test"),)

    def __init__(self, clip: ClipFacts) -> None:
        raise Unavailable("needs key.pth, see scripts/prepare.sh")

    def update(self, pair: Pair) -> None:
        raise AssertionError

    def finish(self) -> list[Figure]:
        raise AssertionError


METRICS = (Brightness, Darker, Pooled, Smile, Locked)
NAMES = tuple(entry.name for metric in METRICS for entry in metric.entries)
SELF = Protocol("self", "a test", {"video": NAMES}, uses_truth=True, averaging="frames", source="this test")
CROSS = dataclasses.replace(SELF, name="cross", uses_truth=False, averaging="videos")
VICO = dataclasses.replace(SELF, name="vico", tasks={"speaker": NAMES, "listener": ("brightness",)})


def small_measure(*arguments: object, **options: object) -> MeasuredClip:
    """Measure by this file's metrics; dies, or kills its process, where a file beside the clip says so."""
    picture = arguments[0]
    if (picture.parent / f"{picture.name}.kill").exists():
        os._exit(3)
    with mock.patch.object(measure_clip_module, "FaceMeshDetector", no_detector):  # loading it takes seconds
        return measure_clip(*arguments, **options, metrics=METRICS)


def no_detector(views: object) -> None:
    raise UserError("mediapipe is needed to find faces; install it")


def clip(path: Path, *levels: int, size: int = 8) -> Path:
    """A folder of flat frames; a flat picture's mean is its level."""
    for index, level in enumerate(levels):
        write_png(path / f"{index}.png", np.full((size, size, 3), level, np.uint8))
    return path


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three clips of different lengths, each 10 darker than its truth."""
    for name, levels in {"a": (50,), "b": (100, 120), "c": (200, 200, 200)}.items():
        clip(tmp_path / "pred" / name, *levels)
        clip(tmp_path / "gt" / name, *(level + 10 for level in levels))
    return tmp_path / "pred", tmp_path / "gt"


def table(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(rows) + "\n")
    return path


# --- one clip


def test_a_clip_is_measured(folders: tuple[Path, Path]) -> None:
    result = measure_clip(folders[0] / "b", folders[1] / "b", metrics=METRICS)
    values = {(f.entry, f.region): f for f in result.figures}
    assert values["brightness", "full"].value == 110
    assert values["brightness", "full"].trace == (100, 120)
    assert values["brightness", "head"].value is None
    assert values["brightness", "head"].excluded == 2
    assert values["darker", "full"].value == 10
    assert values["smile", "full"].reason == "no face found"
    assert result.unavailable == {"locked": "needs key.pth, see scripts/prepare.sh"}
    assert result.compared["compared_frames"] == 2
    assert set(result.features) == {"pooled.picture", "pooled.truth"}


def test_only_what_is_wanted(folders: tuple[Path, Path]) -> None:
    result = measure_clip(folders[0] / "b", None, entries=("brightness", "darker", "psrn"), metrics=METRICS)
    assert {figure.entry for figure in result.figures} == {"brightness"}
    assert result.unavailable["darker"].startswith("needs ground truth")
    assert result.unavailable["psrn"] == "no metric of this name is registered"


def test_without_mediapipe_it_says_so(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_clip_module, "FaceMeshDetector", no_detector)
    result = measure_clip(folders[0] / "b", folders[1] / "b", metrics=METRICS)
    assert "mediapipe is needed" in result.unavailable["smile"]
    values = {(f.entry, f.region): f for f in result.figures}
    assert values["brightness", "full"].value == 110
    assert "mediapipe is needed" in values["brightness", "mouth"].reason


def test_lengths_that_differ_are_an_error_or_cut(folders: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match="2 frames but .* 3 frames"):
        measure_clip(folders[0] / "b", folders[1] / "c", metrics=METRICS)
    result = measure_clip(folders[0] / "b", folders[1] / "c", "shortest", ("darker",), metrics=METRICS)
    assert result.figures[0].trace == (110, 90)


def square_mesh() -> np.ndarray:
    """A round face of radius 20 about (40, 50) with lips between 36 and 44, 58 and 62."""
    mesh = np.zeros((478, 3))
    angles = np.linspace(0, 2 * np.pi, len(FACE_OVAL), endpoint=False)
    mesh[FACE_OVAL, :2] = np.stack([40 + 20 * np.cos(angles), 50 + 20 * np.sin(angles)], 1)
    angles = np.linspace(0, 2 * np.pi, len(OUTER_LIPS), endpoint=False)
    mesh[OUTER_LIPS, :2] = np.stack([40 + 4 * np.cos(angles), 60 + 2 * np.sin(angles)], 1)
    return mesh


def test_regions() -> None:
    regions = find_regions(square_mesh(), 100, 90)
    assert regions["head"].mask.shape == (90, 100)
    assert regions["head"].mask.sum() == pytest.approx(np.pi * 25**2, rel=0.05)  # OpenCV fills the edge too
    edges = [edge for side in regions["head"].box for edge in (side.start, side.stop)]
    assert np.abs(np.array(edges) - [25, 75, 15, 65]).max() <= 1
    assert regions["mouth"].box == (slice(56, 64), slice(34, 46))  # 8 px of lips, 1.6 px more on each side
    assert regions["mouth"].mask.sum() == 8 * 12
    cut = find_regions(square_mesh(), 30, 90)
    assert set(cut) == {"head"}  # the mouth lies outside
    assert cut["head"].mask.any()
    assert find_regions(None, 30, 90) == {}


# --- which clips


def test_a_folder_is_listed(folders: tuple[Path, Path]) -> None:
    (folders[0] / "notes.txt").write_text("no clip")
    (folders[0] / "empty").mkdir()
    clips = list_clips(*folders, None, SELF)
    assert [(c.name, c.task, c.picture.name, c.truth.name) for c in clips] == [(n, "video", n, n) for n in "abc"]


def test_a_list_with_suffixes_folders_and_sound(folders: tuple[Path, Path], tmp_path: Path) -> None:
    clip(folders[0] / "s1" / "x", 1)
    clip(folders[1] / "videos" / "s1" / "x", 1)
    write_wav(folders[1] / "x.wav", np.zeros(10, np.float32), 16_000)
    listed = table(tmp_path / "list.csv", "clip, audio", "./s1/x.mp4,x", "a,")
    first, second = list_clips(*folders, listed, SELF)
    assert (first.name, first.truth, first.sound) == ("s1/x", folders[1] / "videos/s1/x", folders[1] / "x.wav")
    assert (second.name, second.sound) == ("a", None)


def test_vico_lists_are_understood(tmp_path: Path) -> None:
    pred, gt = tmp_path / "pred", tmp_path / "test" / "videos"
    for uuid, tasks in {"u1": ("speaker", "listener"), "u2": ("listener",)}.items():
        for task in tasks:
            clip(pred / f"{uuid}.{task}", 1)
            clip(gt / f"{uuid}.{task}", 1)
    (tmp_path / "test" / "audios").mkdir()
    write_wav(tmp_path / "test" / "audios" / "u1.wav", np.zeros(10, np.float32), 16_000)
    challenge = table(tmp_path / "test.csv", "video_id,uuid,speaker_id,listener_id", "v,u1,1,2", "v,u2,1,2")
    expected = [
        ("u1.speaker", "speaker", "u1.wav"),
        ("u1.listener", "listener", None),
        ("u2.listener", "listener", None),
    ]
    for truths in (gt, gt.parent):
        clips = list_clips(pred, truths, challenge, VICO)
        assert [(c.name, c.task, c.sound and c.sound.name) for c in clips] == expected
    whole = list_clips(pred, gt, None, VICO)
    assert sorted((c.name, c.task) for c in whole) == sorted((name, task) for name, task, _ in expected)
    public = table(tmp_path / "public.csv", "audio,listener,speaker", "audios/u1.wav,u1.listener,u1.speaker.mp4")
    clips = list_clips(pred, gt.parent, public, VICO)
    assert {(c.name, c.task, c.sound and c.sound.name) for c in clips} == set(expected[:2])
    clip(pred / "u3.shouter", 1)
    with pytest.raises(UserError, match=r"<uuid>\.speaker or <uuid>\.listener, got u3\.shouter"):
        list_clips(pred, gt, None, VICO)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["name,audio", "a,"], r"list\.csv must have a column uuid, clip or video; it has name, audio"),
        ([""], "it has none"),
        (["clip"], "lists no clips"),
        (["clip", "a", "z"], r"lists what is not there: .*z\.mp4\.$"),
        (["uuid", "a"], r"a\.video\.mp4"),
        (["clip,task", "a,speaker"], "tasks video, got 'speaker'"),
        (["clip,audio", "a,gone"], r"gone \(.*line 2\)"),
        (["clip", "../a"], "line 2: a clip is named by its path below"),
        (["clip", "/a"], "line 2: a clip is named by its path below"),
        (["clip,audio", "a,", "a,a.wav"], "listed before"),
    ],
)
def test_a_bad_list_is_named(folders: tuple[Path, Path], tmp_path: Path, rows: list[str], told: str) -> None:
    write_wav(tmp_path / "a.wav", np.zeros(10, np.float32), 16_000)
    with pytest.raises(UserError, match=told):
        list_clips(*folders, table(tmp_path / "list.csv", *rows), SELF)


def test_a_set_needs_its_folders(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--gt"):
        list_clips(folders[0], None, None, SELF)
    assert list_clips(folders[0], None, None, CROSS)[0].truth is None
    with pytest.raises(FileNotFoundError, match="nowhere is no folder"):
        list_clips(tmp_path / "nowhere", folders[1], None, SELF)
    with pytest.raises(FileNotFoundError, match=r"gone\.csv"):
        list_clips(*folders, tmp_path / "gone.csv", SELF)
    (folders[0] / "a.mp4").touch()
    with pytest.raises(UserError, match="both called a"):
        list_clips(*folders, table(tmp_path / "list.csv", "clip", "a"), SELF)


# --- a whole set


@pytest.mark.slow
def test_a_set_is_measured_resumed_and_survives_a_failing_clip(folders: tuple[Path, Path], tmp_path: Path) -> None:
    pred, gt = folders
    out = tmp_path / "out"
    run = functools.partial(measure_set, pred, gt, None, SELF, out, processes=2, measure=small_measure)
    (pred / "c" / "1.png").write_bytes(b"damaged")
    first = run()
    assert list(first["failed"]) == ["c"]
    assert "1.png is not a readable picture" in first["failed"]["c"]
    with pytest.raises(UserError, match=r"1 measurements failed, first c: .*1\.png"):
        require_whole(first)
    assert first["tasks"]["video"]["rows"]["prediction"]["brightness"]["full"]["clips"] == 2
    assert not (out / "clips" / "c.json").exists()
    assert {path.name for path in (out / "truths").glob("*.json")} == {"a.json", "b.json", "c.json"}
    times = {path: path.stat().st_mtime_ns for path in out.glob("*/[ab].*")}
    assert len(times) == 8

    clip(pred / "c", 200, 200, 200)
    second = run()
    assert second["failed"] == {}
    require_whole(second)
    assert second["kept_from_before"] == 5
    assert times == {path: path.stat().st_mtime_ns for path in times}
    assert json.loads((out / "set.json").read_text()) == json.loads(json.dumps(second))

    facts = second["tasks"]["video"]
    ours, theirs = facts["rows"]["prediction"], facts["rows"]["ground truth"]
    bright = ours["brightness"]["full"]
    assert bright["frame_mean"] == pytest.approx((50 + 100 + 120 + 600) / 6)
    assert bright["video_mean"] == pytest.approx((50 + 110 + 200) / 3)
    assert bright["value"] == bright["frame_mean"]
    assert (bright["clips"], bright["frames"], bright["excluded_frames"]) == (3, 6, 0)
    assert theirs["brightness"]["full"]["video_mean"] == pytest.approx(bright["video_mean"] + 10)
    assert (ours["darker"]["full"]["value"], theirs["darker"]["full"]["value"]) == (10, 0)
    assert ours["pooled"]["full"]["value"] == pytest.approx(3 * 10**2)  # means 10 apart in three dimensions, one spread
    assert ours["pooled"]["full"]["video_mean"] is None
    assert theirs["pooled"]["full"]["value"] == pytest.approx(0, abs=1e-6)
    assert facts["unavailable"]["prediction"] == {
        "smile": "mediapipe is needed to find faces; install it", "locked": "needs key.pth, see scripts/prepare.sh",
    }  # fmt: skip


@pytest.mark.slow
def test_a_killed_process_fails_its_own_clip_only(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (folders[0] / "b.kill").touch()
    document = measure_set(folders[0], None, None, CROSS, tmp_path / "out", processes=1, measure=small_measure)
    assert list(document["failed"]) == ["b"]
    assert "process died" in document["failed"]["b"]
    facts = document["tasks"]["video"]
    assert facts["clips"] == 2
    assert list(facts["rows"]) == ["prediction"]
    assert facts["rows"]["prediction"]["brightness"]["full"]["value"] == pytest.approx((50 + 200) / 2)
    assert facts["unavailable"]["prediction"]["darker"].startswith("needs ground truth")


def job_of(folders: tuple[Path, Path], out: Path) -> sets._Job:
    first = list_clips(*folders, None, SELF)[0]
    return next(sets._jobs_of(first, SELF, out, "strict", None))


def touch(path: Path) -> None:
    later = time.time_ns() + 1_000_000_000
    os.utime(path, ns=(later, later))


def test_what_changes_a_figure_is_measured_again(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GAUSSIAN_HEAD_CHECKPOINTS", raising=False)
    job = job_of(folders, tmp_path / "out")
    prints = [sets._fingerprint(job, "code")]

    def changed() -> bool:
        prints.append(sets._fingerprint(job, "code"))
        return prints[-1] not in prints[:-1]

    assert not changed()
    touch(folders[0] / "a" / "0.png")
    assert changed()
    touch(folders[1] / "a" / "0.png")
    assert changed()
    (folders[0] / "a.txt").write_text("hello")
    assert changed()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "syncnet_v2.model").write_bytes(b"weights")
    assert changed()
    assert sets._fingerprint(job, "other code") not in prints
    for other in ({"align": "shortest"}, {"entries": ("darker",)}, {"fps": 30.0}, {"truth": None}):
        assert sets._fingerprint(dataclasses.replace(job, **other), "code") not in prints


def test_damaged_results_do_not_count(folders: tuple[Path, Path], tmp_path: Path) -> None:
    job = job_of(folders, tmp_path / "out")
    assert not sets._is_done(job, "key")
    sets._measure_job(job, "key", small_measure)
    assert sets._is_done(job, "key")
    assert not sets._is_done(job, "another key")
    whole = job.results.read_bytes()
    for damaged in (whole[:-20], b"", b"[]", b"\xff"):
        job.results.write_bytes(damaged)
        assert not sets._is_done(job, "key")
    job.results.write_bytes(whole)
    job.features.unlink()
    assert not sets._is_done(job, "key")


def test_the_table_has_the_papers_order(tmp_path: Path) -> None:
    from rich.console import Console

    figure = {"full": {"value": 1.25}}
    document = {
        "protocol": "vico",
        "tasks": {
            "speaker": {
                "columns": ["cpbd", "absent"],
                "clips": 2,
                "rows": {"prediction": {"cpbd": figure}, "ground truth": {"cpbd": figure}},
            }
        },
    }
    text = io.StringIO()
    (shown,) = set_tables(document, 100)
    Console(file=text, width=100).print(shown)
    lines = text.getvalue().splitlines()
    assert "vico, speaker: 2 clips" in lines[0]
    header = next(line for line in lines if "row" in line)
    assert header.lower().index("cpbd") < header.index("absent")
    assert [line.split()[1] for line in lines if "1.25" in line] == ["prediction", "ground"]


def test_word_errors_are_pooled_over_words(tmp_path: Path) -> None:
    documents, files = [], []
    for index, (wrong, said) in enumerate([(1, 1), (0, 9)]):
        figure = {
            "entry": "wer",
            "region": "full",
            "value": wrong / said,
            "counted": 1,
            "excluded": 0,
            "reason": "",
            "trace": [],
        }
        documents.append({"figures": [figure], "unavailable": {}})
        files.append(tmp_path / f"{index}.npz")
        np.savez(files[-1], wer=np.array([[wrong, said]], float))
    row, missing = average_row(documents, files, "video", PROTOCOLS["diffused"])
    assert row["wer"]["full"]["value"] == pytest.approx(0.1)
    assert row["wer"]["full"]["video_mean"] == pytest.approx(0.5)
    assert "wer" not in missing
    assert missing["fvd"] == "no clip has it"


def test_processes_must_be_some(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 1"):
        measure_set(*folders, None, SELF, tmp_path, processes=0)


# --- protocols


def test_protocols_are_the_papers() -> None:
    assert set(PROTOCOLS) == {"vico", "self", "cross", "diffused"}
    speaker, listener = (PROTOCOLS["vico"].entries(task) for task in ("speaker", "listener"))
    assert speaker[:4] == ("ssim_vico", "cpbd", "psnr_vico", "fid")
    assert set(speaker) - set(listener) == {"av_offset", "av_conf", "liplmd"}
    assert not PROTOCOLS["cross"].uses_truth
    for protocol in PROTOCOLS.values():
        for task, entries in protocol.tasks.items():
            assert len(set(entries)) == len(entries), (protocol.name, task)
    with pytest.raises(UserError, match="tasks speaker, listener, got 'video'"):
        PROTOCOLS["vico"].entries("video")


def test_ranking_by_hand() -> None:
    names = ["a", "b", "c"]
    table = {"SSIM": [0.9, 0.8, 0.7], "FID": [5.0, 5.0, 1.0], "AVOffset": [-3.0, 1.0, 2.0], "unknown": [1, 2, 3]}
    # SSIM 1 2 3; FID: a and b share 2.5, cut to 2, c 1; AVOffset by size 3 1 2
    assert vico_ranking(table, names) == {"a": 1 + 2 + 3, "b": 2 + 2 + 1, "c": 3 + 1 + 2}


def test_ranking_refuses_gaps() -> None:
    with pytest.raises(UserError, match="SSIM must have one finite value"):
        vico_ranking({"SSIM": [0.5, float("nan")]}, ["a", "b"])
    with pytest.raises(UserError, match="FID must have one finite value"):
        vico_ranking({"FID": [0.5]}, ["a", "b"])
    with pytest.raises(UserError, match="nothing to rank by"):
        vico_ranking({"Name": [1.0]}, ["a"])
