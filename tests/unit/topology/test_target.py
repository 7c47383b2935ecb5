"""What commands take for a topology."""

import sys

import pytest

from pf_stream.errors import NotFoundError
from pf_stream.topology import TargetError, load_topology
from tests.unit.topology.conftest import FLIGHTS, Folder


@pytest.fixture(autouse=True)
def here(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.path)


def test_a_file() -> None:
    assert load_topology(str(FLIGHTS / "topology.yaml")).name == "flights"


def test_a_module_of_the_working_directory(folder: Folder) -> None:
    assert load_topology(f"{folder.module}:pings") is sys.modules[folder.module].pings


def test_a_file_without_the_suffix(folder: Folder) -> None:
    folder.write("name: pings\nreactors: [MODULE:Watcher]\n").rename(folder.path / "topology")
    assert load_topology("topology").name == "pings"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("MODULE:pngs", "has no Topology 'pngs'; did you mean 'pings'?"),
        ("MODULE:number", "is an int, not a Topology; known: pings"),
        ("nowhere_at_all:pings", "there is no module 'nowhere_at_all' in "),
        (
            "MODULE.py",
            "it is neither a .yaml file nor module:name, such as flights:flights; did you mean 'MODULE:NAME'?",
        ),
        ("flights", "it is neither a .yaml file nor module:name"),
        ("", "it is neither a .yaml file nor module:name"),
    ],
)
def test_what_is_neither(folder: Folder, target: str, said: str) -> None:
    with pytest.raises(TargetError) as caught:
        load_topology(target.replace("MODULE", folder.module))
    assert said.replace("MODULE", folder.module) in str(caught.value)


def test_a_file_that_is_missing() -> None:
    with pytest.raises(NotFoundError):
        load_topology("flights.yaml")
