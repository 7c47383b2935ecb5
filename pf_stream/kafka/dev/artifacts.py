"""The jars of Kafka: which they are, and how they come here.

``_lock.json`` names each jar with its size and SHA-256; ``.ci/lock_kafka.py`` makes it. Jars are kept in one
folder per user. A jar is there when its file has the right size: the file appears under its name only after
its hash was found right, so it need not be hashed again at each start.
"""

import base64
import hashlib
import http.client
import json
import os
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import BufferedIOBase
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from pf_stream.errors import ConfigurationError
from pf_stream.kafka.dev.errors import (
    ArtifactCorruptError,
    ArtifactMissingError,
    DiskError,
    RepositoryUnreachableError,
)
from pf_stream.kafka.dev.progress import Progress, Stage, Step

__all__ = ["Artifact", "ArtifactLock", "fetch", "load_lock"]

MIRROR = "PF_MAVEN_MIRROR"
_PARALLEL = 4
_ATTEMPTS = 3
_TIMEOUT_S = 30.0
_CHUNK = 1 << 17


@dataclass(frozen=True, slots=True)
class Artifact:
    """One jar of the lock."""

    group: str
    """Maven group id."""
    artifact: str
    """Maven artifact id."""
    version: str
    """Maven version."""
    size: int
    """Bytes."""
    sha256: str
    """Hash of the jar, in lower-case hexadecimal digits."""

    @property
    def jar(self) -> str:
        """Name of the file."""
        return f"{self.artifact}-{self.version}.jar"

    @property
    def path(self) -> str:
        """Where a Maven repository keeps it."""
        return f"{self.group.replace('.', '/')}/{self.artifact}/{self.version}/{self.jar}"


@dataclass(frozen=True, slots=True)
class ArtifactLock:
    """All jars of one Kafka version."""

    kafka: str
    """Version of Kafka."""
    artifacts: tuple[Artifact, ...]
    """The jars, in the order of the class path."""


@cache
def load_lock() -> ArtifactLock:
    """The lock that comes with this package."""
    lock = json.loads(files("pf_stream.kafka.dev").joinpath("_lock.json").read_bytes())
    return ArtifactLock(lock["kafka"], tuple(Artifact(**artifact) for artifact in lock["artifacts"]))


def fetch(
    artifacts: Sequence[Artifact],
    folder: Path,
    *,
    environ: Mapping[str, str] = os.environ,
    progress: Progress | None = None,
) -> tuple[Path, ...]:
    """Bring the jars that are missing in *folder*; paths of all of them, in the given order.

    Touches neither network nor lock when all are there. Safe for several processes at once.

    Raises:
        RepositoryUnreachableError: the repository does not answer.
        ArtifactMissingError: the repository has no such jar.
        ArtifactCorruptError: what came is not what the lock names.
        DiskError: *folder* cannot be written.
        ConfigurationError: ``PF_MAVEN_MIRROR`` is neither a URL nor a folder.
    """
    if _missing(artifacts, folder):
        report = progress or (lambda _: None)
        with _only_one(folder, report):
            if missing := _missing(artifacts, folder):
                _Download(_repository(environ), folder, report).run(missing)
    return tuple(folder / artifact.jar for artifact in artifacts)


def _missing(artifacts: Sequence[Artifact], folder: Path) -> list[Artifact]:
    found = {entry.name: entry.stat().st_size for entry in os.scandir(folder)} if folder.is_dir() else {}
    return [artifact for artifact in artifacts if found.get(artifact.jar) != artifact.size]


@contextmanager
def _only_one(folder: Path, report: Progress) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            report(Step(Stage.waiting))
            lock.acquire()
    except OSError as error:
        raise DiskError(folder, error.strerror or str(error)) from error
    try:
        yield
    finally:
        lock.release()


class _Repository(Protocol):
    name: str

    def open(self, artifact: Artifact) -> BufferedIOBase: ...


def _repository(environ: Mapping[str, str]) -> _Repository:
    mirror = environ.get(MIRROR)
    if not mirror:
        try:
            from jgo.constants import MAVEN_CENTRAL_URL
        except ModuleNotFoundError as error:
            if error.name != "jgo":
                raise
            raise ConfigurationError(
                f"no Maven repository: pip install 'pf-stream[dev]', or set {MIRROR} to a mirror or to a folder of jars"
            ) from None
        return _Web(MAVEN_CENTRAL_URL)
    parts = urllib.parse.urlsplit(mirror)
    if parts.scheme in {"http", "https"}:
        return _Web(mirror)
    folder = Path(urllib.request.url2pathname(parts.path) if parts.scheme == "file" else mirror).expanduser()
    if not folder.is_dir():
        raise ConfigurationError(f"{MIRROR}={mirror} is neither an http(s) URL nor a folder")
    return _Folder(folder)


