"""Downloads: continued after a break, checked, whole or absent; against a server that misbehaves on demand."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from gaussian_head.errors import UserError
from gaussian_head.media import download as module
from gaussian_head.media.download import download

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT; the server's `plan` says where each answer breaks off."""

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if self.path == "/missing":
            self.send_error(404)
            return
        first = int(asked.removeprefix("bytes=").rstrip("-")) if asked and not self.server.forgetful else 0
        if first >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.end_headers()
            return
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(CONTENT) - first))
        self.end_headers()
        until = self.server.plan.pop(0) if self.server.plan else len(CONTENT)
        self.wfile.write(CONTENT[first:until])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.plan, server.asked, server.forgetful = [], [], False
    server.url = f"http://127.0.0.1:{server.server_port}/file.bin"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_broken_download_is_continued_where_it_broke(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    server.plan = [1_000_000, 2_500_000]
    told = []
    download(server.url, tmp_path / "a" / "file.bin", (SHA256,), lambda done, total: told.append((done, total)))
    assert (tmp_path / "a" / "file.bin").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000000-", "bytes=2500000-"]
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert {total for _, total in told} == {len(CONTENT)}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file.bin"]


def test_what_arrived_is_kept_for_the_next_run(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    server.plan = [1_000_000] * module.ATTEMPTS
    path = tmp_path / "file.bin"
    with pytest.raises(UserError, match=r"1\.0 MB are kept in .*file\.bin\.part: run this again"):
        download(server.url, path, (SHA256,))
    assert not path.exists()
    server.asked.clear()
    download(server.url, path, (SHA256,))
    assert server.asked == ["bytes=1000000-"]
    assert path.read_bytes() == CONTENT


def test_a_server_that_cannot_continue_begins_anew(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    server.plan, server.forgetful = [1_000_000], True
    download(server.url, tmp_path / "file.bin", (SHA256,))
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_part_that_was_whole_already_is_taken(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    download(server.url, tmp_path / "file.bin", (SHA256,))
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_another_file_than_meant_is_deleted(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)  # of another file
    with pytest.raises(UserError, match=r"another file than the published one \(sha256 "):
        download(server.url, tmp_path / "file.bin", (SHA256,))
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_there_is_not_asked_for_again(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"/missing is not to be had \(HTTP 404\)"):
        download(server.url.replace("file.bin", "missing"), tmp_path / "file.bin")
    assert len(server.asked) == 1
    assert list(tmp_path.iterdir()) == []
