"""Acceptance scenarios end to end: declared as users declare them, run by one worker on a real Kafka, asked by a client.

The same scenarios run in memory in tests/unit; here their answers cross Kafka.
"""

import secrets
from collections.abc import Iterator
from typing import Annotated, Any

import orjson
import pytest
from pydantic import Field, ValidationError

from pf_stream import Capability, Context, Effects, Emit, Intent, Key, Reactor, Reply, State, Topology, on, operation
from pf_stream.model import Grant
from pf_stream.security import Claims, Verifier
from tests.kafka._support import (
    ROOTS,
    Client,
    ThreadWorker,
    header_list,
    headers_of,
    in_thread,
    make_topics,
    now_ms,
    token,
    wait_until,
)

# -- S1: a counter --------------------------------------------------------------------------------------------------------


class UserCap(Capability):
    """What users may do."""

    basic = operation()
    admin = operation(implies=basic)


class Increment(Intent, name="counter.increment", requires=UserCap.basic("/{user_id}")):
    """One more."""

    user_id: Annotated[str, Key]


class Decrement(Intent, name="counter.decrement", requires=UserCap.basic("/{user_id}")):
    """One less."""

    user_id: Annotated[str, Key]


class Reset(Intent, name="counter.reset", requires=UserCap.admin("/{user_id}")):
    """Back to nothing."""

    user_id: Annotated[str, Key]


class Square(Intent, name="counter.square", requires=UserCap.basic("/{user_id}")):
    """No reactor does that."""

    user_id: Annotated[str, Key]


class Count(State):
    """A count."""

    count: int = 0


class Counter(Reactor[Count], id="counter"):
    """Counts for each user."""

    @on
    def increment(self, intent: Increment, state: Count, ctx: Context) -> Effects:
        state.count += 1
        return Reply({"effect": "incremented", "count": state.count})

    @on
    def decrement(self, intent: Decrement, state: Count, ctx: Context) -> Effects:
        state.count -= 1
        return Reply({"effect": "decremented", "count": state.count})

    @on
    def reset(self, intent: Reset, state: Count, ctx: Context) -> Effects:
        state.count = 0
        return Reply({"effect": "reset", "count": state.count})


# -- S8, S10 and S12: files ---------------------------------------------------------------------------------------------


class FileCap(Capability):
    """Files by their path."""

    read = operation()
    write = operation()


Path = Annotated[str, Field(pattern="^/")]
Email = Annotated[str, Field(pattern="^[^@]+@[^@]+$")]


class ReadFile(Intent, name="files.read", requires=FileCap.read("/{path...}")):
    """Read a file."""

    path: Annotated[Path, Key]
    user_id: str


class WriteFile(Intent, name="files.write", requires=FileCap.write("/{path...}")):
    """Write a file; the owner's data are validated."""

    path: Annotated[Path, Key]
    user_id: str
    content: str
    email: Email
    age: Annotated[int, Field(ge=0, le=150)]


class FileRead(Intent, name="files.was_read", topic="events", requires=FileCap.read("/{path...}")):
    """A file was read."""

    path: Annotated[str, Key]
    by: str


class FileWritten(Intent, name="files.was_written", topic="events", requires=FileCap.write("/{path...}")):
    """A file was written."""

    path: Annotated[str, Key]
    by: str


class File(State):
    """A file and what was done with it."""

    content: str | None = None
    reads: int = 0
    writes: int = 0


class FileActor(Reactor[File], id="files"):
    """Reads and writes files."""

    @on
    def read(self, intent: ReadFile, state: File, ctx: Context) -> Effects:
        if state.content is None:
            return Reply({"error": "file_not_found"})
        state.reads += 1
        return [Reply({"ok": True, "content": state.content}), Emit(FileRead(path=intent.path, by=ctx.subject))]

    @on
    def write(self, intent: WriteFile, state: File, ctx: Context) -> Effects:
        state.content = intent.content
        state.writes += 1
        return [Reply({"ok": True, "user": ctx.subject}), Emit(FileWritten(path=intent.path, by=ctx.subject))]


# -- one worker for all -------------------------------------------------------------------------------------------------


