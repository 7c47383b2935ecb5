"""Acceptance scenarios, as a user would run them: through the driver, with tokens that are verified."""

import dataclasses
from typing import Annotated, Any

import pytest
from pydantic import Field, ValidationError

from pf_stream import (
    PUBLIC,
    Capability,
    Context,
    Effects,
    Emit,
    Intent,
    Key,
    Reactor,
    Reply,
    State,
    Topology,
    on,
    operation,
)
from pf_stream.model.capability import implies
from pf_stream.testing import Driver

# --- S1: the simple counter ------------------------------------------------------------------------------------------


class UserCap(Capability):
    """What users may do with their counters."""

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


class Multiply(Intent, name="counter.multiply", requires=UserCap.basic("/{user_id}")):
    """No reactor can."""

    user_id: Annotated[str, Key]


class Count(State):
    """The count."""

    count: int = 0


class Counter(Reactor[Count], id="counter"):
    """Counts."""

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


counter = Topology("counter", [Counter], replies=["replies"])


class TestSimpleCounter:
    """S1."""

    def test_one_two_one_nothing(self) -> None:
        """S1: +1, +1, -1, reset gives 1, 2, 1, 0."""
        driver = Driver(counter)
        ann = driver.context(UserCap.admin("/ann"), subject="ann")
        for intent in (
            Increment(user_id="ann"),
            Increment(user_id="ann"),
            Decrement(user_id="ann"),
            Reset(user_id="ann"),
        ):
            driver.send(intent, ann, reply_to="replies")
        assert [reply.json() for reply in driver.replies()] == [
            {"effect": "incremented", "count": 1},
            {"effect": "incremented", "count": 2},
            {"effect": "decremented", "count": 1},
            {"effect": "reset", "count": 0},
        ]
        assert driver.state(Counter, "ann") == Count(count=0)
        assert driver.dead_letters() == []

    def test_an_intent_that_no_reactor_handles(self) -> None:
        """S1: the unknown intent is refused, and changes nothing."""
        driver = Driver(counter)
        driver.send(Multiply(user_id="ann"), driver.context(UserCap.basic("/ann")), reply_to="replies")
        assert [letter.code for letter in driver.dead_letters()] == ["unknown_type"]
        assert [reply.json()["error"] for reply in driver.replies()] == ["unknown_type"]
        assert driver.state(Counter, "ann") is None

    def test_admin_implies_basic_and_not_the_other_way_round(self) -> None:
        """S1, and that implication keeps scope."""
        assert implies(UserCap.admin("/ann"), UserCap.basic("/ann"))
        assert not implies(UserCap.basic("/ann"), UserCap.admin("/ann"))
        assert not implies(UserCap.admin("/ann"), UserCap.basic("/bob"))
        driver = Driver(counter)
        basic = driver.context(UserCap.basic("/ann"))
        driver.send(Increment(user_id="ann"), basic)
        driver.send(Reset(user_id="ann"), basic)
        driver.send(Increment(user_id="bob"), driver.context(UserCap.admin("/ann")))
        assert driver.state(Counter, "ann") == Count(count=1)
        assert driver.state(Counter, "bob") is None
        assert driver.refused == {"insufficient_capabilities": 2}


# --- S8: the skeleton, S12: the file actor ---------------------------------------------------------------------------


class FileCap(Capability):
    """Files by path."""

    read = operation()
    write = operation()


class ReadFile(Intent, name="files.read", requires=FileCap.read("/{path...}")):
    """Read a file."""

    volume: Annotated[str, Key]
    path: str


class WriteFile(Intent, name="files.write", requires=FileCap.write("/{path...}")):
    """Write a file."""

    volume: Annotated[str, Key]
    path: str
    content: str


class FileRead(Intent, name="files.was_read", topic="events", requires=FileCap.read("/{path...}")):
    """A file was read."""

    volume: Annotated[str, Key]
    path: str
    by: str


class FileWritten(Intent, name="files.was_written", topic="events", requires=FileCap.write("/{path...}")):
    """A file was written."""

    volume: Annotated[str, Key]
    path: str
    by: str


@dataclasses.dataclass
class Metrics:
    """What a volume did."""

    reads: int = 0
    writes: int = 0
    errors: int = 0


class Volume(State):
    """Files by path."""

    files: dict[str, str] = dataclasses.field(default_factory=dict)
    metrics: Metrics = dataclasses.field(default_factory=Metrics)


class FileActor(Reactor[Volume], id="files"):
    """Reads and writes."""

    @on
    def read(self, intent: ReadFile, state: Volume, ctx: Context) -> Effects:
        content = state.files.get(intent.path)
        if content is None:
            state.metrics.errors += 1
            return Reply({"error": "file_not_found"})
        state.metrics.reads += 1
        return [Reply({"content": content}), Emit(FileRead(volume=intent.volume, path=intent.path, by=ctx.subject))]

    @on
    def write(self, intent: WriteFile, state: Volume, ctx: Context) -> Effects:
        state.files[intent.path] = intent.content
        state.metrics.writes += 1
        return [Reply({"ok": True}), Emit(FileWritten(volume=intent.volume, path=intent.path, by=ctx.subject))]


files = Topology("files", [FileActor], emits=[FileRead, FileWritten], replies=["replies"])


