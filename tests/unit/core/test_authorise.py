"""From an intent's fields to a resource, and from there to a decision."""

from datetime import timedelta
from typing import Annotated

import pytest

from pf_stream import PUBLIC, Capability, Context, Intent, Key, Reactor, State, Topology, on, operation
from pf_stream.model.when import between
from pf_stream.security import attenuate
from pf_stream.testing import Driver


class DriveCap(Capability):
    """Files, and who owns the drive."""

    read = operation()
    write = operation(implies=read)
    own = operation(implies=write)


class Read(Intent, name="kit.read", requires=DriveCap.read("/{drive}/{path...}")):
    """Read a file."""

    drive: Annotated[str, Key]
    path: str


class Copy(
    Intent,
    name="kit.copy",
    requires=[DriveCap.read("/{drive}/{path...}"), DriveCap.write("/{target}/{path...}"), DriveCap.own("/fixed/place")],
):
    """Copy a file to the same path of another drive."""

    drive: Annotated[str, Key]
    target: str
    path: str


class Look(Intent, name="kit.look_around", requires=PUBLIC):
    """Anybody may."""

    drive: Annotated[str, Key]


class Count(State):
    """What was allowed."""

    count: int = 0
    who: str = ""
    tenant: str | None = None


class Files(Reactor[Count], id="files"):
    """Counts."""

    @on
    def read(self, intent: Read, state: Count, ctx: Context) -> None:
        state.count += 1

    @on
    def copy(self, intent: Copy, state: Count, ctx: Context) -> None:
        state.count += 1

    @on
    def look(self, intent: Look, state: Count, ctx: Context) -> None:
        state.who, state.tenant = ctx.subject, ctx.tenant


FILES = Topology("kit", [Files])


def code(intent: Intent, *grants: str) -> str | None:
    """The code of the refusal under *grants*, None if the intent is handled; asked twice, since decisions are kept."""
    driver = Driver(FILES)
    held = [getattr(DriveCap, grant.partition(":")[0])(grant.partition(":")[2]) for grant in grants]
    token = driver.context(*held)
    for _ in range(2):
        driver.send(intent, token)
    letters = {letter.code for letter in driver.dead_letters()}
    state = driver.state(Files, intent.__intent__.key_of(intent))
    assert (2 if state is None else 2 - state.count) == len(driver.dead_letters())
    return letters.pop() if letters else None


@pytest.mark.parametrize(
    ("path", "grant", "expected"),
    [
        ("a/b", "read:/c/a/b", None),
        ("/a/b", "read:/c/a/b", None),
        ("a/b", "read:/c/**", None),
        ("a/b", "write:/c/*/b", None),
        ("a/b", "own:/**", None),
        ("a/b", "read:/c/a", "insufficient_capabilities"),
        ("a/b", "read:/c/*", "insufficient_capabilities"),
        ("a/b", "read:/d/**", "insufficient_capabilities"),
        ("a/../b", "read:/**", "bad_resource"),
        ("a//b", "read:/**", "bad_resource"),
        ("a/", "read:/**", "bad_resource"),
        ("a/%2e%2e/b", "read:/**", "bad_resource"),
        ("a/*", "read:/**", "bad_resource"),
    ],
)
def test_a_path_fills_the_rest(path: str, grant: str, expected: str | None) -> None:
    assert code(Read(drive="c", path=path), grant) == expected


@pytest.mark.parametrize("drive", ["a/b", "", "..", "*", "%2f"])
def test_a_field_fills_one_segment_and_no_more(drive: str) -> None:
    assert code(Read(drive=drive, path="x"), "own:/**") == "bad_resource"


def test_every_requirement_must_be_granted() -> None:
    copy = Copy(drive="c", target="d", path="f")
    everything = ["read:/c/f", "write:/d/f", "own:/fixed/place"]
    assert code(copy, *everything) is None
    for left_out in everything:
        assert code(copy, *(grant for grant in everything if grant != left_out)) == "insufficient_capabilities"


