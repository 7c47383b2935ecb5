"""Acceptance scenarios about who may do what and when: through the driver, with tokens that are verified."""

import dataclasses
from datetime import UTC, date, datetime
from typing import Annotated, Any

import pytest

from pf_stream import (
    Caller,
    Capability,
    Context,
    Effects,
    Intent,
    Key,
    Reactor,
    Reply,
    State,
    Topology,
    all_of,
    any_of,
    caller,
    during,
    on,
    operation,
    rule,
)
from pf_stream.model import Calendar, When, compose
from pf_stream.model.capabilities import Capabilities
from pf_stream.model.capability import Grant, implies, parse_grant
from pf_stream.testing import Driver

# --- S2: the file system ---------------------------------------------------------------------------------------------


class FileSystemCap(Capability):
    """Files by path."""

    read = operation()
    write = operation(implies=read)
    delete = operation(implies=[read, write])
    execute = operation(implies=read)
    admin = operation(implies=[read, write, delete, execute])


class FileRead(Intent, name="fs.read", requires=FileSystemCap.read("/{path...}")):
    """Read a file."""

    volume: Annotated[str, Key]
    path: str


class FileWrite(Intent, name="fs.write", requires=FileSystemCap.write("/{path...}")):
    """Write a file."""

    volume: Annotated[str, Key]
    path: str
    content: str


class FileDelete(Intent, name="fs.delete", requires=FileSystemCap.delete("/{path...}")):
    """Delete a file."""

    volume: Annotated[str, Key]
    path: str


class Volume(State):
    """What S2 keeps."""

    files: dict[str, str] = dataclasses.field(default_factory=dict)
    operations: list[str] = dataclasses.field(default_factory=list)
    users: list[str] = dataclasses.field(default_factory=list)


class FileSystem(Reactor[Volume], id="fs"):
    """Answers with the effects of the original."""

    def done(self, state: Volume, what: str, ctx: Context) -> None:
        """Note it."""
        state.operations.append(what)
        if ctx.subject not in state.users:
            state.users.append(ctx.subject)

    @on
    def read(self, intent: FileRead, state: Volume, ctx: Context) -> Effects:
        if intent.path not in state.files:
            return Reply({"error": "file_not_found"})
        self.done(state, "read", ctx)
        return Reply({"file_read": intent.path, "content": state.files[intent.path]})

    @on
    def write(self, intent: FileWrite, state: Volume, ctx: Context) -> Effects:
        state.files[intent.path] = intent.content
        self.done(state, "write", ctx)
        return Reply({"file_written": intent.path})

    @on
    def delete(self, intent: FileDelete, state: Volume, ctx: Context) -> Effects:
        if state.files.pop(intent.path, None) is None:
            return Reply({"error": "file_not_found"})
        self.done(state, "delete", ctx)
        return Reply({"file_deleted": intent.path})


fs = Topology("fs", [FileSystem], replies=["replies"])

ROLES: dict[str, list[Grant]] = {
    "admin": [FileSystemCap.admin("/**")],
    "user": [FileSystemCap.write("/home/user/**"), FileSystemCap.read("/public/**")],
    "guest": [FileSystemCap.read("/public/**")],
}
"""Capabilities by who somebody is, which the original's context computes; here the issuer does."""


class TestFileSystem:
    """S2."""

    def test_write_read_delete_and_a_missing_path(self) -> None:
        """S2."""
        driver = Driver(fs)
        admin = driver.context(*ROLES["admin"], subject="admin")
        for intent in (
            FileWrite(volume="v", path="/test.txt", content="hello"),
            FileRead(volume="v", path="/test.txt"),
            FileDelete(volume="v", path="/test.txt"),
            FileRead(volume="v", path="/test.txt"),
        ):
            driver.send(intent, admin, reply_to="replies")
        assert [reply.json() for reply in driver.replies()] == [
            {"file_written": "/test.txt"},
            {"file_read": "/test.txt", "content": "hello"},
            {"file_deleted": "/test.txt"},
            {"error": "file_not_found"},
        ]
        assert driver.state(FileSystem, "v") == Volume(operations=["write", "read", "delete"], users=["admin"])

    @pytest.mark.parametrize(
        ("role", "allowed"),
        [
            (
                "admin",
                {"read /public/a", "write /public/a", "delete /public/a", "write /home/user/a", "delete /home/user/a"},
            ),
            ("user", {"read /public/a", "write /home/user/a"}),
            ("guest", {"read /public/a"}),
        ],
    )
    def test_each_may_do_what_their_role_holds(self, role: str, allowed: set[str]) -> None:
        """S2: path-specific capabilities."""
        driver = Driver(fs)
        context = driver.context(*ROLES[role], subject=role)
        for path in ("/public/a", "/home/user/a"):
            for verb, kind in (("read", FileRead), ("write", FileWrite), ("delete", FileDelete)):
                more = {"content": "x"} if verb == "write" else {}
                driver.send(kind(volume="v", path=path, **more), context)
        refused = driver.refused["insufficient_capabilities"]
        reads_home = 0 if role == "guest" else 1
        assert refused == 6 - len(allowed) - reads_home

    def test_implications(self) -> None:
        """S2."""
        assert implies(FileSystemCap.admin("/**"), FileSystemCap.read("/test.txt"))
        assert not implies(FileSystemCap.read("/test.txt"), FileSystemCap.write("/test.txt"))
        assert not implies(FileSystemCap.admin("/a"), FileSystemCap.read("/b"))

    def test_the_context_is_propagated_and_composed(self) -> None:
        """S2: the module in the trace, a new request id for a copy; merge and override."""
        user = Caller(subject="user", capabilities=Capabilities(*ROLES["user"]), request_id="1" * 32)
        guest = Caller(subject="guest", capabilities=Capabilities(*ROLES["guest"]), request_id="2" * 32)
        inherited = user.propagate("fs/fs", strategy="inherit")
        copied = user.propagate("fs/fs", strategy="copy")
        assert inherited.trace == copied.trace == ("fs/fs",)
        assert inherited.request_id == user.request_id != copied.request_id
        assert compose(guest, user, strategy="merge").capabilities == user.capabilities
        assert compose(user, guest, strategy="override").capabilities == guest.capabilities
        assert compose(user, guest).capabilities == guest.capabilities


