"""Requirements as they are declared; what they decide is in tests/unit/core/test_requirements.py."""

from typing import Annotated, Any

import pytest

from pf_stream.errors import DefinitionError
from pf_stream.model import Context, Effects, Intent, Key, Reactor, State, Topology, on
from pf_stream.model.capability import Capability, Grant, operation
from pf_stream.model.requirement import all_of, any_of, caller, computed, during, fields_of, grants_of
from pf_stream.model.when import Calendar, When


class ReqCap(Capability):
    """What these tests require."""

    read = operation()
    write = operation(implies=read)


def as_any(value: object) -> Any:
    """What a type checker would refuse."""
    return value


def grants(_: Any) -> Grant:
    """Says nothing new."""
    return READ


READ, WRITE = ReqCap.read("/{book}"), ReqCap.write("/{shelf}/{book}")


@pytest.mark.parametrize(
    ("requirement", "text"),
    [
        (all_of(READ, WRITE), "(ReqCap.read(/{book}) and ReqCap.write(/{shelf}/{book}))"),
        (any_of(READ, all_of(WRITE, READ)), "(ReqCap.read(/{book}) or (ReqCap.write(/{shelf}/{book}) and ReqCap.read(/{book})))"),
        (computed(grants, within=ReqCap.read("/**")), "grants(intent) within ReqCap.read(/**)"),
        (
            computed(lambda _: READ, within=[ReqCap.read("/a"), ReqCap.read("/b")]),
            "lambda(intent) within ReqCap.read(/a) or ReqCap.read(/b)",
        ),
        (caller(subject="{owner}", tenant="acme"), "caller's subject is {owner} and caller's tenant is acme"),
        (caller(attributes={"team": "x"}, authenticated_within="15m"), "caller's team is x and caller authenticated within 900 s"),
        (during("daily 09:00-17:00 UTC"), "during daily 09:00-17:00 UTC"),
        (during(~When.parse("calendar office")), "during not calendar office"),
    ],
)  # fmt: skip
def test_reads_as_what_it_means(requirement: Any, text: str) -> None:
    assert str(requirement) == text


def test_knows_what_may_be_asked_and_what_is_read() -> None:
    bound = ReqCap.write("/x/**")
    one = all_of(any_of(READ, caller(subject="{owner}")), computed(grants, within=bound), WRITE)
    assert list(grants_of(one)) == [READ, bound, WRITE]
    assert list(fields_of(one)) == ["book", "owner", "shelf", "book"]


def test_is_a_value() -> None:
    assert all_of(READ, caller(tenant="a")) == all_of(READ, caller(tenant="a"))
    assert hash(any_of(READ, during("daily 09:00-17:00 UTC"))) == hash(any_of(READ, during("daily 09:00-17:00 UTC")))


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (all_of, "names no requirement"),
        (any_of, "names no requirement"),
        (lambda: any_of(READ, as_any("x")), "'x' is no requirement: write SomeCap.operation"),
        (lambda: all_of(as_any(ReqCap.read)), "is no requirement"),
        (lambda: computed(grants, within=[]), "within names no grant"),
        (lambda: computed(grants, within=READ), r"ReqCap.read\(/\{book\}\) is a template; name the widest scope, ReqCap.read\(/\*\)"),
        (lambda: computed(grants, within=[as_any("x")]), "'x' is no requirement"),
        (caller, "asks nothing"),
        (lambda: caller(authenticated_within="soon"), "must be a number and a unit, such as '15m'"),
        (lambda: during("whenever"), "whenever"),
    ],
)  # fmt: skip
def test_mistakes_are_told(make: Any, fault: str) -> None:
    with pytest.raises(DefinitionError, match=fault):
        make()


@pytest.mark.parametrize(
    ("requires", "fault"),
    [
        (any_of(READ, ReqCap.read("/{boook}")), "has no field 'boook'; did you mean 'book'"),
        (caller(subject="{owner}"), "has no field 'owner'"),
        (caller(subject="{pages}"), "field 'pages' must be a str"),
        (ReqCap.read("/**"), "an intent is about one resource and nothing fills '\\*\\*'"),
        (all_of(READ, any_of(ReqCap.read("/*/x"), READ)), "an intent is about one resource"),
        ([], "is no capability"),
        ([READ, None], "is no capability"),
        (ReqCap.read, "is no capability"),
    ],
)
def test_of_an_intent_they_are_told_where_its_class_is_made(requires: Any, fault: str) -> None:
    with pytest.raises(DefinitionError, match=fault):

        class Read(Intent, name="req.read", requires=requires):
            """A book."""

            book: Annotated[str, Key]
            pages: int = 0


class Lend(Intent, name="req.lend", requires=READ):
    """A book."""

    book: Annotated[str, Key]


class Books(State):
    """None."""

    count: int = 0


@pytest.mark.parametrize(
    ("requires", "fault"),
    [
        (ReqCap.read("/{shelf}"), r"handler 'lend' requires ReqCap.read\(/\{shelf\}\), but has no field 'shelf'"),
        ("x", "handler 'lend': requires='x' is no requirement"),
        ([], r"handler 'lend': requires=\[\] is no requirement"),
    ],
)
def test_of_a_handler_they_are_told_where_its_reactor_is_made(requires: Any, fault: str) -> None:
    with pytest.raises(DefinitionError, match=fault):

        class Library(Reactor[Books], id="library"):
            """Lends."""

            @on(requires=requires)
            def lend(self, intent: Lend, state: Books, ctx: Context) -> Effects:
                return None


class Library(Reactor[Books], id="library"):
    """Lends."""

    @on(requires=[during("daily 09:00-17:00 UTC"), READ])
    def lend(self, intent: Lend, state: Books, ctx: Context) -> Effects:
        """To anybody."""
        return None


class TestTopology:
    def test_all_that_is_required_each_once(self) -> None:
        tenant = caller(tenant="acme")
        topology = Topology("lib", [Library], requires={"req.lend": [tenant, READ]})
        assert topology.requirements(Lend.__intent__) == (READ, during("daily 09:00-17:00 UTC"), tenant)
        assert topology.within("other").requirements(Lend.__intent__) == topology.requirements(Lend.__intent__)

    @pytest.mark.parametrize(
        ("requires", "fault"),
        [
            ({"req.lent": READ}, "requires something for 'req.lent', which is no intent here; did you mean 'req.lend'"),
            ({"req.lend": WRITE}, r"req.lend requires ReqCap.write\(/\{shelf\}/\{book\}\), but has no field 'shelf'"),
            ({"req.lend": "x"}, "requires for 'req.lend' 'x', which is no requirement"),
            ({"req.lend": during("calendar office")}, "there is no calendar 'office'"),
        ],
    )
    def test_mistakes_are_told(self, requires: Any, fault: str) -> None:
        with pytest.raises(DefinitionError, match=fault):
            Topology("lib", [Library], requires=requires)


@pytest.mark.parametrize("name", ["", "Office", "an office", "9to5"])
def test_a_calendar_that_nobody_could_name(name: str) -> None:
    with pytest.raises(DefinitionError, match="must be lower case letters"):
        Topology("lib", [Library], calendars={name: Calendar([], "UTC", [])})


def test_a_grant_is_what_it_was() -> None:
    assert isinstance(READ, Grant)
