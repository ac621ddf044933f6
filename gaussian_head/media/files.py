"""Files and folders that are either whole or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gaussian_head.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` when the block ends well, delete it when it does not.

    The temporary name keeps the suffix, for writers that look at it. Parent folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    """Give an empty folder beside `path`; put it in `path`'s place when the block ends well, else delete it.

    Args:
        path: The folder; parent folders are made.
        patterns: An earlier folder is replaced if it holds nothing but files named like these, such as ("*.png",).

    Raises:
        UserError: Something else is there.
    """
    foreign = [path] if path.is_file() else []
    if path.is_dir():
        foreign = [f for f in path.iterdir() if not (f.is_file() and any(f.match(pattern) for pattern in patterns))]
    if foreign:
        raise UserError(f"{path} holds {foreign[0].name}, which is none of {', '.join(patterns)}, and would be "
                        "replaced; give another --out.")  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as temporary:
        done = Path(temporary) / path.name
        done.mkdir()
        yield done
        if path.exists():
            shutil.rmtree(path)
        done.rename(path)


def write_bytes(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Write a file atomically.

    Args:
        path: The file.
        content: All of it.
        durable: Also wait until the disk holds it, so that it survives a power cut (manifests, checkpoints).
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
