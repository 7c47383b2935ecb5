"""The command line against a real broker and a real worker: from topics to a reply, a refusal, a state, a dead letter."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pf_stream.cli import _build
from pf_stream.clock import WallClock
from pf_stream.components.messaging import Sent, find_intent, parse_intent, send_and_wait
from pf_stream.core.partition import partition_of
from pf_stream.kafka.admin import Admin, NewTopicSpec
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.sender import NewRecord, send
from pf_stream.model.capability import parse_grant
from pf_stream.security import SigningKey, mint
from pf_stream.topology import read_topology_file

FLIGHTS = str(Path(__file__).parents[2] / "topologies/flights/reactors.yaml")
FLIGHT = {"tailnum": "N1", "carrier": "UA", "origin": "EWR", "flight": 1, "dest": "ORD", "delay": 7}
PF = [sys.executable, "-W", "error::ResourceWarning", "-m", "pf_stream"]


@dataclass(frozen=True)
class Said:
    """What a command printed."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class System:
    """Topics in a namespace of their own, and who may do what there."""

    environment: dict[str, str]
    namespace: str
    folder: Path
    key: SigningKey

    def pf(self, *args: str, stdin: str | None = None) -> Said:
        """Run a command in this process."""
        done = CliRunner().invoke(_build(), list(args), env=self.environment, input=stdin)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Said(done.exit_code, done.stdout, done.stderr)

    def context(self, grant: str) -> str:
        """A file with a token that grants *grant*."""
        token = mint(
            self.key,
            subject="alice",
            audience=self.namespace,
            capabilities=[parse_grant(grant)],
            now_ms=WallClock().now_ms(),
        )
        path = self.folder / "context"
        path.write_text(token + "\n", encoding="ascii")
        return str(path)

    def send(self, *args: str, grant: str | None = "FlightCap.report:/UA/**", **fields: object) -> Said:
        """Send a flight."""
        who = () if grant is None else ("--context", self.context(grant))
        data = json.dumps(FLIGHT | fields)
        return self.pf("intent", "send", "flights.departed", "-o", "json", "--data", data, *who, *args)


@pytest.fixture(scope="module")
def system(bootstrap_servers: str, tmp_path_factory: pytest.TempPathFactory) -> System:
    folder = tmp_path_factory.mktemp("cli")
    key = SigningKey.generate()
    key.save(folder / "issuer.key")
    namespace = f"cli{secrets.token_hex(5)}"
    environment = {
        "PF_BOOTSTRAP_SERVERS": bootstrap_servers,
        "PF_NAMESPACE": namespace,
        "PF_TOPOLOGY": FLIGHTS,
        "PF_TRUST_ROOTS": str(folder / "issuer.key.pub"),
    }
    return System(environment, namespace, folder, key)


class TestTopics:
    """Runs first: the later tests use these topics."""

    def test_a_worker_does_not_start_without_them(self, system: System) -> None:
        said = system.pf("worker", "run", FLIGHTS)
        assert said.code == 3
        assert "error (topic_missing): missing topics: " in said.err
        assert f"{system.namespace}.airports, {system.namespace}.airports.dlq, " in said.err
        assert "Create them with: pf topics create" in said.err

    def test_create_says_what_it_made_and_then_that_it_is_there(self, system: System) -> None:
        first = system.pf("topics", "create", FLIGHTS, "--partitions", "2", "-o", "json")
        second = system.pf("topics", "create", FLIGHTS, "-o", "json")
        assert (first.code, second.code) == (0, 0)
        own = [row for row in first.data if not row["topic"].startswith("__pf.")]
        assert {row["status"] for row in own} == {"created"}
        assert {row["status"] for row in second.data} == {"exists"}
        assert {row["partitions"] for row in second.data if not row["topic"].startswith("__pf.")} == {2}

    def test_create_does_not_change_what_differs_and_says_so(self, system: System, bootstrap_servers: str) -> None:
        other = f"{system.namespace}-other"
        Admin(ConnectionSettings(bootstrap_servers)).create([NewTopicSpec(f"{other}.intents", 1, {})], 1)
        said = system.pf("topics", "create", FLIGHTS, "--namespace", other, "-o", "json")
        assert said.code == 1
        assert {row["topic"] for row in said.data if row["status"] == "differs"} == {f"{other}.intents"}
        assert f"{other}.intents differs: " in said.err
        assert "message.timestamp.type is CreateTime instead of LogAppendTime" in said.err

    def test_list_of_a_topology_and_of_the_cluster(self, system: System) -> None:
        said = system.pf("topics", "list", FLIGHTS, "-o", "json")
        source = next(row for row in said.data if row["purpose"] == "source")
        assert source["topic"] == f"{system.namespace}.intents"
        assert (source["exists"], source["partitions"], source["records"]) == (True, 2, 0)
        assert source["timestamps"] == "LogAppendTime"
        table = system.pf("topics", "list")
        assert table.out.splitlines()[0].split() == ["topic", "partitions", "records", "cleanup", "timestamps"]