# --- S29: what is allowed when ---------------------------------------------------------------------------------------

OFFICE = during("mon-fri 09:00-17:00 UTC")
MAINTENANCE = When.parse("daily 02:00-04:00 UTC")


class TimedRead(Intent, name="timed.read", requires=FileSystemCap.read("/{path...}")):
    """At any time."""

    volume: Annotated[str, Key]
    path: str


class TimedWrite(Intent, name="timed.write", requires=[FileSystemCap.write("/{path...}"), OFFICE]):
    """In office hours."""

    volume: Annotated[str, Key]
    path: str


class TimedDelete(
    Intent, name="timed.delete", requires=all_of(FileSystemCap.delete("/{path...}"), OFFICE, during(~MAINTENANCE))
):
    """In office hours, and not in maintenance."""

    volume: Annotated[str, Key]
    path: str


class TimedAdmin(
    Intent,
    name="timed.admin",
    requires=[FileSystemCap.admin("/{path...}"), during("calendar office and not calendar maintenance")],
):
    """As a delete, by calendars."""

    volume: Annotated[str, Key]
    path: str


class TimedFiles(Reactor[Volume], id="timed"):
    """Notes what was done."""

    @on
    def read(self, intent: TimedRead, state: Volume, ctx: Context) -> None:
        state.operations.append("read")

    @on
    def write(self, intent: TimedWrite, state: Volume, ctx: Context) -> None:
        state.operations.append("write")

    @on
    def delete(self, intent: TimedDelete, state: Volume, ctx: Context) -> None:
        state.operations.append("delete")

    @on
    def admin(self, intent: TimedAdmin, state: Volume, ctx: Context) -> None:
        state.operations.append("admin")


timed = Topology(
    "timed",
    [TimedFiles],
    calendars={
        "office": Calendar([When.parse("mon-fri 09:00-17:00 UTC")], "UTC", [date(2026, 12, 25)]),
        "maintenance": Calendar([MAINTENANCE], "UTC", []),
    },
)

ALL = ["read", "write", "delete", "admin"]


@pytest.mark.parametrize(
    ("at", "allowed"),
    [
        (datetime(2026, 1, 5, 10, 0, tzinfo=UTC), ALL),
        (datetime(2026, 1, 5, 20, 0, tzinfo=UTC), ["read"]),
        (datetime(2026, 1, 5, 3, 0, tzinfo=UTC), ["read"]),
        (datetime(2026, 1, 5, 8, 59, 59, 999_000, UTC), ["read"]),
        (datetime(2026, 1, 5, 9, 0, tzinfo=UTC), ALL),
        (datetime(2026, 1, 5, 17, 0, tzinfo=UTC), ["read"]),
        (datetime(2026, 1, 3, 10, 0, tzinfo=UTC), ["read"]),
        (datetime(2026, 12, 25, 10, 0, tzinfo=UTC), ["read", "write", "delete"]),
    ],
)
def test_what_is_allowed_when(at: datetime, allowed: list[str]) -> None:
    """S29: reads always, writes in hours, deletes and admin in hours and not in maintenance; weekends and holidays not."""
    driver = Driver(timed, now=at)
    root = driver.context(FileSystemCap.admin("/**"))
    for kind in (TimedRead, TimedWrite, TimedDelete, TimedAdmin):
        driver.send(kind(volume="v", path="/a"), root)
    state = driver.state(TimedFiles, "v")
    assert state is not None
    assert state.operations == allowed
    assert driver.refused == ({"not_now": 4 - len(allowed)} if len(allowed) < 4 else {})


# --- S33, S56: capabilities and contexts limited in time -------------------------------------------------------------


