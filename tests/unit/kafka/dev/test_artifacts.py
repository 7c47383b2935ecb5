"""The jars: they come whole or not at all, once, and without a network the second time."""

import http.server
import json
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest

from pf_stream.errors import ConfigurationError
from pf_stream.kafka.dev.artifacts import Artifact, fetch, load_lock
from pf_stream.kafka.dev.errors import (
    ArtifactCorruptError,
    ArtifactMissingError,
    DiskError,
    RepositoryUnreachableError,
)
from pf_stream.kafka.dev.progress import Stage, Step

NOWHERE = "http://127.0.0.1:9"
"""The discard port: nothing listens there."""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name != ".lock"}


def test_lock_names_kafka_and_its_logger() -> None:
    lock = load_lock()
    jars = {artifact.jar for artifact in lock.artifacts}
    assert {f"kafka_2.13-{lock.kafka}.jar", f"kafka-clients-{lock.kafka}.jar"} <= jars
    assert any(jar.startswith("log4j-slf4j-impl-") for jar in jars)  # without it the broker's log is empty
    assert len(jars) == len(lock.artifacts) == 45
    assert all(len(artifact.sha256) == 64 and artifact.size > 0 for artifact in lock.artifacts)


def test_path_is_that_of_a_maven_repository() -> None:
    artifact = Artifact("org.apache.kafka", "kafka_2.13", "4.4.0", 1, "")
    assert artifact.path == "org/apache/kafka/kafka_2.13/4.4.0/kafka_2.13-4.4.0.jar"


def test_brings_all_in_the_order_of_the_lock(repository: Any, tmp_path: Path) -> None:
    artifacts = [repository.add(f"a{n}", bytes([n]) * 300_000) for n in range(6)]
    steps: list[Step] = []
    paths = fetch(artifacts, tmp_path / "jars", environ={"PF_MAVEN_MIRROR": repository.url}, progress=steps.append)
    assert [path.read_bytes()[:1] for path in paths] == [bytes([n]) for n in range(6)]
    assert steps[-1] == Step(Stage.downloading, 1_800_000, 1_800_000)
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert names(tmp_path / "jars") == {artifact.jar for artifact in artifacts}


def test_second_time_touches_neither_network_nor_folder(repository: Any, tmp_path: Path) -> None:
    artifacts = [repository.add("a", b"a"), repository.add("b", b"b")]
    first = fetch(artifacts, tmp_path, environ={"PF_MAVEN_MIRROR": repository.url})
    (tmp_path / ".lock").unlink(missing_ok=True)
    steps: list[Step] = []
    assert fetch(artifacts, tmp_path, environ={"PF_MAVEN_MIRROR": NOWHERE}, progress=steps.append) == first
    assert steps == []
    assert not (tmp_path / ".lock").exists()


def test_goes_on_where_an_earlier_run_ended(repository: Any, tmp_path: Path) -> None:
    there, cut, absent = (repository.add(name, name.encode() * 10) for name in ("there", "cut", "absent"))
    (tmp_path / there.jar).write_bytes(b"there" * 10)
    (tmp_path / cut.jar).write_bytes(b"cut")
    (tmp_path / "older-0.9.jar.part").write_bytes(b"left by a process that was killed")
    fetch([there, cut, absent], tmp_path, environ={"PF_MAVEN_MIRROR": repository.url})
    assert set(repository.asked) == {cut.path, absent.path}
    assert (tmp_path / cut.jar).read_bytes() == b"cut" * 10
    assert names(tmp_path) == {there.jar, cut.jar, absent.jar}


def test_wrong_bytes_are_named_and_not_kept(repository: Any, tmp_path: Path) -> None:
    good, bad = repository.add("good", b"good"), repository.add("bad", b"bad")
    bad = replace(bad, sha256="0" * 64)
    with pytest.raises(
        ArtifactCorruptError, match=r"^bad-1\.0\.jar from http.* expected SHA-256 0{64}, got "
    ) as caught:
        fetch([good, bad], tmp_path, environ={"PF_MAVEN_MIRROR": repository.url})
    assert caught.value.jar == "bad-1.0.jar"
    assert names(tmp_path) <= {good.jar}