class _Folder:
    """Jars side by side, or arranged as in a Maven repository."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = str(folder)

    def open(self, artifact: Artifact) -> BufferedIOBase:
        for path in (self._folder / artifact.jar, self._folder / artifact.path):
            if path.is_file():
                try:
                    return path.open("rb")
                except OSError as error:
                    raise RepositoryUnreachableError(self.name, f"{path.name}: {error.strerror}") from error
        raise ArtifactMissingError(artifact.jar, self.name)


class _Web:
    """A Maven repository, http(s) only.

    A user and password in its URL are sent as basic authentication and never shown.
    """

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        userinfo, _, host = parts.netloc.rpartition("@")
        self.name = urllib.parse.urlunsplit(parts._replace(netloc=host)).rstrip("/")
        self._headers = {"User-Agent": "pf_stream"}
        if userinfo:
            credentials = base64.b64encode(urllib.parse.unquote(userinfo).encode()).decode()
            self._headers["Authorization"] = f"Basic {credentials}"

    def open(self, artifact: Artifact) -> BufferedIOBase:
        request = urllib.request.Request(f"{self.name}/{artifact.path}", headers=self._headers)  # noqa: S310
        try:
            reply: BufferedIOBase = urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in {404, 410}:
                raise ArtifactMissingError(artifact.jar, self.name) from None
            raise RepositoryUnreachableError(self.name, f"HTTP {error.code} {error.reason}") from None
        except urllib.error.URLError as error:
            raise RepositoryUnreachableError(self.name, str(error.reason)) from error
        except (OSError, http.client.HTTPException) as error:
            raise RepositoryUnreachableError(self.name, str(error) or type(error).__name__) from error
        return reply


class _Download:
    """One run over the missing jars, several at a time."""

    def __init__(self, repository: _Repository, folder: Path, report: Progress) -> None:
        self._repository = repository
        self._folder = folder
        self._report = report
        self._done = 0
        self._counting = threading.Lock()
        self._given_up = threading.Event()

    def run(self, artifacts: Sequence[Artifact]) -> None:
        # Left by a process that was killed; nobody else writes here while we hold the lock.
        for part in self._folder.glob("*.part"):
            part.unlink(missing_ok=True)
        total = sum(artifact.size for artifact in artifacts)
        with ThreadPoolExecutor(_PARALLEL, "pf-fetch") as pool:
            pending = {pool.submit(self._bring, artifact) for artifact in artifacts}
            try:
                while pending:
                    finished, pending = wait(pending, timeout=0.1, return_when=FIRST_EXCEPTION)
                    for future in finished:
                        future.result()
                    self._report(Step(Stage.downloading, self._done, total))
            except BaseException:  # Ctrl-C as well: no thread may go on
                self._given_up.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _bring(self, artifact: Artifact) -> None:
        part = self._folder / f"{artifact.jar}.part"
        try:
            for attempt in range(1, _ATTEMPTS + 1):
                size, sha256 = self._copy(artifact, part)
                if self._given_up.is_set():
                    return
                if size >= artifact.size or attempt == _ATTEMPTS:
                    break
                self._count(-size)  # the connection broke off: once more from the start
            if size != artifact.size:
                raise ArtifactCorruptError(
                    artifact.jar, self._repository.name, f"{artifact.size} bytes", f"{size} bytes"
                )
            if sha256 != artifact.sha256:
                raise ArtifactCorruptError(artifact.jar, self._repository.name, f"SHA-256 {artifact.sha256}", sha256)
            part.replace(self._folder / artifact.jar)
        except OSError as error:
            raise DiskError(part, error.strerror or str(error)) from error
        finally:
            part.unlink(missing_ok=True)

    def _copy(self, artifact: Artifact, part: Path) -> tuple[int, str]:
        """Bytes that came, and their hash; fewer than expected where the connection broke off."""
        sha256 = hashlib.sha256()
        size = 0
        with self._repository.open(artifact) as source, part.open("wb") as target:
            while size <= artifact.size and not self._given_up.is_set():
                try:
                    chunk = source.read1(_CHUNK)  # what there is: a slow line must not delay the end
                except (OSError, http.client.HTTPException):
                    break
                if not chunk:
                    break
                target.write(chunk)
                sha256.update(chunk)
                size += len(chunk)
                self._count(len(chunk))
        return size, sha256.hexdigest()

    def _count(self, size: int) -> None:
        with self._counting:
            self._done += size
