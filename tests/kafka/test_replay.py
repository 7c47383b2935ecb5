"""Dead letters sent again on a real broker: each once, whatever is run twice or killed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from pf_stream.cli import _build
from pf_stream.clock import VirtualClock, WallClock
from pf_stream.components import replay
from pf_stream.components.replay import Caller, ContextRefusedError, Replayer, select_letters
from pf_stream.errors import NotFoundError
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.sender import SupersededError
from pf_stream.kafka.topics import REPLAYS
from pf_stream.security import mint
from tests.kafka._support import (
    ROOT,
    ROOTS,
    SIGNER,
    Client,
    CountCap,
    ThreadWorker,
    connection,
    counts,
    header_list,
    headers_of,
    in_thread,
    make_topics,
    name_in,
    now_ms,
    partition_for,
    read_topic,
    token,
    wait_until,
)


@pytest.fixture
def client(bootstrap_servers: str, unique: str) -> Client:
    topology = counts.within(unique)
    make_topics(bootstrap_servers, topology)
    return Client(bootstrap_servers, topology)


@pytest.fixture
def worker(client: Client) -> Iterator[ThreadWorker]:
    with in_thread(client.bootstrap_servers, client.topology) as running:
        yield running


def dead(client: Client, *names: str, **payload: Any) -> None:
    """Have an intent for each name refused for want of a capability."""
    context = token(client.topology, CountCap.add("/others"))
    before = len(client.dead_letters())
    for name in names:
        client.send(name, orjson.dumps({"name": name, **payload}), client.headers(pf_context=context, a="b"))
    client.flush()
    wait_until(lambda: refused(client, before + len(names)))


def refused(client: Client, times: int) -> None:
    assert len(client.dead_letters()) == times


def counted(worker: ThreadWorker, name: str, times: int) -> None:
    assert worker.count(name) == times


def replayer(client: Client, *, clock: Any = None, known: bool = True, **which: Any) -> Replayer:
    topology = client.topology if known else None
    caller = Caller(token(client.topology), topology, ROOTS if known else None)
    letters = select_letters(which.pop("topic", f"{client.topic}.dlq"), **which)
    return Replayer(connection(client.bootstrap_servers), letters, caller, clock or WallClock())


class Pf:
    """The command, with a context in a file."""

    def __init__(self, client: Client, folder: Path) -> None:
        self._environment = {
            "PF_BOOTSTRAP_SERVERS": client.bootstrap_servers,
            "PF_NAMESPACE": client.topology.namespace,
            "PF_TOPOLOGY": "tests.kafka._support:counts",
        }
        self.context = folder / "ops.ctx"
        self.context.write_text(token(client.topology, subject="ops") + "\n")
        self._trust = folder / "issuer.pub"
        SIGNER.save(folder / "issuer", overwrite=True)

    def replay(self, *args: str, code: int = 0) -> Any:
        command = ["dlq", "replay", "--context", str(self.context), "--trust", str(self._trust), "-o", "json", *args]
        done = CliRunner().invoke(_build(), command, env=self._environment)
        assert done.exit_code == code, done.output
        return json.loads(done.stdout) if done.stdout else done.stderr


@pytest.fixture
def pf(client: Client, tmp_path: Path) -> Pf:
    return Pf(client, tmp_path)


def test_a_letter_is_handled_once_however_often_it_is_replayed(client: Client, worker: ThreadWorker, pf: Pf) -> None:
    name = name_in(1, client.topology)
    dead(client, name, by=5)
    (letter,) = client.dead_letters()

    would = pf.replay()
    assert (would["executed"], would["sent"], would["left"]) == (False, 1, {})
    assert would["letters"][0]["target"] == f"{client.topic}:1"
    assert [headers_of(message).get("pf-replayed-from") for message in client.read(client.topic)] == [None]

    did = pf.replay("--execute")
    assert (did["executed"], did["sent"]) == (True, 1)
    wait_until(lambda: counted(worker, name, 5))
    for _ in range(2):
        nothing = pf.replay("--execute")
        assert (nothing["sent"], nothing["left"]) == (0, {"already replayed": 1})

    first, again = client.read(client.topic)
    assert (again.key(), again.value(), again.partition()) == (first.key(), first.value(), 1)
    position = f"{client.topic}.dlq:1:{letter.offset()}"
    assert did["letters"][0] == {
        "letter": position,
        "code": "insufficient_capabilities",
        "key": name,
        "target": f"{client.topic}:1:{again.offset()}",
        "obstacle": None,
    }
    kept = [header for header in header_list(first) if header[0] != "pf-context"]
    assert header_list(again)[:-2] == kept
    assert [name for name, _ in header_list(again)[-2:]] == ["pf-context", "pf-replayed-from"]
    assert headers_of(again)["pf-replayed-from"] == position.encode()

    notes = [message for message in read_topic(client.bootstrap_servers, REPLAYS) if message.key() == position.encode()]
    (note,) = [orjson.loads(message.value() or b"") for message in notes]
    assert (note["who"], note["code"], note["target"]) == (
        "ops",
        "insufficient_capabilities",
        did["letters"][0]["target"],
    )
    assert now_ms() - 60_000 < note["at_ms"] <= now_ms()

    assert pf.replay("--execute", "--again")["sent"] == 1
    wait_until(lambda: counted(worker, name, 10))


@pytest.mark.parametrize("moment", ["before", "after"])
def test_it_is_killed_around_its_commit(client: Client, worker: ThreadWorker, moment: str) -> None:
    """Before, nothing has happened; after, all of it has. Either way the second run makes it one."""
    names = [name_in(partition, client.topology) for partition in (0, 1)]
    dead(client, *names)
    program = f"""
