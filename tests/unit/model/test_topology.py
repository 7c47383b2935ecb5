"""Topologies: names, groups, and every fault at once."""

from typing import Annotated, Any

import pytest

from pf_stream import PUBLIC, Context, DefinitionError, Intent, Key, Reactor, State, Topology, on, upcast
from pf_stream.model import Group


class Nothing(State):
    """No fields."""


def intent(name: str, topic: str = "intents") -> type[Intent]:
    """An intent type."""

    class Made(Intent, name=name, topic=topic, requires=PUBLIC):
        key: Annotated[str, Key]

    return Made


def reactor(id: str, *handled: type[Intent]) -> type[Reactor[Any]]:  # noqa: A002 - the word users write
    """A reactor that handles these."""

    def handler(of: type[Intent]) -> Any:
        def handle(self: object, intent: Any, state: Nothing, ctx: Context) -> None: ...

        handle.__annotations__["intent"] = of
        return on(handle)

    body = {f"on_{at}": handler(of) for at, of in enumerate(handled)}
    made: type[Reactor[Any]] = type(id, (Reactor,), {"__orig_bases__": (Reactor[Nothing],), **body}, id=id)
    return made


A, B, C, D = (
    intent(f"t.{name}", topic) for name, topic in [("a", "intents"), ("b", "bs"), ("c", "cs"), ("d", "other.full")]
)
FIRST = reactor("first", A, B)


def faults(*args: Any, **keywords: Any) -> list[str]:
    """What is wrong with a topology of these."""
    with pytest.raises(DefinitionError) as caught:
        Topology(*args, **keywords)
    assert caught.value.subject == f"topology {args[0]!r}"
    return [*caught.value.faults]


class TestGroups:
    def test_reactors_that_share_no_topic_are_apart(self) -> None:
        first, second = reactor("first", A), reactor("second", B)
        assert Topology("t", [first, second]).groups == (
            Group("bs", (second,), ("t.bs",)),
            Group("intents", (first,), ("t.intents",)),
        )

    def test_reactors_that_share_a_topic_are_together(self) -> None:
        first, second = reactor("first", A, B), reactor("second", B, C)
        assert Topology("t", [first, second]).groups == (Group("bs", (first, second), ("t.bs", "t.cs", "t.intents")),)

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (0, 2, 1), (1, 0, 2)])
    def test_one_that_shares_with_both_joins_them(self, order: tuple[int, ...]) -> None:
        """In the order of the declaration, whichever comes last."""
        members = [reactor("first", A), reactor("second", B), reactor("third", A, B)]
        declared = [members[at] for at in order]
        (group,) = Topology("t", declared).groups
        assert group == Group("bs", tuple(declared), ("t.bs", "t.intents"))

    def test_what_others_may_write_names_the_group(self) -> None:
        """A stage that comes or goes must not rename the changelog of the reactors beside it."""
        first = reactor("first", A, B)
        assert [group.name for group in Topology("t", [first], internal=["bs"]).groups] == ["intents"]
        inner = reactor("second", B)
        assert [group.name for group in Topology("t", [inner], internal=["bs"]).groups] == ["bs"]

    def test_two_types_on_one_topic_are_one_topic(self) -> None:
        first, second = reactor("first", intent("t.x")), reactor("second", intent("t.y"))
        assert len(Topology("t", [first, second]).groups) == 1


class TestNames:
    def test_topics_are_within_the_namespace_unless_they_have_a_dot(self) -> None:
        topology = Topology("t", [reactor("r", A, B, D)], namespace="prod.eu", internal=["bs"])
        assert topology.source_topics == ("other.full", "prod.eu.bs", "prod.eu.intents")
        assert topology.is_internal("prod.eu.bs")
        assert not topology.is_internal("bs")
        assert not topology.is_internal("prod.eu.intents")

    def test_the_app_is_named_for_namespace_and_topology(self) -> None:
        assert Topology("t", [FIRST]).app_id == "t"
        assert Topology("t", [FIRST], namespace="t").app_id == "t"
        assert Topology("t", [FIRST], namespace="ns").app_id == "ns.t"

    def test_the_changelog_is_named_for_app_and_group(self) -> None:
        topology = Topology("t", [FIRST], namespace="ns")
        assert topology.changelog(topology.groups[0]) == "ns.t-bs-changelog"

    def test_reply_patterns_are_topics_too(self) -> None:
        assert Topology("t", [FIRST], replies=["answers", "a.b-*"]).reply_patterns == ("t.answers", "a.b-*")

    def test_intents_are_those_handled_and_those_emitted_each_once(self) -> None:
        topology = Topology("t", [reactor("r", B, A), reactor("s", A)], emits=[C, A])
        assert [spec.type for spec in topology.intents] == ["t.a.v1", "t.b.v1", "t.c.v1"]
        assert [spec.id for spec in topology.specs] == ["r", "s"]


