"""What is shown of a topology."""

from typing import Annotated

from pf_stream import Intent, Key, Reactor, State, Topology, on
from pf_stream.model import define, grant
from pf_stream.topology import read_topology_file
from pf_stream.topology.description import OperationDescription, describe
from tests.tally import v2
from tests.unit.topology.conftest import FLIGHTS


def test_groups_reactors_and_types() -> None:
    shown = describe(read_topology_file(FLIGHTS / "topology.yaml").within("test.flights"))
    assert (shown.name, shown.namespace, shown.app) == ("flights", "test.flights", "test.flights.flights")
    assert [(group.changelog, group.topics) for group in shown.groups] == [
        ("test.flights.flights-airports-changelog", ("test.flights.airports",)),
        ("test.flights.flights-carriers-changelog", ("test.flights.carriers",)),
        ("test.flights.flights-intents-changelog", ("test.flights.intents",)),
    ]
    (fleet,) = shown.groups[2].reactors
    assert (fleet.id, fleet.class_, fleet.state, fleet.state_version) == ("fleet", "flights:Fleet", "Aircraft", 1)
    assert fleet.handles == ("flights.departed.v1",)
    departed = shown.intents[1]
    assert (departed.type, departed.topic, departed.internal) == ("flights.departed.v1", "test.flights.intents", False)
    assert (departed.key, departed.handled_by) == (("tailnum",), ("fleet",))
    assert departed.requires == ("FlightCap.report(/{carrier}/{origin})",)
    assert shown.intents[0].internal


def test_which_versions_are_taken() -> None:
    shown = describe(v2.tally)
    assert (shown.version, shown.retired) == (2, ())
    assert [(intent.type, intent.also_accepts) for intent in shown.intents] == [
        ("tally.added.v2", ("tally.added.v1",)),
        ("tally.summed.v2", ("tally.summed.v1",)),
    ]
    (counts,) = shown.groups[0].reactors
    assert (counts.state_version, counts.oldest_state_version) == (2, 1)


def test_which_capabilities_are_concerned() -> None:
    define("ShownLog", {"note": []})
    define("ShownCap", {"read": [], "admin": ["write"], "write": ["ShownLog.note", "read"]})
    define("ShownRoot", {"all": ["ShownCap.admin"]})
    define("ShownElsewhere", {"read": []})

    class Note(Intent, name="shown.note", requires=grant("ShownCap.write:/{key}")):
        key: Annotated[str, Key]

    class Notes(State):
        pass

    class Noter(Reactor[Notes], id="noter"):
        @on
        def noted(self, intent: Note, state: Notes, ctx: object) -> None: ...

    shown = describe(Topology("shown", reactors=[Noter])).capabilities
    assert [family.name for family in shown] == ["ShownCap", "ShownLog", "ShownRoot"]
    assert shown[0].operations == (
        OperationDescription("ShownCap.read", (), ("ShownCap.admin", "ShownCap.write", "ShownRoot.all")),
        OperationDescription("ShownCap.admin", ("ShownCap.write",), ("ShownRoot.all",)),
        OperationDescription("ShownCap.write", ("ShownCap.read", "ShownLog.note"), ("ShownCap.admin", "ShownRoot.all")),
    )