class Person:
    """Somebody with a context, who asks and is answered."""

    def __init__(self, client: Client, name: str, *capabilities: Grant) -> None:
        self.name = name
        self._client = client
        self._context = token(client.topology, *capabilities, subject=name)
        self._replies = f"{client.topology.namespace}.replies"

    def ask(self, *intents: Intent) -> list[Any]:
        """Send intents, in order; their replies, in that order."""
        return self.ask_raw(
            *((i.__intent__.type, i.__intent__.key_of(i), orjson.loads(i.model_dump_json())) for i in intents)
        )

    def ask_raw(self, *intents: tuple[str, bytes, object]) -> list[Any]:
        """As a client that validates nothing: type, key and data of each."""
        ids = []
        for kind, key, data in intents:
            ids.append(secrets.token_hex(8))
            headers = self._client.headers(
                kind, pf_context=self._context, pf_reply_to=self._replies, pf_correlation_id=ids[-1]
            )
            self._client.send(key, orjson.dumps(data), headers)
        self._client.flush()

        def answered() -> list[Any]:
            found: dict[str, Any] = {}
            for message in self._client.read(self._replies):
                id_ = (headers_of(message)["pf-correlation-id"] or b"").decode()
                assert id_ not in found, "two replies to one intent"
                found[id_] = orjson.loads(message.value() or b"null")
            assert found.keys() >= set(ids)
            return [found[id_] for id_ in ids]

        return wait_until(answered)


@pytest.fixture(scope="module")
def client(bootstrap_servers: str) -> Client:
    topology = Topology(
        "scenarios",
        [Counter, FileActor],
        namespace="t" + secrets.token_hex(5),
        emits=[FileRead, FileWritten],
        replies=["replies"],
        partitions=2,
    )
    make_topics(bootstrap_servers, topology)
    return Client(bootstrap_servers, topology)


@pytest.fixture(scope="module")
def worker(bootstrap_servers: str, client: Client) -> Iterator[ThreadWorker]:
    with in_thread(bootstrap_servers, client.topology) as worker:
        yield worker


def events(client: Client, path: str) -> list[tuple[bytes | None, Any]]:
    """Types and data of the effects of one file, in their order."""
    found = client.read(f"{client.topology.namespace}.events")
    return [
        (headers_of(message)["ce_type"], orjson.loads(message.value() or b"null"))
        for message in found
        if message.key() == path.encode()
    ]


def test_simple_counter(client: Client, worker: ThreadWorker) -> None:
    """S1: +1, +1, -1, reset gives 1, 2, 1, 0; its effects come as replies."""
    ann = Person(client, "ann", UserCap.admin("/ann"))
    steps = Increment(user_id="ann"), Increment(user_id="ann"), Decrement(user_id="ann"), Reset(user_id="ann")
    assert ann.ask(*steps) == [
        {"effect": "incremented", "count": 1},
        {"effect": "incremented", "count": 2},
        {"effect": "decremented", "count": 1},
        {"effect": "reset", "count": 0},
    ]
    assert worker.state("counter", "ann") == {"count": 0}


def test_unknown_intent(client: Client, worker: ThreadWorker) -> None:
    """S1: what no reactor handles is refused, and changes nothing."""
    ann = Person(client, "ann", UserCap.admin("/squares"))
    (answer,) = ann.ask(Square(user_id="squares"))
    assert answer["error"] == "unknown_type"
    assert worker.state("counter", "squares") is None


def test_admin_implies_basic_and_basic_does_not_imply_admin(client: Client, worker: ThreadWorker) -> None:
    """S1: and what one may do with one's own counter says nothing about another's."""
    admin = Person(client, "root", UserCap.admin("/bob"))
    bob = Person(client, "bob", UserCap.basic("/bob"))
    assert admin.ask(Increment(user_id="bob")) == [{"effect": "incremented", "count": 1}]
    refused, counted = bob.ask(Reset(user_id="bob"), Increment(user_id="bob"))
    assert refused["error"] == "insufficient_capabilities"
    assert counted == {"effect": "incremented", "count": 2}
    (foreign,) = admin.ask(Increment(user_id="carol"))
    assert foreign["error"] == "insufficient_capabilities"
    assert worker.state("counter", "carol") is None


def test_read_file_skeleton(client: Client, worker: ThreadWorker) -> None:
    """S8: intent and context reach the reactor, which returns its state changed and effects."""
    ann = Person(client, "ann", FileCap.read("/skeleton/**"), FileCap.write("/skeleton/**"))
    path = "/skeleton/report"
    write = WriteFile(path=path, user_id="u", content="fine", email="ann@example.org", age=40)
    assert ann.ask(write, ReadFile(path=path, user_id="u")) == [
        {"ok": True, "user": "ann"},
        {"ok": True, "content": "fine"},
    ]
    assert worker.state("files", path) == {"content": "fine", "reads": 1, "writes": 1}
    wait_until(lambda: same(len(events(client, path)), 2))
    assert [data["by"] for _, data in events(client, path)] == ["ann", "ann"]


