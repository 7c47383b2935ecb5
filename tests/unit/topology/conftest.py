"""A folder with a topology: a file and the modules it names, which no other test has."""

import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FLIGHTS = ROOT / "topologies/flights"

_number = itertools.count()

REACTORS = '''\
from typing import Annotated

from pf_stream import PUBLIC, Intent, Key, Reactor, State, Topology, on


class Ping(Intent, name="ping", requires=PUBLIC):
    """A call."""

    host: Annotated[str, Key]


class Pong(Intent, name="pong", topic="pongs", requires=PUBLIC):
    host: Annotated[str, Key]


class Seen(State):
    count: int = 0


class Watcher(Reactor[Seen], id="watcher"):
    @on
    def pinged(self, intent: Ping, state: Seen, ctx: object) -> None:
        state.count += 1


class Echo(Reactor[Seen], id="echo"):
    @on
    def ponged(self, intent: Pong, state: Seen, ctx: object) -> None:
        state.count += 1


pings = Topology("pings", reactors=[Watcher])
number = 7
'''


@dataclass(frozen=True)
class Folder:
    """Where the files are, and the name under which the reactors' module can be imported."""

    path: Path
    module: str

    def write(self, text: str) -> Path:
        """Write ``topology.yaml``; ``MODULE`` stands for the module."""
        file = self.path / "topology.yaml"
        file.write_text(text.replace("MODULE", self.module), encoding="utf-8")
        return file

    def add(self, source: str, suffix: str = "x") -> str:
        """Write another module; returns its name."""
        name = f"{self.module}{suffix}"
        (self.path / f"{name}.py").write_text(source, encoding="utf-8")
        return name


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    with _made(tmp_path) as folder:
        yield folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    """The folder of all tests of a module that write no more than the file: what it names is imported once."""
    with _made(tmp_path_factory.mktemp("shared")) as folder:
        yield folder


@contextmanager
def _made(path: Path) -> Iterator[Folder]:
    before = set(sys.modules)
    made = Folder(path, f"pings_{next(_number)}")
    (path / f"{made.module}.py").write_text(REACTORS, encoding="utf-8")
    yield made
    for name in set(sys.modules) - before:
        if name.startswith(made.module):
            del sys.modules[name]
