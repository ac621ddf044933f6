"""Which clips a set has: an annotation CSV, or everything in the folder."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gaussian_head.errors import UserError
from gaussian_head.evaluation.clip import PICTURES, VIDEOS
from gaussian_head.evaluation.protocols import ANY_TASK, Protocol

_TOLD = 5
"""So many missing files are named; the rest is counted."""


@dataclass(frozen=True)
class SetClip:
    """One clip of a set, and where its files are."""

    name: str
    """Of its results, as `<uuid>.speaker`; may contain folders."""
    task: str
    picture: Path
    truth: Path | None
    sound: Path | None
    """Where the picture's sound is kept apart from it."""


def list_clips(pictures: Path, truths: Path | None, annotations: Path | None, protocol: Protocol) -> list[SetClip]:
    """Find the clips of a set.

    The CSV names them in one of three ways (specs/vico.md section 1.1):

    * `uuid` (ViCo's challenge): the clips `<uuid>.<task>` of the tasks that the column `task` names, or of all that
      have a prediction; the speaker's sound is `audios/<uuid>.wav` in or beside the folder of truths;
    * `clip`, and if you like `task` and `audio`: a file or folder, with or without its suffix, in the folders given
      (or in their subfolder `videos`); `audio` is a path from the CSV or from the folder of truths;
    * a column for each task, and if you like `audio` (ViCo as published: `speaker`, `listener`, `audio`).

    Args:
        pictures: Folder of what is judged.
        truths: Folder of the true footage, same names.
        annotations: The CSV; None: every video and folder of frames in `pictures`.
        protocol: Which tasks there are, and whether truths are needed.

    Raises:
        FileNotFoundError: A folder or the CSV is missing.
        UserError: Columns or files are missing, or no clip is left; names them.
    """
    if truths is None and protocol.uses_truth:
        raise UserError(f"protocol {protocol.name} compares with the true footage; give its folder with --gt.")
    for folder in (pictures, truths):
        if folder is not None and not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder; a protocol measures folders of clips.")
    search = _Search(pictures, truths, annotations, protocol)
    clips = search.everything() if annotations is None else search.listed(annotations)
    if search.missing:
        more = f" and {len(search.missing) - _TOLD} more" if len(search.missing) > _TOLD else ""
        listed = annotations or pictures
        raise UserError(f"{listed} lists what is not there: {', '.join(search.missing[:_TOLD])}{more}.")
    if not clips:
        raise UserError(f"{annotations or pictures} lists no clips; give a CSV with rows, or a folder of videos.")
    return clips


