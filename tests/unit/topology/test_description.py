"""What is shown of a topology."""

from datetime import date
from typing import Annotated

import pytest

from pf_stream import Intent, Key, Reactor, State, Topology, all_of, any_of, caller, computed, during, on, rule
from pf_stream.model import Calendar, Caller, Requirement, Service, When, define, grant
from pf_stream.model.constraint import never, only, within
from pf_stream.topology import read_topology_file
from pf_stream.topology.description import (
    CalendarDescription,
    ConstraintDescription,
    OperationDescription,
    RequirementDescription,
    ServiceDescription,
    describe,
)
from tests.tally import v2
from tests.unit.topology.conftest import FLIGHTS


def test_groups_reactors_and_types() -> None:
    shown = describe(read_topology_file(FLIGHTS / "reactors.yaml").within("test.flights"))
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
    assert departed.requires == (RequirementDescription("FlightCap.report(/{carrier}/{origin})", True, ("type",)),)
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


define("DoorCap", {"open": [], "own": ["open"]})
define("DoorLog", {"read": []})
OPEN, OWN = grant("DoorCap.open:/{door}"), grant("DoorCap.own:/{door}")
HOURS = during("mon-fri 09:00-17:00 UTC")


class Open(Intent, name="door.open", requires=OPEN):
    door: Annotated[str, Key]


class Close(Intent, name="door.close", requires=OPEN):
    door: Annotated[str, Key]


class Door(State):
    pass


class Doors(Reactor[Door], id="doors"):
    @on(requires=[HOURS, OWN])
    def opened(self, intent: Open, state: Door, ctx: object) -> None: ...


class Bells(Reactor[Door], id="bells"):
    @on(requires=OWN)
    def opened(self, intent: Open, state: Door, ctx: object) -> None: ...

    @on(requires=HOURS)
    def closed(self, intent: Close, state: Door, ctx: object) -> None: ...


@rule("door.known")
def known(intent: Open, caller: Caller) -> bool:
    return True


def required(requirement: Requirement) -> RequirementDescription:
    (intent,) = describe(Topology("door", [Doors], requires={"door.open": requirement})).intents
    return intent.requires[-1]


def test_what_is_required_here_and_by_whom() -> None:
    _, intent = describe(
        Topology("door", [Doors, Bells], requires={"door.open": [OPEN, caller(tenant="acme")]})
    ).intents
    assert [(one.text, one.required_by) for one in intent.requires] == [
        ("DoorCap.open(/{door})", ("type", "topology")),
        ("during mon-fri 09:00-17:00 UTC", ("doors.opened",)),
        ("DoorCap.own(/{door})", ("doors.opened", "bells.opened")),
        ("caller's tenant is acme", ("topology",)),
    ]


def test_when_it_is_handled_and_who_says_so() -> None:
    lunch = never("daily 12:00-13:00 UTC", otherwise="refuse")

    class Ring(Intent, name="door.ring", requires=OPEN, constraints=within("1h")):
        door: Annotated[str, Key]

    class Rings(Reactor[Door], id="rings"):
        @on(constraints=lunch)
        def rung(self, intent: Ring, state: Door, ctx: object) -> None: ...

    ringing = Topology("door", [Rings], constraints={"*": [lunch, only("mon-fri 00:00-24:00 UTC")]})
    assert describe(ringing).intents[0].constraints == (
        ConstraintDescription("within 1h", "deadline_passed", False, ("type",)),
        ConstraintDescription(str(lunch), "in_maintenance", False, ("rings.rung", "topology")),
        ConstraintDescription("only mon-fri 00:00-24:00 UTC", "outside_hours", True, ("topology",)),
    )


@pytest.mark.parametrize(
    ("requirement", "static"),
    [
        (grant("DoorCap.own:/{door}"), True),
        (caller(subject="{door}"), True),
        (any_of(OPEN, all_of(caller(tenant="acme"), grant("DoorCap.own:/x"))), True),
        (caller(subject="ann", authenticated_within="15m"), False),
        (during("daily 09:00-17:00 UTC"), False),
        (known, False),
        (computed(lambda intent: OPEN, within=grant("DoorCap.open:/**")), False),
        (any_of(OWN, all_of(caller(tenant="acme"), known)), False),
    ],
)
def test_which_requirements_a_token_alone_decides(requirement: Requirement, static: bool) -> None:
    assert required(requirement).static is static


def test_capabilities_are_those_of_all_requirements() -> None:
    log = computed(lambda intent: grant("DoorLog.read:/"), within=grant("DoorLog.read:/"))
    shown = describe(Topology("door", [Doors], requires={"door.open": any_of(OPEN, log)}))
    assert [family.name for family in shown.capabilities] == ["DoorCap", "DoorLog"]


def test_services_and_calendars() -> None:
    office = Calendar(
        [When.parse("mon-fri 09:00-17:00 UTC"), When.parse("sat 10:00-12:00 UTC")], "UTC", [date(2026, 12, 25)]
    )
    door = Topology(
        "door",
        [Doors, Bells],
        calendars={"office": office, "always": Calendar([When.parse("daily 00:00-24:00 UTC")], "Europe/London")},
        services={"doors": Service(7, ["DoorCap.own:/**", "DoorLog.read:/"]), "bells": Service(8, [OPEN.widest()])},
    )
    shown = describe(door.within("test"))
    assert shown.services == (
        ServiceDescription("bells", "service:test.door/bells", 8, ("DoorCap.open:/*",)),
        ServiceDescription("doors", "service:test.door/doors", 7, ("DoorCap.own:/**", "DoorLog.read:/")),
    )
    assert shown.calendars == (
        CalendarDescription("always", "Europe/London", ("daily 00:00-24:00 UTC",), 0),
        CalendarDescription("office", "UTC", ("mon-fri 09:00-17:00 UTC", "sat 10:00-12:00 UTC"), 1),
    )