def test_intent_and_context_reach_the_reactor() -> None:
    """S8: a handler of three arguments, which changes the state and returns effects."""
    driver = Driver(files)
    ann = driver.context(FileCap.read("/reports/**"), FileCap.write("/reports/**"), subject="ann")
    driver.send(WriteFile(volume="v", path="/reports/may", content="fine"), ann)
    driver.send(ReadFile(volume="v", path="/reports/may"), ann, reply_to="replies")
    assert driver.state(FileActor, "v") == Volume(files={"/reports/may": "fine"}, metrics=Metrics(reads=1, writes=1))
    assert [reply.json() for reply in driver.replies()] == [{"content": "fine"}]
    assert [event.json()["by"] for event in driver.outputs("events")] == ["ann", "ann"]


class TestFileActor:
    """S12."""

    @pytest.mark.parametrize("seed", range(3))
    def test_with_capabilities_it_answers_counts_and_tells(self, seed: int) -> None:
        """S12: ok, the effect, the metrics; and the same after a crash."""
        driver = Driver(files, seed=seed)
        ann = driver.context(FileCap.read("/**"), FileCap.write("/desk/*"), subject="ann")
        driver.send(WriteFile(volume="v", path="/desk/a", content="x"), ann, reply_to="replies")
        driver.crash()
        driver.send(ReadFile(volume="v", path="/desk/a"), ann, reply_to="replies")
        driver.send(ReadFile(volume="v", path="/desk/b"), ann, reply_to="replies")
        assert [reply.json() for reply in driver.replies()] == [
            {"ok": True},
            {"content": "x"},
            {"error": "file_not_found"},
        ]
        assert [event.header("ce_type") for event in driver.outputs("events")] == [
            b"files.was_written.v1",
            b"files.was_read.v1",
        ]
        state = driver.state(FileActor, "v")
        assert state is not None
        assert state.metrics == Metrics(reads=1, writes=1, errors=1)

    def test_without_them_it_is_an_error_that_is_counted_and_changes_nothing(self) -> None:
        """S12: insufficient capabilities, and one more error each time."""
        driver = Driver(files)
        reader = driver.context(FileCap.read("/desk/**"))
        driver.send(WriteFile(volume="v", path="/desk/a", content="x"), reader, reply_to="replies")
        driver.send(ReadFile(volume="v", path="/etc/passwd"), reader, reply_to="replies")
        driver.send(ReadFile(volume="v", path="/desk/../etc/passwd"), reader, reply_to="replies")
        driver.send(ReadFile(volume="v", path="/desk/a"))
        assert driver.refused == {"insufficient_capabilities": 2, "bad_resource": 1, "missing_context": 1}
        assert [reply.json()["error"] for reply in driver.replies()] == [
            "insufficient_capabilities",
            "insufficient_capabilities",
            "bad_resource",
        ]
        assert driver.state(FileActor, "v") is None
        assert driver.outputs("events") == []


# --- S10: validated intents ------------------------------------------------------------------------------------------


class CreateUser(Intent, name="users.create", requires=PUBLIC):
    """A user, as a form takes them."""

    user_id: Annotated[str, Key, Field(min_length=1)]
    home: Annotated[str, Field(pattern="^/")]
    email: Annotated[str, Field(pattern=".@.")]
    age: Annotated[int, Field(ge=0, le=150)]
    content: str = ""


class User(State):
    """A user."""

    email: str = ""


class Users(Reactor[User], id="users"):
    """Users."""

    @on
    def create(self, intent: CreateUser, state: User, ctx: Context) -> None:
        state.email = intent.email


GOOD: dict[str, Any] = {"user_id": "ann", "home": "/home/ann", "email": "ann@example.org", "age": 40}


class TestValidatedIntents:
    """S10."""

    BAD = (
        ("home", "home/ann"),
        ("home", ""),
        ("email", "ann"),
        ("age", -1),
        ("age", 151),
        ("content", 7),
        ("user_id", ""),
        ("user_id", None),
    )

    @pytest.mark.parametrize(("field", "value"), BAD)
    def test_construction_is_refused_with_the_field_named(self, field: str, value: object) -> None:
        """S10."""
        with pytest.raises(ValidationError) as caught:
            CreateUser.model_validate({**GOOD, field: value})
        assert [error["loc"] for error in caught.value.errors()] == [(field,)]

    @pytest.mark.parametrize(("field", "value"), BAD)
    def test_so_is_what_another_client_sends(self, field: str, value: object) -> None:
        """S10, from a client that validates nothing."""
        driver = Driver(Topology("users", [Users]))
        wrong = CreateUser.model_construct(**{**GOOD, field: value})
        value_json = wrong.model_dump_json(warnings="none").encode()
        headers = [("ce_specversion", b"1.0"), ("ce_type", b"users.create.v1"), ("ce_source", b"/x"), ("ce_id", b"1")]
        driver.send_raw("intents", key=b"ann", value=value_json, headers=headers)
        (letter,) = driver.dead_letters()
        assert letter.code == "malformed_payload"
        assert letter.message.startswith(f"{field}: ")
        assert driver.state(Users, "ann") is None

    @pytest.mark.parametrize("age", [0, 150])
    def test_what_is_right_passes(self, age: int) -> None:
        """S10, at both edges."""
        driver = Driver(Topology("users", [Users]))
        driver.send(CreateUser.model_validate({**GOOD, "age": age}))
        assert driver.state(Users, "ann") == User(email="ann@example.org")