class TestTimeLimited:
    """S33 and S56: what a token says of time."""

    def send(self, at: datetime, kind: type[Any], grants: list[Any], **said: Any) -> str | None:
        driver = Driver(timed, now=at)
        token = driver.context(*grants, subject="ann", **said)
        driver.send(kind(volume="v", path="/a"), token)
        letters = driver.dead_letters()
        return letters[0].code if letters else None

    @pytest.mark.parametrize(
        ("hour", "minute", "code"), [(8, 59, "not_now"), (9, 0, None), (16, 59, None), (17, 0, "not_now")]
    )
    def test_a_pattern_of_the_week(self, hour: int, minute: int, code: str | None) -> None:
        """S33: time_pattern, S56: business hours of a context."""
        at = datetime(2026, 1, 5, hour, minute, tzinfo=UTC)
        read = [FileSystemCap.read("/**")]
        assert self.send(at, TimedRead, read, during=["mon-fri 09:00-17:00 UTC"]) == code
        assert self.send(at.replace(day=4), TimedRead, read, during=["mon-fri 09:00-17:00 UTC"]) == "not_now"

    def test_a_window(self) -> None:
        """S33: time_window, half-open."""
        window = "2026-01-05T09:00:00Z/2026-01-05T10:00:00Z"
        for at, code in (
            (datetime(2026, 1, 5, 8, 59, 59, 999_000, UTC), "not_now"),
            (datetime(2026, 1, 5, 9, 0, tzinfo=UTC), None),
            (datetime(2026, 1, 5, 9, 59, 59, 999_000, UTC), None),
            (datetime(2026, 1, 5, 10, 0, tzinfo=UTC), "not_now"),
        ):
            assert self.send(at, TimedRead, [FileSystemCap.read("/**")], during=[window]) == code

    @pytest.mark.parametrize(("hour", "write"), [(8, "not_now"), (10, None), (17, "not_now")])
    def test_one_capability_limited_and_another_not(self, hour: int, write: str | None) -> None:
        """S33: TimeBasedFileCap, where reading is always allowed."""
        grants = [
            parse_grant("FileSystemCap.read:/**"),
            parse_grant("FileSystemCap.write:/** during mon-fri 09:00-17:00 UTC"),
        ]
        driver = Driver(fs, now=datetime(2026, 1, 5, hour, tzinfo=UTC))
        token = driver.context(*grants, subject="ann")
        driver.send(FileRead(volume="v", path="/a"), token)
        driver.send(FileWrite(volume="v", path="/a", content="x"), token)
        assert [letter.code for letter in driver.dead_letters()] == ([] if write is None else [write])

    def test_maintenance_of_a_named_calendar(self) -> None:
        """S56: the constraint is the token's, the calendar the topology's."""
        read = [FileSystemCap.read("/**")]
        for hour, code in ((1, None), (2, "not_now"), (3, "not_now"), (4, None)):
            at = datetime(2026, 1, 5, hour, tzinfo=UTC)
            assert self.send(at, TimedRead, read, during=["not calendar maintenance"]) == code
        assert self.send(at, TimedRead, read, during=["calendar unknown"]) == "not_now"


# --- S59, S10: who somebody is ---------------------------------------------------------------------------------------


@rule("scenario.own_home")
def own_home(intent: Any, who: Caller) -> bool | str:
    """The path begins with the caller's home."""
    return intent.path.startswith(f"/home/{who.subject}/") or "it is somebody else's home"


class Post(
    Intent,
    name="board.post",
    requires=[
        FileSystemCap.write("/{path...}"),
        caller(subject="{user_id}"),
        any_of(own_home, FileSystemCap.admin("/{path...}")),
    ],
):
    """Post under one's own name."""

    user_id: Annotated[str, Key]
    path: str


class Board(Reactor[Volume], id="board"):
    """Notes who posted."""

    @on
    def post(self, intent: Post, state: Volume, ctx: Context) -> None:
        state.users.append(ctx.subject)


@pytest.mark.parametrize(
    ("subject", "grants", "user_id", "path", "code"),
    [
        ("ann", [FileSystemCap.write("/**")], "ann", "/home/ann/a", None),
        ("ann", [], "ann", "/home/ann/a", "insufficient_capabilities"),
        ("ann", [FileSystemCap.read("/**")], "ann", "/home/ann/a", "insufficient_capabilities"),
        ("ann", [FileSystemCap.write("/**")], "bob", "/home/ann/a", "wrong_caller"),
        ("ann", [FileSystemCap.write("/**")], "ann", "/home/bob/a", "denied_by_rule"),
        ("ann", [FileSystemCap.admin("/home/**")], "ann", "/home/bob/a", None),
        ("ann", [FileSystemCap.admin("/home/ann/**")], "ann", "/home/bob/a", "insufficient_capabilities"),
    ],
)
def test_capabilities_and_context_are_validated(
    subject: str, grants: list[Grant], user_id: str, path: str, code: str | None
) -> None:
    """S59, and the context part of S10: named refusals; nobody escalates from basic to admin."""
    driver = Driver(Topology("board", [Board]))
    driver.send(Post(user_id=user_id, path=path), driver.context(*grants, subject=subject))
    assert [letter.code for letter in driver.dead_letters()] == ([] if code is None else [code])
    assert (driver.state(Board, user_id) is None) is (code is not None)