def test_within_another_namespace() -> None:
    options: dict[str, Any] = {"internal": ["bs"], "emits": [C], "replies": ["r"], "partitions": 7}
    options |= {"guarantee": "transactional", "version": 3, "retired": ["old"], "store": "rocksdb", "standby": 2}
    topology = Topology("t", [FIRST], **options)
    moved = topology.within("elsewhere")
    assert moved == Topology("t", [FIRST], namespace="elsewhere", **options)
    assert moved.source_topics == ("elsewhere.bs", "elsewhere.intents")
    assert moved.within("t") == topology


def test_it_is_a_value() -> None:
    assert Topology("t", [FIRST]) == Topology("t", [FIRST])
    assert Topology("t", [FIRST]) != Topology("u", [FIRST])
    assert len({Topology("t", [FIRST]), Topology("t", [FIRST])}) == 1
    with pytest.raises(AttributeError):
        Topology("t", [FIRST]).name = "u"  # type: ignore[misc]


class TestFaults:
    @pytest.mark.parametrize("name", ["", "T", "t u", ".t", "t.", "1t", "t/u"])
    def test_a_name_of_another_form(self, name: str) -> None:
        assert faults(name, [FIRST], namespace="ns") == [
            f"name {name!r} must be lower case letters, digits, '-' and '_', parts joined by '.'"
        ]
        with pytest.raises(DefinitionError, match=r"^topology 't': namespace "):
            Topology("t", [FIRST], namespace=name)

    def test_no_reactors(self) -> None:
        assert faults("t", []) == ["has no reactors"]

    @pytest.mark.parametrize("stranger", [Nothing, Reactor, "Fleet", FIRST()])
    def test_what_is_no_reactor(self, stranger: object) -> None:
        if isinstance(stranger, FIRST):
            stranger = 7
        assert faults("t", [FIRST, stranger]) == [f"{stranger!r} is no reactor: write a class of Reactor[...]"]

    def test_two_of_one_id(self) -> None:
        assert faults("t", [FIRST, reactor("first", C)]) == ["reactors first and first have the same id 'first'"]

    def test_two_classes_of_one_type(self) -> None:
        (fault,) = faults("t", [FIRST, reactor("second", intent("t.a"))])
        assert fault.endswith("are both t.a.v1")

    def test_partitions(self) -> None:
        assert faults("t", [FIRST], partitions=0) == ["partitions must be 1 or more, not 0"]
        assert Topology("t", [FIRST], partitions=1).partitions == 1

    def test_version(self) -> None:
        assert faults("t", [FIRST], version=0) == ["version must be 1 or more, not 0"]

    def test_retired(self) -> None:
        assert faults("t", [FIRST], retired=["first", "Old"]) == [
            "retired 'Old' is no reactor id",
            "reactor first has the id 'first', which is retired: give it another, or take it off the list",
        ]

    def test_a_version_that_is_handled_and_upcast_too(self) -> None:
        class Second(Intent, name="t.a", version=2, requires=PUBLIC):
            key: Annotated[str, Key]

            @upcast(from_version=1)
            @staticmethod
            def _same(old: dict[str, Any]) -> dict[str, Any]:
                return old

        (fault,) = faults("t", [FIRST, reactor("second", Second)])
        assert fault.endswith("Second upcasts to t.a.v2: handle and emit the newer one alone")

    def test_guarantee(self) -> None:
        wrong: Any = "exactly_once"
        assert faults("t", [FIRST], guarantee=wrong) == [
            "guarantee must be effectively_once or transactional, not 'exactly_once'"
        ]
        assert Topology("t", [FIRST]).guarantee == "effectively_once"

    def test_store(self) -> None:
        wrong: Any = "disk"
        assert faults("t", [FIRST], store=wrong) == ["store must be memory or rocksdb, not 'disk'"]
        assert Topology("t", [FIRST]).store == "memory"

    def test_standby(self) -> None:
        assert faults("t", [FIRST], standby=-1) == ["standby must be 0 or more, not -1"]
        assert Topology("t", [FIRST]).standby == 0

    def test_an_internal_topic_that_carries_nothing(self) -> None:
        assert faults("t", [FIRST], internal=["b"]) == ["internal topic 'b' carries no intent type; did you mean 'bs'?"]
        assert faults("t", [FIRST], internal=["zzzzz"]) == [
            "internal topic 'zzzzz' carries no intent type; known: bs, intents"
        ]

    @pytest.mark.parametrize("topic", ["a b", "t.bs", ""])
    def test_an_internal_topic_of_another_form(self, topic: str) -> None:
        assert faults("t", [FIRST], internal=[topic]) == [
            f"internal topic {topic!r} must be a plain name within the namespace"
        ]

    def test_intents_from_outside_cannot_be_internal(self) -> None:
        (fault,) = faults("t", [FIRST], internal=["intents"])
        assert fault.startswith("the topic 'intents' takes intents from outside and cannot be internal")

    def test_all_of_them_in_one_error(self) -> None:
        found = faults("T", [FIRST, reactor("first", intent("t.a"))], internal=["bz", "intents"], partitions=-1)
        assert len(found) == 7