class TestWithoutAWorker:
    def test_nothing_comes_back_in_time(self, system: System) -> None:
        said = system.send("--wait", "--timeout", "300ms")
        assert said.code == 1
        assert said.data["status"] == "unanswered"
        assert "nothing came back within 300ms; does a worker run?" in said.err

    def test_what_comes_back_for_others_is_passed_over(self, system: System, bootstrap_servers: str) -> None:
        topology = read_topology_file(Path(FLIGHTS)).within(system.namespace)
        settings = ConnectionSettings(bootstrap_servers)
        intent = parse_intent(find_intent(topology, "flights.departed"), json.dumps(FLIGHT).encode())

        def answer(sent: Sent) -> None:
            replies, dead_letters = f"{system.namespace}.replies", f"{sent.topic}.dlq"
            theirs, ours = b"theirs", sent.id.encode()
            send(settings, [NewRecord(dead_letters, b"", b"{}", [("ce_id", theirs)], 0)])
            send(
                settings,
                [
                    NewRecord(replies, b"", b'"theirs"', [("pf-correlation-id", theirs)], 0),
                    NewRecord(replies, b"", b'"nobody\'s"', [], 0),
                    NewRecord(replies, b"", b'"ours"', [("pf-correlation-id", ours)], 0),
                ],
            )

        found = send_and_wait(settings, topology, intent, WallClock(), timeout_s=20, on_sent=answer)
        assert found is not None
        assert (found.reply, found.code) == ("ours", None)

    def test_state_of_a_key_that_has_none(self, system: System) -> None:
        said = system.pf("state", "get", "fleet", "N404")
        assert said.code == 3
        assert "reactor 'fleet' has no state under the key 'N404'" in said.err

    def test_a_dead_letter_that_is_none(self, system: System) -> None:
        said = system.pf("dlq", "show", f"{system.namespace}.intents.dlq:0:99")
        assert said.code == 3

    def test_no_dead_letters_is_an_empty_list(self, system: System) -> None:
        assert system.pf("dlq", "list", "--code", "token_expired", "-o", "json").data == []


@pytest.fixture(scope="class")
def worker(system: System) -> Iterator[None]:
    """A worker, ready; whatever way its tests end, it must drain and exit with 0."""
    process = subprocess.Popen(
        [*PF, "worker", "run", FLIGHTS, "--id", "w1", "--latency", "low"],
        env=os.environ | system.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "worker ready" in line:
                break
        else:
            pytest.fail("the worker ended: " + "".join(lines))
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=30)
    assert process.returncode == 0, rest