def trickle(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
    """Send the body again and again, slowly, until nobody listens."""
    handler.send_response(200)
    handler.end_headers()
    with suppress(ConnectionError):
        while True:
            handler.wfile.write(body)
            time.sleep(0.001)


def test_more_bytes_than_the_lock_says_are_refused(repository: Any, tmp_path: Path) -> None:
    endless = repository.add("endless", b"x" * 1000)
    repository.answer = trickle
    with pytest.raises(ArtifactCorruptError, match="expected 1000 bytes"):
        fetch([endless], tmp_path, environ={"PF_MAVEN_MIRROR": repository.url})
    assert names(tmp_path) == set()


def cut_off(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.close_connection = True


def test_broken_connection_is_tried_again(repository: Any, tmp_path: Path) -> None:
    artifact = repository.add("a", b"0123456789" * 1000)

    def once(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        repository.answer = None
        cut_off(handler, body)

    repository.answer = once
    steps: list[Step] = []
    (path,) = fetch([artifact], tmp_path, environ={"PF_MAVEN_MIRROR": repository.url}, progress=steps.append)
    assert path.read_bytes() == b"0123456789" * 1000
    assert steps[-1].done == artifact.size  # bytes that came twice count once


def test_truncated_jar_is_refused(repository: Any, tmp_path: Path) -> None:
    artifact = repository.add("a", b"0123456789" * 1000)
    repository.answer = cut_off
    with pytest.raises(ArtifactCorruptError, match=r"a-1\.0\.jar .* expected 10000 bytes, got 5000 bytes"):
        fetch([artifact], tmp_path, environ={"PF_MAVEN_MIRROR": repository.url})
    assert repository.asked == [artifact.path] * 3
    assert names(tmp_path) == set()


def test_repository_without_the_jar(repository: Any, tmp_path: Path) -> None:
    artifact = repository.add("a", b"a")
    repository.jars.clear()
    with pytest.raises(ArtifactMissingError, match=r"/maven has no a-1\.0\.jar"):
        fetch([artifact], tmp_path, environ={"PF_MAVEN_MIRROR": repository.url})


def test_repository_that_fails(repository: Any, tmp_path: Path) -> None:
    artifact = repository.add("a", b"a")
    repository.answer = lambda handler, _: handler.send_error(503)
    with pytest.raises(RepositoryUnreachableError, match="HTTP 503"):
        fetch([artifact], tmp_path, environ={"PF_MAVEN_MIRROR": repository.url})


def test_no_network_names_the_way_out(repository: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jgo.constants.MAVEN_CENTRAL_URL", NOWHERE)
    with pytest.raises(RepositoryUnreachableError) as caught:
        fetch([repository.add("a", b"a")], tmp_path, environ={})
    assert str(caught.value).startswith(f"cannot reach the Maven repository {NOWHERE} (")
    assert str(caught.value).endswith("; set PF_MAVEN_MIRROR to a mirror or to a folder of jars")
    assert caught.value.retryable


def test_no_jgo_names_the_extra(repository: Any, tmp_path: Path, hide: Callable[[str], None]) -> None:
    hide("jgo")
    with pytest.raises(ConfigurationError, match=r"pip install 'pf-stream\[dev\]', or set PF_MAVEN_MIRROR"):
        fetch([repository.add("a", b"a")], tmp_path, environ={})


def test_password_of_a_mirror_is_sent_and_not_shown(repository: Any, tmp_path: Path) -> None:
    artifact = repository.add("a", b"a")
    mirror = repository.url.replace("http://", "http://ann:s%40cret@")
    fetch([artifact], tmp_path / "1", environ={"PF_MAVEN_MIRROR": mirror})
    assert repository.authorization == "Basic YW5uOnNAY3JldA=="
    repository.jars.clear()
    with pytest.raises(ArtifactMissingError) as caught:
        fetch([artifact], tmp_path / "2", environ={"PF_MAVEN_MIRROR": mirror})
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize("layout", ["flat", "maven"])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_folder_in_place_of_a_repository(repository: Any, tmp_path: Path, layout: str, scheme: str) -> None:
    artifact = repository.add("a", b"a")
    jar = tmp_path / "my jars" / (artifact.jar if layout == "flat" else artifact.path)
    jar.parent.mkdir(parents=True)
    jar.write_bytes(b"a")
    mirror = (tmp_path / "my jars").as_uri() if scheme else str(tmp_path / "my jars")
    (path,) = fetch([artifact], tmp_path / "jars", environ={"PF_MAVEN_MIRROR": mirror})
    assert path.read_bytes() == b"a"


def test_folder_is_checked_like_a_repository(repository: Any, tmp_path: Path) -> None:
    artifact = repository.add("a", b"a")
    environ = {"PF_MAVEN_MIRROR": str(tmp_path)}
    with pytest.raises(ArtifactMissingError, match=r"has no a-1\.0\.jar"):
        fetch([artifact], tmp_path / "jars", environ=environ)
    (tmp_path / artifact.jar).write_bytes(b"b")
    with pytest.raises(ArtifactCorruptError, match=r"a-1\.0\.jar"):
        fetch([artifact], tmp_path / "jars", environ=environ)


@pytest.mark.parametrize("mirror", ["/no/such/folder", "ftp://example.org/maven", "file:///no/such/folder"])
def test_mirror_that_is_none(repository: Any, tmp_path: Path, mirror: str) -> None:
    with pytest.raises(ConfigurationError, match="neither an http"):
        fetch([repository.add("a", b"a")], tmp_path, environ={"PF_MAVEN_MIRROR": mirror})


def test_folder_that_cannot_be_written(repository: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    with pytest.raises(DiskError, match=r"cannot write .*/file/jars: Not a directory"):
        fetch(
            [repository.add("a", b"a")],
            tmp_path / "file" / "jars",
            environ={"PF_MAVEN_MIRROR": repository.url},
        )


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The nearest thing to a full disk that needs no rights: a write beyond *size* fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk(repository: Any, tmp_path: Path) -> None:
    artifact = repository.add("a", b"a" * 1_000_000)
    with (
        files_of_at_most(500_000),
        pytest.raises(DiskError, match=r"cannot write .*a-1\.0\.jar\.part: File too large"),
    ):
        fetch([artifact], tmp_path, environ={"PF_MAVEN_MIRROR": repository.url})
    assert names(tmp_path) == set()


def test_interrupt_ends_the_downloads(repository: Any, tmp_path: Path) -> None:
    artifacts = [replace(repository.add(f"a{n}", b"a" * 1000), size=1 << 40) for n in range(20)]
    repository.answer = trickle

    def interrupt(step: Step) -> None:
        if step.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(artifacts, tmp_path, environ={"PF_MAVEN_MIRROR": repository.url}, progress=interrupt)
    assert names(tmp_path) == set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pf-fetch")]


FETCH = """
import json, sys
from pathlib import Path
from pf_stream.kafka.dev.artifacts import Artifact, fetch
artifacts = [Artifact(*fields) for fields in json.loads(sys.argv[2])]
fetch(artifacts, Path(sys.argv[1]), progress=lambda step: print(step.stage, flush=True))
"""


@pytest.mark.slow
def test_two_processes_at_once_fetch_once(repository: Any, tmp_path: Path) -> None:
    artifacts = [repository.add(f"a{n}", bytes([n]) * 50_000) for n in range(5)]
    second_waits = threading.Event()

    def hold(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        second_waits.wait(20)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    repository.answer = hold
    command = [
        sys.executable,
        "-c",
        FETCH,
        str(tmp_path),
        json.dumps([astuple(artifact) for artifact in artifacts]),
    ]
    environ = {"PF_MAVEN_MIRROR": repository.url}
    with (
        subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as one,
        subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as two,
    ):
        assert one.stdout
        assert two.stdout
        first_lines = [one.stdout.readline(), two.stdout.readline()]
        second_waits.set()
        one.communicate(timeout=20)
        two.communicate(timeout=20)
    assert sorted(first_lines) == ["downloading\n", "waiting\n"]
    assert (one.returncode, two.returncode) == (0, 0)
    assert sorted(repository.asked) == sorted(artifact.path for artifact in artifacts)
