"""``pf state``: where it reads, what it prints, and its exit codes; of workers that are real but for Kafka."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from pf_stream.cli import state
from pf_stream.clock import WallClock
from pf_stream.core.changelog import pack_state, state_key, state_prefix
from pf_stream.core.status import LaneState
from tests.unit.core.kit import NOW_MS, Put, record
from tests.unit.worker.site import Site, lane_status, token

ROOT = Path(__file__).parents[3]
BOX = {"items": ["hat"], "weight": 1, "anything": []}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PF_CONTEXT", "PF_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PF_TOPOLOGY", "tests.unit.core.kit:boxes")
    monkeypatch.setenv("PF_BOOTSTRAP_SERVERS", "nobody.invalid:1")
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A file with a token that may read everything."""
    return written(tmp_path, "StateCap.read:/**")


def written(folder: Path, *grants: str) -> Path:
    file = folder / "reader.ctx"
    file.write_text(token(*grants) + "\n")
    return file


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    worker = Site("w0")
    worker.open().commit_all(*(record(n, Put(box=f"b{n}", item="hat")) for n in range(5)))
    with worker.served():
        yield worker


def pf(site: Site, *words: object, context: Path | None = None) -> Result:
    asked = [] if context is None else ["--context", str(context), "--worker", f"http://127.0.0.1:{site.port}"]
    return CliRunner().invoke(state.app, [*map(str, words), *asked])


class TestGet:
    def test_a_table(self, site: Site, context: Path) -> None:
        done = pf(site, "get", "boxes", "b1", context=context)
        assert (done.exit_code, done.stderr) == (0, "")
        rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if len(line.split()) > 1)
        assert rows["key"].strip() == "b1"
        assert rows["worker"].strip() == "w0"
        assert rows["state.items"].strip() == "hat"
        assert rows["offset"].strip() == "-"

    @pytest.mark.parametrize("form", ["json", "yaml"])
    def test_for_programs(self, site: Site, context: Path, form: str) -> None:
        done = pf(site, "get", "boxes", "b1", "-o", form, context=context)
        found = json.loads(done.stdout) if form == "json" else YAML(typ="safe", pure=True).load(done.stdout)
        assert found == {
            "reactor": "boxes",
            "key": "b1",
            "version": 1,
            "stored_version": 1,
            "state": BOX,
            "topic": "box-intents-changelog",
            "partition": 0,
            "offset": None,
            "worker": "w0",
            "committed": None,
        }

    def test_none(self, site: Site, context: Path) -> None:
        done = pf(site, "get", "boxes", "b9", context=context)
        assert (done.exit_code, done.stdout) == (3, "")
        assert done.stderr == "error (no_state): reactor 'boxes' has no state under the key 'b9'\n"

    def test_not_granted(self, site: Site, tmp_path: Path) -> None:
        done = pf(site, "get", "boxes", "b1", context=written(tmp_path, "StateCap.read:/boxes/b2"))
        assert (done.exit_code, done.stdout) == (4, "")
        assert "error (insufficient_capabilities): " in done.stderr
        assert "takes StateCap.read:/boxes/b1" in " ".join(done.stderr.split())

    def test_not_now(self, context: Path) -> None:
        worker = Site("w0")
        recovering: Any = SimpleNamespace(status=lane_status(0, LaneState.recovering, progress=0.4))
        assert worker.lanes is not None
        worker.lanes._starting["intents", 0] = recovering
        with worker.served():
            done = pf(worker, "get", "boxes", "b1", context=context)
        assert (done.exit_code, done.stdout) == (5, "")
        said = " ".join(done.stderr.split())
        assert said.startswith("error (lane_recovering): lane intents-0 is being opened; 40 % of its changelog is read")
        assert said.endswith("Try again, or read the changelog: --offline")

    def test_nobody_there(self, site: Site, context: Path) -> None:
        done = CliRunner().invoke(
            state.app, ["get", "boxes", "b1", "--context", str(context), "--worker", "127.0.0.1:1"]
        )
        assert (done.exit_code, done.stdout) == (5, "")
        assert "error (no_answer)" in done.stderr


class TestWhere:
    """What is read depends on what the command is given, and on nothing else."""

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "words",
        [
            ("get", "boxes", "b1"),
            ("list", "boxes", "--offline"),
            ("export", "boxes", "--offline"),
            ("check", "--offline"),
        ],
    )
    def test_without_a_token_or_offline_the_changelog(
        self, context: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
    ) -> None:
        if "--offline" in words:
            monkeypatch.setenv("PF_CONTEXT", str(context))
        done = CliRunner().invoke(state.app, [*words])
        assert done.exit_code == 1
        assert "nobody.invalid:1" in done.stderr  # where the brokers are said to be

    @pytest.mark.parametrize("words", [("get", "boxes", "b1"), ("list", "boxes"), ("export", "boxes"), ("check",)])
    def test_a_worker_wants_a_token(self, words: tuple[str, ...]) -> None:
        done = CliRunner().invoke(state.app, [*words, "--worker", "http://127.0.0.1:1"])
        assert done.exit_code == 2
        assert "wants a token" in done.stderr

    @pytest.mark.slow
    def test_which_worker_is_looked_for_in_the_registry(self, context: Path) -> None:
        done = CliRunner().invoke(state.app, ["get", "boxes", "b1", "--context", str(context)])
        assert done.exit_code == 1
        assert "nobody.invalid:1" in done.stderr

    def test_a_worker_elsewhere(self, context: Path) -> None:
        done = CliRunner().invoke(state.app, ["list", "boxes", "--context", str(context), "--worker", "box-b:8081"])
        assert done.exit_code == 1
        assert "ssh -L" in done.stderr