GOOD: dict[str, Any] = {"path": "/v/a", "user_id": "u", "content": "x", "email": "ann@example.org", "age": 40}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("path", "v/a"),
        ("user_id", 7),
        ("content", None),
        ("email", "ann"),
        ("age", -1),
        ("age", 151),
    ],
)
def test_validated_intents(client: Client, worker: ThreadWorker, field: str, value: object) -> None:
    """S10: refused with the field named, where it is made and where it arrives."""
    with pytest.raises(ValidationError) as caught:
        WriteFile.model_validate({**GOOD, field: value})
    assert [error["loc"] for error in caught.value.errors()] == [(field,)]

    ann = Person(client, "ann", FileCap.write("/**"))
    (answer,) = ann.ask_raw(("files.write.v1", b"/v/a", {**GOOD, field: value}))
    assert answer["error"] == "malformed_payload"
    assert answer["message"].startswith(f"{field}: ")
    assert worker.state("files", "/v/a") is None


def test_validated_intents_at_their_edges(client: Client, worker: ThreadWorker) -> None:
    """S10: what is just right passes."""
    ann = Person(client, "ann", FileCap.write("/edges/**"))
    paths = "/edges/0", "/edges/150"
    intents = [WriteFile.model_validate({**GOOD, "path": path, "age": int(path[7:])}) for path in paths]
    assert ann.ask(*intents) == [{"ok": True, "user": "ann"}] * 2


def test_file_actor(client: Client, worker: ThreadWorker) -> None:
    """S12: with capabilities ok, counted, and an effect; without, insufficient_capabilities and one error more."""
    writer = Person(client, "writer", FileCap.read("/actor/**"), FileCap.write("/actor/desk/*"))
    reader = Person(client, "reader", FileCap.read("/actor/**"))
    path = "/actor/desk/a"
    before = errors(worker)
    write = WriteFile.model_validate({**GOOD, "path": path, "content": "mine"})
    assert writer.ask(write, ReadFile(path=path, user_id="u"))[1] == {"ok": True, "content": "mine"}
    assert reader.ask(ReadFile(path=path, user_id="u")) == [{"ok": True, "content": "mine"}]
    assert errors(worker) == before

    overwrite = WriteFile.model_validate({**GOOD, "path": path, "content": "not mine"})
    elsewhere = WriteFile.model_validate({**GOOD, "path": "/actor/locked"})
    (first,) = reader.ask(overwrite)
    assert first["error"] == "insufficient_capabilities"
    assert errors(worker) == before + 1
    (second,) = writer.ask(elsewhere)
    assert second["error"] == "insufficient_capabilities"
    assert errors(worker) == before + 2

    assert worker.state("files", path) == {"content": "mine", "reads": 2, "writes": 1}
    assert worker.state("files", "/actor/locked") is None
    wait_until(lambda: same(len(events(client, path)), 3))
    assert events(client, path) == [
        (b"files.was_written.v1", {"path": path, "by": "writer"}),
        (b"files.was_read.v1", {"path": path, "by": "writer"}),
        (b"files.was_read.v1", {"path": path, "by": "reader"}),
    ]
    assert not events(client, "/actor/locked")


def errors(worker: ThreadWorker) -> int:
    """S12's errors: what the engine refused."""
    return worker.refused["insufficient_capabilities"]


def test_an_effect_carries_the_callers_context_narrowed(client: Client, worker: ThreadWorker) -> None:
    """S12: the effect is an authorised intent itself, and its token grants no more than the effect needs."""
    ann = Person(client, "ann", FileCap.read("/carried/**"), FileCap.write("/carried/**"))
    path = "/carried/a"
    ann.ask(WriteFile.model_validate({**GOOD, "path": path}))
    topic = f"{client.topology.namespace}.events"
    wait_until(lambda: same(len(events(client, path)), 1))
    (message,) = [message for message in client.read(topic) if message.key() == path.encode()]
    names = [name for name, _ in header_list(message)]
    assert len(names) == len(set(names))
    context = headers_of(message)["pf-context"] or b""
    claims = Verifier(ROOTS, client.topology.namespace).verify(context)
    assert isinstance(claims, Claims)
    assert claims.subject == "ann"

    def refusal(operation: str, kind: str, where: str) -> str | None:
        found = claims.refusal(frozenset({operation}), path, kind, where, now_ms())
        return None if found is None else found.code

    assert refusal("FileCap.write", "files.was_written.v1", topic) is None
    assert refusal("FileCap.read", "files.was_written.v1", topic) == "insufficient_capabilities"
    assert refusal("FileCap.write", "files.write.v1", topic) == "wrong_intent_type"
    assert refusal("FileCap.write", "files.was_written.v1", client.topic) == "wrong_topic"


def same(found: object, wanted: object) -> None:
    assert found == wanted
