"""Runtimes that are shell scripts, and a Maven repository on this machine."""

import hashlib
import http.server
import importlib.abc
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest

from pf_stream.kafka.dev.artifacts import Artifact


class MakeJava(Protocol):
    """Writes a ``java`` command; returns the runtime's home."""

    def __call__(self, script: str, *, release: str | None = None) -> Path: ...


@pytest.fixture
def make_java(tmp_path: Path) -> MakeJava:
    """A Java home whose ``java`` is a shell script."""

    def make(script: str, *, release: str | None = None) -> Path:
        home = tmp_path / "jre"
        (home / "bin").mkdir(parents=True)
        java = home / "bin" / "java"
        java.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        java.chmod(0o755)
        if release is not None:
            (home / "release").write_text(release, encoding="utf-8")
        return home

    return make


class Hide(Protocol):
    """Makes a package look as if it were not installed."""

    def __call__(self, package: str) -> None: ...


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Hide:
    """Hides packages for one test."""

    class Finder(importlib.abc.MetaPathFinder):
        def __init__(self, package: str) -> None:
            self._package = package

        def find_spec(self, name: str, path: object, target: object = None) -> None:
            if name == self._package:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    def do_hide(package: str) -> None:
        for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [Finder(package), *sys.meta_path])

    return do_hide


@dataclass(slots=True)
class Repository:
    """A Maven repository over HTTP that counts, and can be told to misbehave."""

    url: str = ""
    jars: dict[str, bytes] = field(default_factory=dict)
    """Body by path, without the leading slash."""
    asked: list[str] = field(default_factory=list)
    """Paths, in the order of the requests."""
    authorization: str | None = None
    """Header of the last request."""
    answer: Callable[[http.server.BaseHTTPRequestHandler, bytes], None] | None = None
    """Sends the answer in place of the usual one."""

    def add(self, name: str, body: bytes) -> Artifact:
        """Keep a jar; its entry of a lock."""
        artifact = Artifact("org.example", name, "1.0", len(body), hashlib.sha256(body).hexdigest())
        self.jars[artifact.path] = body
        return artifact


@pytest.fixture
def repository() -> Iterator[Repository]:
    """A running repository."""
    state = Repository()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.removeprefix("/maven/")
            state.asked.append(path)
            state.authorization = self.headers["Authorization"]
            body = state.jars.get(path)
            if body is None:
                self.send_error(404)
            elif state.answer is not None:
                state.answer(self, body)
            else:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(ConnectionError):  # the client has seen enough
                    self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is given
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/maven"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()