@pytest.mark.usefixtures("worker")
class TestWithAWorker:
    def test_a_reply(self, system: System) -> None:
        said = system.send("--wait", tailnum="N-reply")
        assert said.code == 0
        assert said.data == {
            "status": "replied",
            "id": said.data["id"],
            "type": "flights.departed.v1",
            "topic": f"{system.namespace}.intents",
            "partition": said.data["partition"],
            "offset": said.data["offset"],
            "reply": {"legs": 1, "cancelled": 0},
            "code": None,
            "message": None,
            "dead_letter": None,
        }

    def test_a_refusal_has_its_exit_code_and_its_dead_letter(self, system: System) -> None:
        said = system.send("--wait", carrier="DL")
        assert said.code == 4
        assert (said.data["status"], said.data["code"]) == ("refused", "insufficient_capabilities")
        assert "refused (insufficient_capabilities): " in said.err

    def test_without_a_context_the_refusal_comes_by_the_dead_letters_alone(self, system: System) -> None:
        said = system.send("--wait", grant=None)
        assert said.code == 4
        assert "requires FlightCap.report(/{carrier}/{origin}), and without --context it will be refused" in said.err
        assert said.data["code"] == "missing_context"
        shown = system.pf("dlq", "show", said.data["dead_letter"], "-o", "json").data
        assert (shown["code"], shown["value"]["tailnum"]) == ("missing_context", "N1")
        assert shown["origin"] == f"{said.data['topic']}:{said.data['partition']}:{said.data['offset']}"

    def test_state_as_it_was_committed(self, system: System) -> None:
        for _ in range(3):
            assert system.send("--wait", tailnum="N-state").code == 0
        said = system.pf("state", "get", "fleet", "N-state", "-o", "json")
        assert said.code == 0
        assert said.data["state"] == {"legs": 3, "cancelled": 0, "minutes_late": 21.0, "miles": 0.0}
        assert said.data["topic"] == f"{system.namespace}.flights-intents-changelog"
        table = system.pf("state", "get", "fleet", "N-state")
        assert ["state.legs", "3"] in [line.split() for line in table.out.splitlines()]

    def test_dead_letters_by_code_and_count(self, system: System) -> None:
        assert system.send("--wait", grant=None).code == 4
        # The later one in the lower partition, where it would be found first.
        lower, higher = (next(f"N{n}" for n in range(99) if partition_of(b"N%d" % n, 2) == p) for p in (0, 1))
        for carrier, tailnum in (("AA", higher), ("B6", lower)):
            assert system.send("--wait", carrier=carrier, tailnum=tailnum).code == 4
        last = system.pf("dlq", "list", "-n", "1", "-o", "json").data
        assert [letter["value"]["carrier"] for letter in last] == ["B6"]
        found = system.pf("dlq", "list", "--code", "insufficient_capabilities", "-o", "json").data
        assert [letter["value"]["carrier"] for letter in found][-2:] == ["AA", "B6"]
        assert {letter["code"] for letter in found} == {"insufficient_capabilities"}
        assert found == sorted(found, key=lambda letter: letter["refused"])
        # Further back than the last of any partition.
        (older,) = system.pf("dlq", "list", "--code", "missing_context", "-n", "1", "-o", "json").data
        assert older["code"] == "missing_context"

    def test_the_registry_knows_the_worker(self, system: System) -> None:
        # It announces itself once it is ready, beside its work.
        rows: list[dict[str, Any]] = []
        while len(rows) < 4:
            rows = [r for r in system.pf("registry", "list", "-o", "json").data if r["namespace"] == system.namespace]
        assert {(row["kind"], row["name"]) for row in rows} == {
            ("worker", "w1"),
            ("reactor", "fleet"),
            ("reactor", "board"),
            ("reactor", "carriers"),
        }
        assert {row["status"] for row in rows} == {"running"}


def test_a_worker_that_stopped_has_left_the_registry(system: System) -> None:
    """Runs after the worker of the class above has drained: the tests of a file run in their order."""
    rows = system.pf("registry", "list", "-o", "json").data
    assert [row for row in rows if row["namespace"] == system.namespace and row["worker"] == "w1"] == []


def test_what_a_sender_wrote_cannot_drive_the_terminal(system: System, bootstrap_servers: str) -> None:
    topic = f"{system.namespace}.carriers.dlq"
    ((_, partition, offset),) = send(
        ConnectionSettings(bootstrap_servers),
        [NewRecord(topic, b"\x1b[31mN1", b"[/red]\x1b]0;x\x07", [("pf-context", b"secret"), ("[/b]\x1b[2J", b"\x07")])],
    )
    for said in (
        system.pf("dlq", "show", f"{topic}:{partition}:{offset}"),
        system.pf("dlq", "list", "-n", "99"),
    ):
        assert said.code == 0
        assert "\x1b" not in said.out
        assert "\x07" not in said.out
        assert "secret" not in said.out
    assert "[/red]" in system.pf("dlq", "show", f"{topic}:{partition}:{offset}").out


@pytest.mark.skipif(shutil.which("jq") is None, reason="no jq here")
def test_output_goes_through_a_pipe(system: System) -> None:
    with subprocess.Popen(
        [*PF, "topics", "list", FLIGHTS, "-o", "json"],
        env=os.environ | system.environment,
        stdout=subprocess.PIPE,
    ) as listing:
        done = subprocess.run(
            ["jq", "-r", 'map(select(.purpose == "source"))[0].topic'],
            stdin=listing.stdout,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    assert listing.returncode == 0
    assert done.stdout == f"{system.namespace}.intents\n"
