"""What a preprocessing stage is, and the subject folder's manifest that makes stages resumable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from gaussian_head.data.layout import SPEECH_HZ, VIDEO_FPS, SubjectLayout
from gaussian_head.errors import UserError
from gaussian_head.media.files import write_bytes

T = TypeVar("T")
MANIFEST_FORMAT = 1
UNITS = {
    "landmarks": "px of ori_imgs, x right, y down, pixel centres at + 0.5",
    "transform_matrix": "camera to world, OpenGL axes, metres",
    "tracked trans": "decimetres",
    "tracked euler": "radians",
    "action_units": "0..5",
}


@runtime_checkable
class Progress(Protocol):
    """Wraps a loop to show how far it is."""

    def __call__(self, iterable: Iterable[T], total: int | None, label: str) -> Iterable[T]:
        """Pass the items through."""


def no_progress(iterable: Iterable[T], total: int | None = None, label: str = "") -> Iterable[T]:
    """Show nothing."""
    return iterable


@dataclass(frozen=True)
class Stage:
    """One step from raw video to subject folder."""

    name: str
    version: int
    """Raised when the stage's results change for the same inputs."""
    inputs: tuple[Path, ...]
    """Files read; a name with `*` stands for all its matches."""
    outputs: tuple[Path, ...]
    """Files written, likewise."""
    run: Callable[[Progress], dict[str, Any]]
    """Does the work and returns facts for the manifest."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What else the result depends on."""


def per_frame(name: Callable[[int], Path]) -> Path:
    """Turn a layout method of one frame, such as `layout.parsing`, into the pattern of all frames."""
    return name(0).with_name(f"*{name(0).suffix}")


def count_frames(layout: SubjectLayout) -> int:
    """Count the frames of a subject folder.

    Raises:
        FileNotFoundError: There is none.
        UserError: The numbering 0, 1, 2 ... has a hole; the missing file is named.
    """
    numbers = {int(path.stem) for path in layout.frame(0).parent.glob("*.jpg") if path.stem.isdigit()}
    if not numbers:
        raise FileNotFoundError(f"{layout.frame(0)} is missing; run: python -m data_utils.process {layout.video}")
    for k in range(len(numbers)):
        if k not in numbers:
            raise UserError(
                f"{layout.frame(k)} is missing while later frames exist; "
                f"run: python -m data_utils.process {layout.video} --only frames --force"
            )
    return len(numbers)


def digest(path: Path) -> str | None:
    """Hash a file, or all files that match a pattern (names and contents); None where there is none."""
    paths = sorted(path.parent.glob(path.name)) if "*" in path.name else [path]
    paths = [found for found in paths if found.is_file()]
    if not paths:
        return None
    if "*" not in path.name:
        return _file_digest(path)
    lines = (f"{found.name} {_file_digest(found)}\n" for found in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


class Manifest:
    """`manifest.json` of one subject folder: what each stage read, wrote and found out."""

    def __init__(self, layout: SubjectLayout) -> None:
        """Read the folder's manifest, or start an empty one.

        Raises:
            UserError: The file is damaged or of another format.
        """
        self._layout = layout
        self.stages: dict[str, dict[str, Any]] = {}
        if layout.manifest.is_file():
            try:
                content = json.loads(layout.manifest.read_text())
            except json.JSONDecodeError as error:
                raise UserError(f"{layout.manifest} is damaged ({error}); delete it and process again.") from error
            if content.get("format") != MANIFEST_FORMAT:
                raise UserError(
                    f"{layout.manifest} has format {content.get('format')}, expected {MANIFEST_FORMAT}; "
                    "delete it and process again."
                )
            self.stages = content["stages"]

    def facts(self, name: str) -> dict[str, Any]:
        """Return what a stage found out, {} where it has not run."""
        return self.stages.get(name, {}).get("facts", {})

    def is_up_to_date(self, stage: Stage) -> bool:
        """Tell whether a stage's results stand: same version, options and inputs, and every output exists."""
        record = self.stages.get(stage.name, {})
        return (
            record.get("state") == "done"
            and record["version"] == stage.version
            and record["options"] == _as_json(stage.options)
            and record["inputs"] == self._digests(stage.inputs)
            and all(count == self._count(path) for path, count in record["files"].items())
        )

    def was_written_by(self, stage: Stage) -> bool:
        """Tell whether the stage's outputs, where they exist, are what the stage wrote (False: the user's own)."""
        present = {name: found for name, found in self._digests(stage.outputs).items() if found is not None}
        record = self.stages.get(stage.name, {})
        if not present or record.get("state") == "running":
            return True
        return present == {name: record.get("outputs", {}).get(name) for name in present}

    def start(self, stage: Stage) -> None:
        """Note that a stage is about to write, so that what a kill leaves is known to be unfinished."""
        self.stages[stage.name] = {"state": "running", "version": stage.version}
        self._save()

    @contextmanager
    def running(self, stage: Stage) -> Iterator[None]:
        """Note that a stage runs; a refusal, which comes before anything is written, leaves the record as it was."""
        earlier = self.stages.get(stage.name)
        self.start(stage)
        try:
            yield
        except (UserError, FileNotFoundError):
            self.stages[stage.name] = earlier or {}
            self._save()
            raise

    def finish(self, stage: Stage, facts: dict[str, Any], seconds: float) -> None:
        """Record a stage's success."""
        self.stages[stage.name] = {
            "state": "done",
            "version": stage.version,
            "options": _as_json(stage.options),
            "inputs": self._digests(stage.inputs),
            "outputs": self._digests(stage.outputs),
            "files": {self._name(path): self._count(self._name(path)) for path in stage.outputs},
            "facts": _as_json(facts),
            "seconds": round(seconds, 2),
        }
        self._save()

    def _digests(self, paths: tuple[Path, ...]) -> dict[str, str | None]:
        return {self._name(path): digest(path) for path in paths}

    def _count(self, name: str) -> int:
        return sum(1 for _ in self._layout.root.glob(name))

    def _name(self, path: Path) -> str:
        return path.relative_to(self._layout.root).as_posix()

    def _save(self) -> None:
        content = {
            "format": MANIFEST_FORMAT,
            "subject": self._layout.subject,
            "video_fps": VIDEO_FPS,
            "speech_hz": SPEECH_HZ,
            "units": UNITS,
            "stages": self.stages,
        }
        write_bytes(self._layout.manifest, (json.dumps(content, indent=1) + "\n").encode(), durable=True)


def _file_digest(path: Path) -> str:
    status = path.stat()
    return _content_digest(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=200_000)
def _content_digest(path: Path, size: int, mtime_ns: int) -> str:
    """Hash a file once a run: stages share inputs."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _as_json(value: Any) -> Any:  # noqa: ANN401 -- any JSON value
    return json.loads(json.dumps(value))
