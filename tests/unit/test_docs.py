"""The Python that the documents show runs as printed, and their YAML is what it says."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pf_stream import Topology
from pf_stream.model.constraint import parse_constraint
from pf_stream.temporal.form import job_of
from pf_stream.topology.description import describe
from pf_stream.topology.file import read_topology_file
from pf_stream.topology.form import JobsForm

DOCS = Path(__file__).parents[2] / "docs"
PACKAGES = DOCS.parent / "pf_stream"


def fences(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), flags=re.MULTILINE | re.DOTALL)


BLOCKS = [(page, number) for page in ("security.md", "time.md") for number in range(len(fences(page, "python")))]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "number"), BLOCKS)
def test_python_runs_as_printed(page: str, number: int) -> None:
    # In a process of its own: names of capabilities have one meaning in each.
    block = fences(page, "python")[number]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_streams_md_runs_as_printed() -> None:
    (block,) = fences("streams.md", "python")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_streams_md_says_the_same_in_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,), (file,) = fences("streams.md", "python"), fences("streams.md", "yaml")
    (tmp_path / "docs_rooms.py").write_text(block.partition("noon = ")[0])
    (tmp_path / "topology.yaml").write_text(
        file.replace("rooms:", "docs_rooms:").replace("  docs_rooms:\n", "  rooms:\n")
    )
    monkeypatch.syspath_prepend(tmp_path)
    topology = read_topology_file(tmp_path / "topology.yaml")
    part = importlib.import_module("docs_rooms").rooms
    assert describe(topology) == describe(Topology("sensors", [], parts=[part]))


def test_security_md_shows_yaml() -> None:
    (block,) = fences("security.md", "yaml")
    assert YAML(typ="safe").load(block)["reactors"][1]["as"] == "service"


def test_time_md_shows_yaml() -> None:
    block, constraints = fences("time.md", "yaml")
    for texts in YAML(typ="safe").load(constraints)["constraints"].values():
        assert all(map(parse_constraint, texts))
    jobs = JobsForm.model_validate(YAML(typ="safe").load(block)["jobs"])
    again = job_of("again", jobs.made["again"], {"nightly": lambda _: None}, {}, {})
    assert again.timetable is not None
    assert again.timetable.every_ms == 21_600_000
    assert jobs.made["midday"].intent == "reports.write.v1"


@pytest.mark.slow
def test_backpressure_md_runs_as_printed() -> None:
    block = "\n".join(fences("backpressure.md", "python"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_architecture_md_names_every_module() -> None:
    """Those of ``cli`` are the commands, and ``testing`` is one thing; errors are in every package."""
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*)$", (DOCS / "architecture.md").read_text(), flags=re.MULTILINE))
    packages = {path.parent.name for path in PACKAGES.glob("*/__init__.py")}
    assert packages <= rows.keys()
    for package in packages - {"cli", "testing"}:
        modules = {path.stem for path in (PACKAGES / package).glob("[a-z]*.py")} - {"errors"}
        assert modules <= set(re.findall(r"`(\w+)`", rows[package])), package