def test_each_intent_is_decided_by_its_own_fields() -> None:
    """Though decisions are kept: the next one differs in one field."""
    driver = Driver(FILES)
    token = driver.context(DriveCap.read("/c/x"), DriveCap.write("/d/x"), DriveCap.own("/fixed/place"))
    for copy in (
        Copy(drive="c", target="d", path="x"),
        Copy(drive="c", target="c", path="x"),
        Copy(drive="c", target="d", path="y"),
        Copy(drive="d", target="c", path="x"),
        Copy(drive="d", target="d", path="x"),
    ):
        driver.send(copy, token)
    assert len(driver.dead_letters()) == 3
    assert driver.state(Files, "c") == Count(count=1)
    assert driver.state(Files, "d") == Count(count=1), "write implies read"


def test_two_tokens_do_not_share_decisions() -> None:
    driver = Driver(FILES)
    driver.send(Read(drive="c", path="x"), driver.context(DriveCap.own("/**")))
    driver.send(Read(drive="c", path="x"), driver.context())
    assert [letter.code for letter in driver.dead_letters()] == ["insufficient_capabilities"]


def test_values_are_compared_one_by_one() -> None:
    """What joins to the same text is another question."""
    driver = Driver(FILES)
    token = driver.context(DriveCap.read("/a/b/c"), DriveCap.read("/ab/c"))
    for drive, path in (("a", "b/c"), ("ab", "c"), ("a", "bc"), ("abc", "c"), ("b", "a/c"), ("b/c", "a")):
        for _ in range(2):
            driver.send(Read(drive=drive, path=path), token)
    assert driver.state(Files, "a") == Count(count=2)
    assert driver.state(Files, "ab") == Count(count=2)
    assert len(driver.dead_letters()) == 8


def test_a_kept_decision_ends_with_the_token() -> None:
    driver = Driver(FILES)
    token = driver.context(DriveCap.read("/c/x"), lifetime_s=60)
    for _ in range(2):
        driver.send(Read(drive="c", path="x"), token)
    driver.advance(59.999)
    driver.send(Read(drive="c", path="x"), token)
    assert driver.dead_letters() == []
    driver.advance(0.001)
    for _ in range(2):
        driver.send(Read(drive="c", path="x"), token)
    assert [letter.code for letter in driver.dead_letters()] == ["token_expired"] * 2
    assert driver.state(Files, "c") == Count(count=3)


def test_a_type_does_not_share_decisions_with_another() -> None:
    """Though both are about the same token and the same value."""
    driver = Driver(FILES)
    token = driver.context(DriveCap.read("/**"), intent_types=[Look.__intent__.type])
    for _ in range(2):
        driver.send(Look(drive="c"), token)
        driver.send(Read(drive="c", path="x"), token)
    assert [letter.code for letter in driver.dead_letters()] == ["wrong_intent_type"] * 2


def test_refused_decisions_are_not_kept() -> None:
    driver = Driver(FILES)
    token = driver.context(DriveCap.read("/c/*"))
    driver.send(Read(drive="c", path="x"), token)
    for number in range(20):
        driver.send(Read(drive="d", path=str(number)), token)
    (authority,) = {lane.lane._handling.admission._authority for lane in driver._lanes}
    assert len(authority.recent[token.encode()].notes) == 1


def test_who_asks_is_known_where_nothing_is_required() -> None:
    driver = Driver(FILES)
    driver.send(Look(drive="c"))
    assert driver.state(Files, "c") == Count(who="", tenant=None)
    driver.send(Look(drive="c"), driver.context(subject="ann", tenant="acme"))
    assert driver.state(Files, "c") == Count(who="ann", tenant="acme")
    driver.send(Look(drive="c"), "junk")
    assert [letter.code for letter in driver.dead_letters()] == ["malformed_token"], "a context that is there must hold"


@pytest.mark.parametrize("intent", [Read(drive="c", path="x"), Look(drive="c")])
def test_what_depends_on_the_time_of_day_is_decided_each_time(intent: Intent) -> None:
    """The token is as valid as before, and the decision is not kept."""
    driver = Driver(FILES)
    until = between(None, driver.now + timedelta(minutes=1))
    token = attenuate(driver.context(DriveCap.own("/**")), driver.roots, during=[until])
    for _ in range(2):
        driver.send(intent, token)
    assert not driver.dead_letters()
    driver.advance(60)
    driver.send(intent, token)
    (letter,) = driver.dead_letters()
    assert letter.code == "not_now"