import os, signal
from pf_stream.clock import WallClock
from pf_stream.components.replay import Caller, Replayer, select_letters
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.sender import TransactionalSender
commit = TransactionalSender._commit
def killed(self):
    if {moment!r} == "after":
        commit(self)
    os.kill(os.getpid(), signal.SIGKILL)
TransactionalSender._commit = killed
settings = ConnectionSettings({client.bootstrap_servers!r})
caller = Caller({token(client.topology)!r}, None, None)
list(Replayer(settings, select_letters({client.topic + ".dlq"!r}), caller, WallClock()).execute())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -9, done.stderr

    rest = list(replayer(client).execute())
    assert len(rest) == 2
    assert [letter.obstacle is None for letter in rest] == [moment == "before"] * 2
    for name in names:
        wait_until(lambda name=name: counted(worker, name, 1))  # type: ignore[misc]
    assert not [letter for letter in replayer(client).execute() if letter.obstacle is None]
    # Behind everything that was sent again, in each partition.
    for name in names:
        client.add(name)
    client.flush()
    for name in names:
        wait_until(lambda name=name: counted(worker, name, 2))  # type: ignore[misc]


def test_the_later_of_two_commands_takes_over(
    client: Client, worker: ThreadWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = name_in(0, client.topology)
    dead(client, *[name] * 3)
    monkeypatch.setattr(replay, "BATCH", 1)
    first = replayer(client).execute()
    assert next(first).obstacle is None
    assert [letter.obstacle is None for letter in replayer(client).execute()] == [False, True, True]
    with pytest.raises(SupersededError):
        list(first)
    wait_until(lambda: counted(worker, name, 3))
    sent = [message for message in client.read(client.topic) if "pf-replayed-from" in headers_of(message)]
    assert len(sent) == 3


def test_a_letter_of_an_internal_topic(client: Client, worker: ThreadWorker) -> None:
    """Only the topology writes there, and what is replayed counts as written by it; told the topology, the command can."""
    topic = f"{client.topology.namespace}.totals"
    payload = {"total": "all", "name": "x", "by": 7}
    client.send("all", orjson.dumps(payload), client.headers("counts.totalled.v1"), topic=topic)
    client.flush()
    wait_until(lambda: has(client, f"{topic}.dlq"))
    for _ in range(2):
        (letter,) = replayer(client, topic=f"{topic}.dlq").execute(again=True)
        assert (letter.code, letter.obstacle) == ("untrusted_record", None)
    wait_until(lambda: totalled(worker, 14))


def has(client: Client, topic: str) -> None:
    assert client.read(topic)


def totalled(worker: ThreadWorker, total: int) -> None:
    assert worker.total() == total


def test_a_letter_that_was_rerouted_goes_to_the_public_topic(client: Client, worker: ThreadWorker) -> None:
    name = name_in(0, client.topology)
    client.add(name, partition=1, how="raises")
    client.flush()
    wait_until(lambda: refused(client, 1))
    (message,) = client.dead_letters()
    assert headers_of(message)["__streams.errors.topic"] == f"{client.topic}.rerouted".encode()
    (letter,) = replayer(client).preview()
    assert (letter.target, letter.code, letter.obstacle) == (f"{client.topic}:0", "handler_failed", None)


def test_which_letters(client: Client, worker: ThreadWorker) -> None:
    names = [name_in(partition, client.topology) for partition in (0, 0, 1)]
    dead(client, *names)
    client.place(names[0], None)
    wait_until(lambda: refused(client, 4))
    before = now_ms() - 3_600_000

    def keys(**which: Any) -> list[tuple[str | None, bool]]:
        return sorted((letter.key, letter.obstacle is None) for letter in replayer(client, **which).preview())

    assert keys(code="null_value") == [(names[0], False)]
    assert len(keys(code="insufficient_capabilities")) == 3
    assert len(keys(since_ms=before)) == 4
    assert keys(since_ms=now_ms() + 3_600_000) == []
    assert keys(positions=((0, 1), (1, 0))) == sorted([(names[1], True), (names[2], True)])
    with pytest.raises(NotFoundError, match=r"there is no dead letter at .*:1:7"):
        keys(positions=((0, 0), (1, 7)))


def test_what_cannot_be_sent_again(client: Client) -> None:
    """Judged as the workers would, where it is known what they are; else by what is plain to see."""
    topic = f"{client.topic}.dlq"
    name = name_in(0, client.topology)
    good = orjson.dumps({"name": name})
    plain = [(key, raw) for key, raw in client.headers() if key != "pf-context"]
    client.send(name, good, [*plain, ("pf-error-code", b"handler_failed")], topic=topic, partition=0)
    client.send(name, b"{}", plain, topic=topic, partition=0)
    client.send(name, good, [*plain, ("pf-deadline", b"2020-01-01T00:00:00Z")], topic=topic, partition=0)
    client.send(None, good, plain, topic=topic, partition=0)
    client.send(None, None, [("__streams.errors.topic", b"t")], topic=topic, partition=0)
    client.flush()
    told = [letter.obstacle for letter in replayer(client).preview()]
    assert told[0] is None
    assert [(text or "").partition(": ")[0] for text in told[1:4]] == [
        "it would be refused again (malformed_payload)",
        "it would be refused again (deadline_passed)",
        "it would be refused again (null_key)",
    ]
    assert told[4] == "its content was too large to be kept; it was read at t:?:?"
    untold = [letter.obstacle for letter in replayer(client, known=False).preview()]
    assert untold[:3] == [None] * 3
    assert untold[3] == "it has no key, and would be refused again (null_key)"


def test_a_context_that_would_not_do(client: Client, pf: Pf) -> None:
    with pytest.raises(ContextRefusedError, match="token_expired"):
        replayer(client, clock=VirtualClock(now_ms() + 3_600_000))
    other = Caller(token(counts.within("elsewhere")), None, None)
    letters = select_letters(f"{client.topic}.dlq")
    for caller in (other, Caller(other.token, client.topology, None)):
        with pytest.raises(ContextRefusedError, match="wrong_audience"):
            Replayer(connection(client.bootstrap_servers), letters, caller, WallClock())
    gone = mint(
        SIGNER,
        subject="tester",
        audience=client.topology.namespace,
        capabilities=[CountCap.add("/**")],
        now_ms=now_ms(),
        during=["../2020-01-01T00:00:00Z"],
    )
    with pytest.raises(ContextRefusedError, match="not_now"):
        Replayer(connection(client.bootstrap_servers), letters, Caller(gone, client.topology, ROOTS), WallClock())
    pf.context.write_text(other.token)
    assert "error (wrong_audience): " in pf.replay("--execute", code=4)


def test_letters_of_a_topic_that_was_made_anew(client: Client) -> None:
    """Its offsets mean other letters than those that are remembered."""
    topic = f"{client.topic}.dlq"
    name = name_in(0, client.topology)
    plain = [(key, raw) for key, raw in client.headers() if key != "pf-context"]
    for _ in range(2):
        client.send(name, orjson.dumps({"name": name}), plain, topic=topic, partition=0)
        client.flush()
        (letter,) = replayer(client).execute()
        assert letter.obstacle is None
        (letter,) = replayer(client).execute()
        assert letter.obstacle is not None
        admin = Admin(connection(client.bootstrap_servers))
        admin.delete([topic])
        make_topics(client.bootstrap_servers, client.topology)
    assert partition_for(name, client.topology) == 0
