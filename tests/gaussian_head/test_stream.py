"""The command that streams and measures."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gaussian_head.data.layout import SPEECH_HZ, SubjectLayout
from gaussian_head.media.audio import load_audio, write_wav
from gaussian_head.media.video import probe_video, read_frames
from gaussian_head.stream import Microphone, Stopwatch, main

Call = Callable[..., int]


@pytest.fixture
def call(tiny_subject: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run the command with more flags; return its exit status."""

    def run(*flags: object) -> int:
        command = ["stream", "-S", tiny_subject, "-M", tiny_run, *flags]
        monkeypatch.setattr(sys, "argv", [str(part) for part in command])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code

    return run


@pytest.fixture
def sound(tiny_subject: Path, tmp_path: Path) -> Path:
    """Less than a second, not a whole number of frames."""
    write_wav(tmp_path / "x.wav", load_audio(SubjectLayout(tiny_subject).speech)[: 20 * 640 + 100], SPEECH_HZ)
    return tmp_path / "x.wav"


def test_a_microphone_gives_the_whole_sound_in_chunks(sound: Path) -> None:
    microphone = Microphone(sound, 700)
    chunks = list(microphone)
    assert [len(chunk) for chunk in chunks] == [700] * 18 + [300]
    assert np.array_equal(np.concatenate(chunks), load_audio(sound))
    assert microphone.heard == 12_900
    assert microphone.seconds > 0


def test_it_measures_and_writes_a_video_with_sound(
    call: Call, sound: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--audio", sound, "--voice", sound, "--size", 48, "--out", tmp_path / "x.mp4") == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "x.mp4")
    info = probe_video(tmp_path / "x.mp4")
    assert (info.width, info.height, info.has_audio) == (48, 48, True)
    assert len(list(read_frames(tmp_path / "x.mp4"))) == 21
    told = json.loads((tiny_run / "stream.json").read_text())
    assert (told["frames"], told["width"], told["levels"]) == (21, 48, "measured")
    assert told["declared_delay_ms"] == {"look_ahead": 320, "mel_window": 90}  # of the ridge regression
    assert told["machine"]["cores"]
    assert told["computing_ms"]["median"] <= told["computing_ms"]["p99"]
    least = sum(told["declared_delay_ms"].values())
    assert told["latency_ms"]["p99"] >= least - 40  # the last frames do not wait: the sound has ended


def test_without_a_video_it_writes_the_figures_alone(
    call: Call, sound: Path, tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--audio", sound, "--chunk-ms", 7) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tiny_run / "stream.json")
    assert json.loads((tiny_run / "stream.json").read_text())["levels"] == "estimated"
    assert not list(tiny_run.glob("*.mp4"))


def test_latency_is_that_of_sound_which_comes_in_its_own_time(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    stopped = SimpleNamespace(perf_counter=lambda: clock[0], process_time=lambda: 2 * clock[0])
    monkeypatch.setattr("gaussian_head.stream.time", stopped)
    microphone = Microphone(sound, 640)

    def frames() -> object:
        for k, _ in enumerate(microphone):
            if k >= 3:
                clock[0] += 0.01  # a frame takes 10 ms, on two cores
                yield np.zeros((2, 2, 3), np.uint8)

    stopwatch = Stopwatch(microphone)
    shown = list(stopwatch.measure(frames()))
    assert len(shown) == 18
    # Frame i, of the moment 40 i ms, is there 10 ms after chunk i + 4, which comes at 40 (i + 4) ms.
    assert stopwatch.latency[:17] == pytest.approx([0.17] * 17)
    figures = stopwatch.figures()
    assert figures["frames"] == 18
    assert figures["computing_ms"] == {"median": 10.0, "p99": 10.0}
    assert figures["real_time_factor"] == pytest.approx(0.18 / figures["sound_s"], abs=1e-3)
    assert figures["processor_factor"] == pytest.approx(0.36 / figures["sound_s"], abs=1e-3)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--chunk-ms", "0"], "--chunk-ms must be"),
        (["--size", "3"], "--size must be"),
        (["--seed", "-1"], "--seed must be 0 or more"),
        (["--out", "clip.gif"], "must end in .mp4"),
        (["--voice", "nowhere.wav"], "nowhere.wav does not exist"),
    ],
)
def test_bad_input_is_one_line(
    call: Call, sound: Path, capsys: pytest.CaptureFixture[str], flags: list[str], told: str
) -> None:
    assert call("--audio", sound, *flags) == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.strip().splitlines()) == 1


def test_no_sound_and_features_of_another_kind(
    call: Call, sound: Path, tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--audio", "nowhere.wav") == 2
    assert "nowhere.wav does not exist" in capsys.readouterr().err
    facts = tiny_run / "driving" / "regression.json"
    facts.write_text(facts.read_text().replace('"mel"', '"wavlm"'))
    assert call("--audio", sound) == 2
    assert "trained with wavlm" in capsys.readouterr().err
