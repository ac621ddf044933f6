"""Fetch public files over HTTP: broken downloads are continued, what arrives is checked, a file is whole or absent."""

from __future__ import annotations

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from gaussian_head.errors import UserError

ATTEMPTS = 5
PAUSE_S = 2.0
"""Before the second attempt; doubled before each further one."""
TIMEOUT_S = 60
_CHUNK = 1 << 20
_GONE = (401, 403, 404, 410)

Told = Callable[[int, int | None], None]
"""Is told how many bytes are there, and of how many (None: the server does not say)."""


def download(url: str, path: Path, sha256: tuple[str, ...] = (), told: Told = lambda done, total: None) -> None:
    """Fetch a file to `path`, beginning where an earlier attempt, of this or another run, was cut off.

    Args:
        url: http or https.
        path: Where it goes; what is incomplete lies beside it as `<name>.part`.
        sha256: Of the whole file: one of these, () where it is not known.
        told: Is told of progress.

    Raises:
        UserError: The server has no such file; the connection failed again and again (what has arrived is kept); or the
            file is another one than meant (it is deleted).
    """
    part = path.with_name(f"{path.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(ATTEMPTS):
        try:
            _continue(url, part, told)
            break
        except (OSError, http.client.HTTPException) as error:
            if attempt + 1 == ATTEMPTS:
                there = part.stat().st_size if part.is_file() else 0
                raise UserError(
                    f"{url} could not be fetched ({error}); {there / 1e6:.1f} MB are kept in {part}: run this again to "
                    "continue, or fetch it with another program."
                ) from error
            time.sleep(PAUSE_S * 2**attempt)
    if sha256 and (found := _hash(part)) not in sha256:
        part.unlink()
        raise UserError(
            f"{url} gave another file than the published one (sha256 {found[:8]}..., expected {sha256[0][:8]}...)."
        )
    part.replace(path)


def _continue(url: str, part: Path, told: Told) -> None:
    """Append to `part` what is missing, or begin anew where the server cannot continue."""
    there = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={there}-"} if there else {})  # noqa: S310 -- TABLE's
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and there:
            if error.headers.get("Content-Range") == f"bytes */{there}":
                return  # all of it had arrived
            part.unlink()
        if error.code in _GONE:
            raise UserError(f"{url} is not to be had (HTTP {error.code}).") from error
        raise
    with answer:
        if answer.status != http.client.PARTIAL_CONTENT:
            there = 0
        length = answer.headers.get("Content-Length")
        total = None if length is None else there + int(length)
        with part.open("ab" if there else "wb") as file:
            for chunk in _chunks(answer):
                file.write(chunk)
                there += len(chunk)
                told(there, total)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and there < total:
        raise ConnectionError(f"the connection broke after {there} of {total} bytes")


def _chunks(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    while chunk := answer.read(_CHUNK):
        yield chunk


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