class TestList:
    def test_keys(self, site: Site, context: Path) -> None:
        done = pf(site, "list", "boxes", context=context)
        assert (done.exit_code, done.stderr) == (0, "")
        assert [line.split() for line in done.stdout.splitlines()] == [
            ["key", "partition"],
            *([f"b{n}", "0"] for n in range(5)),
        ]

    def test_page_by_page(self, site: Site, context: Path) -> None:
        done = pf(site, "list", "boxes", "--limit", 2, "-o", "json", context=context)
        assert json.loads(done.stdout) == {
            "keys": [{"key": "b0", "partition": 0}, {"key": "b1", "partition": 0}],
            "next": "0:b1",
        }
        assert done.stderr == "there may be more: --cursor 0:b1\n"
        done = pf(site, "list", "boxes", "--cursor", "0:b1", "-o", "json", context=context)
        assert [one["key"] for one in json.loads(done.stdout)["keys"]] == ["b2", "b3", "b4"]

    def test_a_prefix(self, site: Site, context: Path) -> None:
        done = pf(site, "list", "boxes", "--prefix", "b3", "-o", "json", context=context)
        assert json.loads(done.stdout) == {"keys": [{"key": "b3", "partition": 0}], "next": None}

    def test_not_granted(self, site: Site, tmp_path: Path) -> None:
        done = pf(site, "list", "boxes", context=written(tmp_path, "StateCap.read:/boxes/*"))
        assert (done.exit_code, done.stdout) == (4, "")
        assert "StateCap.read:/boxes/**" in done.stderr


class TestExport:
    def test_lines(self, site: Site, context: Path) -> None:
        done = pf(site, "export", "boxes", "--prefix", "b", context=context)
        assert (done.exit_code, done.stderr) == (0, "")
        assert sorted(map(json.loads, done.stdout.splitlines()), key=str) == [
            {"reactor": "boxes", "key": f"b{n}", "version": 1, "state": BOX} for n in range(5)
        ]

    def test_what_cannot_be_decoded_is_left_out_and_said(self, context: Path) -> None:
        worker = Site("w0")
        prefix = state_prefix("boxes")
        stored = {b"a": pack_state(1, b"{}"), **{b"bad%d" % n: b"?" for n in range(12)}}
        worker.open(changelog=[(state_key(prefix, key), raw) for key, raw in stored.items()])
        with worker.served():
            done = pf(worker, "export", "boxes", context=context)
            checked = pf(worker, "check", "boxes", "-o", "json", context=context)
        assert done.exit_code == 5
        assert [json.loads(line)["key"] for line in done.stdout.splitlines()] == ["a"]
        assert done.stderr.count("left out: ") == 10
        assert "12 states cannot be decoded and are left out" in done.stderr
        assert checked.exit_code == 5
        assert json.loads(checked.stdout)["keys"] == {"boxes": 13}
        assert {(one["key"], one["offset"]) for one in json.loads(checked.stdout)["faults"]} == {
            (f"bad{n}", None) for n in range(12)
        }


class TestCheck:
    def test_all_reactors(self, site: Site, context: Path) -> None:
        done = pf(site, "check", "boxes", "-o", "json", context=context)
        assert done.exit_code == 0
        assert json.loads(done.stdout) == {"keys": {"boxes": 5}, "undeclared": {}, "faults": []}
        assert "0 of 5 states cannot be decoded" in done.stderr

    def test_not_granted(self, site: Site, tmp_path: Path) -> None:
        done = pf(site, "check", "boxes", context=written(tmp_path, "StateCap.read:/watch/**"))
        assert done.exit_code == 4


# -- as a process ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many() -> Iterator[Site]:
    """A worker with far more than a pipe takes."""
    worker = Site("w0")
    prefix = state_prefix("boxes")
    large = pack_state(1, b'{"items":["%s"]}' % (b"x" * 1000))
    worker.open(changelog=[(state_key(prefix, b"%d" % n), large) for n in range(100_000)])
    worker.clock.advance((WallClock().now_ms() - NOW_MS) / 1000)
    with worker.served():
        yield worker


def exporting(site: Site, folder: Path) -> "subprocess.Popen[str]":
    context = folder / "now.ctx"
    context.write_text(token("StateCap.read:/boxes/**", now_ms=WallClock().now_ms()))
    command = [sys.executable, "-W", "error", "-m", "pf_stream", "state", "export", "boxes", "--context", str(context)]
    return subprocess.Popen(
        [*command, "--worker", f"127.0.0.1:{site.port}"],
        cwd=ROOT,
        env={**os.environ},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.slow
def test_a_reader_who_leaves_is_no_trouble(many: Site, tmp_path: Path) -> None:
    with exporting(many, tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["key"] == "0"
        process.stdout.close()
        assert process.wait(60) == 1
        assert process.stderr.read() == ""


@pytest.mark.slow
def test_ctrl_c_ends_it(many: Site, tmp_path: Path) -> None:
    with exporting(many, tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        while process.stdout.read(1 << 20):
            pass
        assert process.wait(60) == 130
        assert process.stderr.read() == "interrupted\n"