class _Search:
    def __init__(self, pictures: Path, truths: Path | None, annotations: Path | None, protocol: Protocol) -> None:
        self.pictures, self.truths, self.protocol = pictures, truths, protocol
        self.csv_folder = None if annotations is None else annotations.parent
        self.missing: list[str] = []

    def everything(self) -> list[SetClip]:
        clips = []
        for path in sorted(self.pictures.iterdir()):
            is_frames = path.is_dir() and any(file.suffix.lower() in PICTURES for file in path.iterdir())
            if not is_frames and not (path.is_file() and path.suffix.lower() in VIDEOS):
                continue
            name = path.name if is_frames else path.stem
            task = self._task_of(name, path)
            uuid = name.removesuffix(f".{task}")
            clips.append(SetClip(name, task, path, self._truth(name), self._vico_sound(uuid, task)))
        return clips

    def listed(self, annotations: Path) -> list[SetClip]:
        if not annotations.is_file():
            raise FileNotFoundError(f"{annotations} is missing; give the CSV that lists the clips.")
        try:
            with annotations.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                columns = reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
                rows = [{key: (row[key] or "").strip() for key in columns} for row in reader]
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{annotations} is no CSV text ({error}); save it as UTF-8.") from error
        tasks = [task for task in self.protocol.tasks if task in columns]
        if not {"uuid", "clip"} & set(columns) and not tasks:
            raise UserError(
                f"{annotations} must have a column uuid, clip{''.join(f' or {task}' for task in self.protocol.tasks)}; "
                f"it has {', '.join(columns) or 'none'}."
            )
        found: dict[str, SetClip] = {}
        for number, row in enumerate(rows, 2):
            where = f"{annotations}, line {number}"
            if "uuid" in columns:
                clips = self._of_uuid(row, where)
            elif "clip" in columns:
                task = row.get("task") or self._task_of(_checked_name(row["clip"], where), where)
                clips = [self._named(row["clip"], task, row.get("audio", ""), where)]
            else:
                clips = [self._named(row[task], task, row.get("audio", ""), where) for task in tasks]
            for clip in filter(None, clips):
                if found.setdefault(clip.name, clip) != clip:
                    raise UserError(f"{where}: {clip.name} was listed before with another task or sound; list it once.")
        return list(found.values())

    def _task_of(self, name: str, where: object) -> str:
        """Return the task that a clip's name tells, as in `<uuid>.speaker`."""
        task = ANY_TASK if ANY_TASK in self.protocol.tasks else name.rpartition(".")[2]
        if task not in self.protocol.tasks:
            told = " or ".join(f"<uuid>.{task}" for task in self.protocol.tasks)
            raise UserError(f"{where}: clips of protocol {self.protocol.name} are called {told}, got {name}.")
        return task

    def _of_uuid(self, row: dict[str, str], where: str) -> list[SetClip | None]:
        uuid = _checked_name(row["uuid"], where)
        tasks = [row["task"]] if row.get("task") else list(self.protocol.tasks)
        found = {task: self._find(self.pictures, f"{uuid}.{task}") for task in tasks}
        if not any(found.values()):
            self.missing.append(" or ".join(f"{self.pictures / uuid}.{task}.mp4" for task in tasks))
        clips = []
        for task, picture in found.items():
            self.protocol.entries(task)
            if picture is not None:
                name = f"{uuid}.{task}"
                clips.append(SetClip(name, task, picture, self._truth(name), self._vico_sound(uuid, task)))
        return clips

    def _named(self, written: str, task: str, audio: str, where: str) -> SetClip | None:
        self.protocol.entries(task)
        name = _checked_name(written, where)
        picture = self._find(self.pictures, name)
        if picture is None:
            self.missing.append(f"{self.pictures / name}.mp4")
            return None
        sound = self._sound(audio, where) if audio and task != "listener" else None
        return SetClip(name, task, picture, self._truth(name), sound)

    def _truth(self, name: str) -> Path | None:
        found = None if self.truths is None else self._find(self.truths, name)
        if found is None and self.protocol.uses_truth:
            self.missing.append(f"{self.truths / name}.mp4")
        return found

    def _sound(self, audio: str, where: str) -> Path | None:
        folders = [folder for folder in (self.csv_folder, self.truths, self.pictures) if folder is not None]
        written = Path(audio)
        places = [written] if written.is_absolute() else [folder / written for folder in folders]
        places += [place.with_name(f"{place.name}.wav") for place in places]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            self.missing.append(f"{audio} ({where})")
        return found

    def _vico_sound(self, uuid: str, task: str) -> Path | None:
        """Return ViCo's sound of a speaker; listeners are silent, whatever they hear."""
        if task == "listener" or self.truths is None:
            return None
        places = [folder / "audios" / f"{uuid}.wav" for folder in (self.truths, self.truths.parent)]
        return next((place for place in places if place.is_file()), None)

    def _find(self, folder: Path, name: str) -> Path | None:
        for base in (folder, folder / "videos"):
            places = [base / f"{name}{suffix}" for suffix in VIDEOS] + [base / name]
            found = [path for path in places if path.is_file() or (path.is_dir() and path.suffix not in VIDEOS)]
            if len(found) > 1:
                raise UserError(f"{found[0]} and {found[1]} are both called {name}; leave one of them.")
            if found:
                return found[0]
        return None


def _checked_name(written: str, where: str) -> str:
    """Return a clip's name without its suffix; it must lie below the folders given."""
    path = PurePosixPath(written)
    if not path.name or path.is_absolute() or ".." in path.parts:
        raise UserError(f"{where}: a clip is named by its path below the folders given, got {written!r}.")
    return str(path.with_suffix("") if path.suffix.lower() in VIDEOS else path)
