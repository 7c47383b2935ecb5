"""What topology files say of who may do what and when: requirements, calendars and services."""

import re
import sys
from datetime import date
from pathlib import Path

import pytest

from pf_stream.model import Calendar, Service, When, any_of, caller, during, grant
from pf_stream.model.rules import find_rule
from pf_stream.topology import Fault, TopologyFile, TopologyFileError, read_topology_file
from tests.unit.topology.conftest import FLIGHTS, ROOT, Folder

GOOD = """\
name: pings
capabilities:
  MODULECap: {call: [], admin: [call]}
reactors:
  - MODULE:Watcher
"""  # five lines

OFFICE = """\
calendars:
  office:
    zone: Europe/London
    open: [mon-fri 09:00-17:00 Europe/London]
"""


def faults(folder: Folder, text: str) -> tuple[Fault, ...]:
    with pytest.raises(TopologyFileError) as caught:
        read_topology_file(folder.write(text))
    return caught.value.faults


class TestMeaning:
    def test_the_example_of_the_docs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(FLIGHTS)
        docs = (ROOT / "docs/topologies.md").read_text(encoding="utf-8")
        path = tmp_path / "topology.yaml"
        path.write_text(docs.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
        topology = read_topology_file(path)
        assert list(map(str, topology.requires["flights.departed"])) == [
            "FlightCap.report(/{carrier}/{origin}/{dest})",
            "caller's tenant is {carrier}",
            "(FlightCap.admin(/) or during calendar office)",
        ]
        fields = set(re.findall(r"^\| `(\w+)`", docs, re.MULTILINE))
        assert fields == set(TopologyFile.model_fields)

    def test_requirements(self, folder: Folder) -> None:
        source = (folder.path / f"{folder.module}.py").read_text()
        ruled = folder.add(
            f"from pf_stream import rule\n{source}\n@rule('{folder.module}.own')\ndef own(intent, caller):\n    return True\n",
            "ruled",
        )
        topology = read_topology_file(
            folder.write(
                GOOD.replace("MODULE:", f"{ruled}:")
                + OFFICE
                + "requires:\n  ping:\n    - MODULECap.call:/{host}\n    - during not calendar office\n"
                "    - [MODULECap.admin:/, 'caller subject={host} and authenticated within 15m']\n"
                "    - rule MODULE.own\n"
            )
        )
        assert dict(topology.requires) == {
            "ping": (
                grant(f"{folder.module}Cap.call:/{{host}}"),
                during("not calendar office"),
                any_of(
                    grant(f"{folder.module}Cap.admin:/"),
                    caller(subject="{host}", authenticated_within="15m"),
                ),
                find_rule(f"{folder.module}.own"),
            )
        }

    def test_requirements_of_a_type_that_is_only_emitted(self, folder: Folder) -> None:
        topology = read_topology_file(
            folder.write(GOOD + "emits: [MODULE:Pong]\nrequires: {pong: ['MODULECap.call:/{host}']}\n")
        )
        assert list(topology.requires) == ["pong"]

    def test_calendars(self, folder: Folder) -> None:
        topology = read_topology_file(
            folder.write(
                GOOD
                + OFFICE
                + '    holidays: [2026-12-25, "2026-12-26"]\n  late:\n    zone: UTC\n    open: [sat 22:00-02:00 UTC]\n'
            )
        )
        assert dict(topology.calendars) == {
            "office": Calendar(
                (When.parse("mon-fri 09:00-17:00 Europe/London"),),
                "Europe/London",
                frozenset({date(2026, 12, 25), date(2026, 12, 26)}),
            ),
            "late": Calendar((When.parse("sat 22:00-02:00 UTC"),), "UTC", frozenset()),
        }

    def test_services(self, folder: Folder) -> None:
        topology = read_topology_file(
            folder.write(
                GOOD + "  - reactor: MODULE:Echo\n    as: service\n    key: 7\n    grants: [MODULECap.call:/**]\n"
            )
        )
        module = sys.modules[folder.module]
        assert topology.reactors == (module.Watcher, module.Echo)
        assert dict(topology.services) == {"echo": Service(7, [f"{folder.module}Cap.call:/**"])}

    def test_nothing_of_it_by_default(self, folder: Folder) -> None:
        topology = read_topology_file(folder.write(GOOD))
        assert not topology.requires
        assert not topology.calendars
        assert not topology.services


REQUIRES = {
    "unknown intent": (
        "requires:\n  pnig:\n    - MODULECap.call:/x\n",
        (7, "requires.pnig", "requires something for 'pnig', which is no intent here; did you mean 'ping'?"),
    ),
    "unknown family": (
        "requires:\n  ping:\n    - MODULECpa.call:/x\n",
        (8, "requires.ping[0]", "capability family 'MODULECpa': is not known; did you mean 'MODULECap'?"),
    ),
    "unknown operation": (
        "requires:\n  ping:\n    - MODULECap.call:/x\n    - MODULECap.cal:/x\n",
        (9, "requires.ping[1]", "operation 'MODULECap.cal': is not known; did you mean 'call'?"),
    ),
    "no grant": ("requires:\n  ping: [call]\n", (7, "requires.ping[0]", "grant 'call': there is no ':' between")),
    "field of a template": (
        "requires:\n  ping:\n    - MODULECap.call:/{hots}\n",
        (8, "requires.ping[0]", "ping requires MODULECap.call(/{hots}), but has no field 'hots'; did you mean 'host'?"),
    ),
    "field of a caller, as an alternative": (
        "requires:\n  ping:\n    -\n      - MODULECap.call:/x\n      - caller subject={hots}\n",
        (10, "requires.ping[0][1]", "caller's subject is {hots}, but has no field 'hots'; did you mean 'host'?"),
    ),
    "many resources": (
        "requires:\n  ping:\n    - MODULECap.call:/**\n",
        (8, "requires.ping[0]", "an intent is about one resource and nothing fills '**'"),
    ),
    "unknown rule": (
        "requires:\n  ping:\n    - rule nobody_has_this.name\n",
        (8, "requires.ping[0]", "rule 'nobody_has_this.name': there is none; is its module imported?"),
    ),
    "unknown calendar": (
        OFFICE + "requires:\n  ping:\n    - during calendar offcie\n",
        (
            12,
            "requires.ping[0]",
            "ping requires during calendar offcie, and there is no calendar 'offcie'; did you mean 'office'?",
        ),
    ),
    "unknown calendar, as an alternative": (
        OFFICE + "requires:\n  ping:\n    - [MODULECap.call:/x, during calendar offcie]\n",
        (12, "requires.ping[0][1]", "there is no calendar 'offcie'; did you mean 'office'?"),
    ),
    "bad times": (
        "requires:\n  ping:\n    - during mon-fry 09:00-17:00 UTC\n",
        (8, "requires.ping[0]", "'mon-fry' is no day and no days"),
    ),
    "text for a list": (
        "requires:\n  ping: MODULECap.call:/x\n",
        (7, "requires.ping", "a text; allowed: a list of requirements such as FlightCap.report:/{carrier}"),
    ),
    "empty list": ("requires:\n  ping: []\n", (7, "requires.ping", "found an empty list; allowed: a list of req")),
    "empty alternatives": (
        "requires:\n  ping:\n    - []\n",
        (8, "requires.ping[0]", "found an empty list; allowed: a text such as FlightCap.report:/{carrier}, or a list"),
    ),
    "list too deep": (
        "requires:\n  ping:\n    - [[MODULECap.call:/x]]\n",
        (8, "requires.ping[0][0]", "found a list; allowed: a text such as FlightCap.report:/{carrier}"),
    ),
    "mapping for a requirement": (
        "requires:\n  ping:\n    - call: /x\n",
        (8, "requires.ping[0]", "found a mapping; allowed: a text such as FlightCap.report:/{carrier}, or a list of"),
    ),
    "number for an intent": ("requires:\n  7: [a]\n", (7, "requires[7]", "7, a number; allowed: a name such as flig")),
    "requirements in a list": (
        "requires: [MODULECap.call:/x]\n",
        (6, "requires", "found a list; allowed: names of intents such as flights.departed, each with a list"),
    ),
}

CALENDARS = {
    "unknown zone": (
        "calendars:\n  office:\n    open: [mon 09:00-17:00 UTC]\n    zone: Europe/Lodnon\n",
        (
            9,
            "calendars.office.zone",
            "there is no time zone 'Europe/Lodnon'; write an IANA name such as Europe/Berlin, or UTC; did you mean 'Europe/London'?",
        ),
    ),
    "bad times": (
        "calendars:\n  office:\n    zone: UTC\n    open:\n      - mon 09:00-17:00 UTC\n      - mon 9:00-17:00 UTC\n",
        (11, "calendars.office.open[1]", "'9:00' is no time of day, which is HH:MM"),
    ),
    "a calendar of calendars": (
        OFFICE + "  other: {zone: UTC, open: [calendar office]}\n",
        (10, "calendars.other.open[0]", "names a calendar; write its times instead"),
    ),
    "no such day": (
        OFFICE + "    holidays:\n      - 2026-02-28\n      - 2026-02-30\n",
        (12, "calendars.office.holidays[1]", "found '2026-02-30', a text; allowed: days such as 2026-12-25"),
    ),
    "a time for a day": (
        OFFICE + "    holidays: [2026-12-25T00:00:00Z]\n",
        (10, "calendars.office.holidays[0]", "allowed: days such as 2026-12-25"),
    ),
    "a number for a day": (
        OFFICE + "    holidays: [20261225]\n",
        (10, "calendars.office.holidays[0]", "found 20261225, a number; allowed: days such as 2026-12-25"),
    ),
    "no zone": (
        "calendars:\n  office:\n    open: [mon 09:00-17:00 UTC]\n",
        (7, "calendars.office.zone", "is missing; allowed: an IANA name such as Europe/London"),
    ),
    "never open": (
        "calendars:\n  office:\n    zone: UTC\n    open: []\n",
        (9, "calendars.office.open", "found an empty list; allowed: a list of times such as mon-fri"),
    ),
    "unknown key": (
        OFFICE + "    holiday: [2026-12-25]\n",
        (10, "calendars.office.holiday", "there is no field 'holiday'; did you mean 'holidays'?"),
    ),
    "a name that no requirement could have": (
        "calendars:\n  Office: {zone: UTC, open: [daily 09:00-17:00 UTC]}\n",
        (7, "calendars.Office", "'Office' is no name of a calendar: lower-case letters"),
    ),
    "a number for a name": (
        "calendars:\n  7: {zone: UTC, open: [daily 09:00-17:00 UTC]}\n",
        (7, "calendars[7]", "found 7, a number; allowed: a name such as office"),
    ),
    "a text for a calendar": (
        "calendars:\n  office: daily 09:00-17:00 UTC\n",
        (7, "calendars.office", "a text; allowed: a mapping with zone, open and, if there are any, holidays"),
    ),
}

SERVICES = {
    "missing key": (
        "  - reactor: MODULE:Echo\n    as: service\n    grants: [MODULECap.call:/**]\n",
        (6, "reactors[1].key", "is missing; allowed: the kid of the key that signs for it, 0 to 4294967295"),
    ),
    "missing grants": (
        "  - {reactor: MODULE:Echo, as: service, key: 7}\n",
        (6, "reactors[1].grants", "is missing; allowed: a list of grants such as AirportCap.count:/**"),
    ),
    "missing as": (
        "  - {reactor: MODULE:Echo, key: 7, grants: [MODULECap.call:/**]}\n",
        (6, "reactors[1].as", "is missing; allowed: service"),
    ),
    "unknown key": (
        "  - reactor: MODULE:Echo\n    as: service\n    kye: 7\n    key: 7\n    grants: [MODULECap.call:/**]\n",
        (8, "reactors[1].kye", "there is no field 'kye'; did you mean 'key'?"),
    ),
    "as something else": (
        "  - reactor: MODULE:Echo\n    as: user\n    key: 7\n    grants: [MODULECap.call:/**]\n",
        (7, "reactors[1].as", "found 'user', a text; allowed: service"),
    ),
    "kid that is none": (
        "  - reactor: MODULE:Echo\n    as: service\n    key: -1\n    grants: [MODULECap.call:/**]\n",
        (8, "reactors[1].key", "found -1, a number; allowed: the kid of the key that signs for it, 0 to 4294967295"),
    ),
    "kid that is too large": (
        "  - {reactor: MODULE:Echo, as: service, key: 4294967296, grants: [MODULECap.call:/**]}\n",
        (6, "reactors[1].key", "found 4294967296, a number; allowed: the kid"),
    ),
    "file for a kid": (
        "  - {reactor: MODULE:Echo, as: service, key: board.key, grants: [MODULECap.call:/**]}\n",
        (6, "reactors[1].key", "found 'board.key', a text; allowed: the kid"),
    ),
    "no grants": (
        "  - {reactor: MODULE:Echo, as: service, key: 7, grants: []}\n",
        (6, "reactors[1].grants", "found an empty list; allowed: a list of grants"),
    ),
    "grant that is a template": (
        "  - reactor: MODULE:Echo\n    as: service\n    key: 7\n    grants:\n      - 'MODULECap.call:/{host}'\n",
        (10, "reactors[1].grants[0]", "MODULECap.call(/{host}): it is a template and has no scope"),
    ),
    "grant of an unknown operation": (
        "  - reactor: MODULE:Echo\n    as: service\n    key: 7\n    grants: [MODULECap.call:/, MODULECap.cal:/]\n",
        (9, "reactors[1].grants[1]", "operation 'MODULECap.cal': is not known; did you mean 'call'?"),
    ),
    "no such class": (
        "  - {reactor: MODULE:Ecco, as: service, key: 7, grants: [MODULECap.call:/**]}\n",
        (6, "reactors[1].reactor", "has no Reactor 'Ecco'; did you mean 'Echo'?"),
    ),
    "number for a class": (
        "  - {reactor: 7, as: service, key: 7, grants: [MODULECap.call:/**]}\n",
        (6, "reactors[1].reactor", "found 7, a number; allowed: a text, module:Class"),
    ),
    "list for a reactor": (
        "  - [MODULE:Echo]\n",
        (6, "reactors[1]", "found a list; allowed: module:Class, or a mapping with reactor, as, key and grants"),
    ),
}

EVERY = {
    **{f"requires: {name}": case for name, case in REQUIRES.items()},
    **{f"calendars: {name}": case for name, case in CALENDARS.items()},
    **{f"services: {name}": case for name, case in SERVICES.items()},
}


class TestFaults:
    @pytest.mark.parametrize(("more", "expected"), EVERY.values(), ids=EVERY.keys())
    def test_one_fault_with_line_and_field(self, shared: Folder, more: str, expected: tuple[int, str, str]) -> None:
        line, field, said = expected
        (fault,) = faults(shared, GOOD + more)
        assert (fault.line, fault.field) == (line, field)
        assert said.replace("MODULE", shared.module) in fault.text

    def test_all_faults_in_one_go_by_line(self, folder: Folder) -> None:
        found = faults(
            folder,
            GOOD.replace("name: pings", "name: Pings")  # 1
            + "  - {reactor: MODULE:Echo, as: service, key: 7, grants: [MODULECap.cal:/]}\n"  # 6
            "calendars:\n"
            "  office: {zone: Nowhere, open: [never, daily 10:00-11:00 UTC]}\n"  # 8, twice
            "requires:\n"
            "  ping:\n"
            "    - during calendar office\n"  # its fault is told at the calendar
            "    - during calendar offcie\n"  # 12
            "    - rule nobody_has_this.name\n"  # 13
            "    - 'MODULECap.call:/{hots}'\n"  # 14
            "    - 'MODULECap.call:/{host}'\n"
            "    - [MODULECap.cal:/x, 'caller tenant={hots}']\n"  # 16, twice
            "  pnig:\n"  # 17
            "    - MODULECap.call:/x\n"
            "    - MODULECap.call:/y\n",
        )
        assert [(fault.line, fault.field) for fault in found] == [
            (1, "name"),
            (6, "reactors[1].grants[0]"),
            (8, "calendars.office.open[0]"),
            (8, "calendars.office.zone"),
            (12, "requires.ping[1]"),
            (13, "requires.ping[2]"),
            (14, "requires.ping[3]"),
            (16, "requires.ping[5][0]"),
            (16, "requires.ping[5][1]"),
            (17, "requires.pnig"),
        ]

    def test_six_hundred_zones_are_not_listed(self, folder: Folder) -> None:
        (fault,) = faults(folder, GOOD + OFFICE.replace("zone: Europe/London", "zone: '?'"))
        assert fault.text.endswith("no time zone '?'; write an IANA name such as Europe/Berlin, or UTC")

    def test_what_may_follow_from_a_module_that_cannot_be_had_is_not_told(self, folder: Folder) -> None:
        found = faults(
            folder,
            GOOD + "  - {reactor: MODULE:Ecco, as: service, key: 7, grants: [ThatCap.one:/]}\n"
            "calendars: {office: {zone: UTC, open: [never]}}\n"
            "requires: {pong: [rule nobody_has_this.name]}\n",
        )
        assert [fault.field for fault in found] == ["reactors[1].reactor", "calendars.office.open[0]"]

    def test_a_type_that_requires_a_calendar_which_the_file_lacks(self, folder: Folder) -> None:
        name = folder.add(
            (folder.path / f"{folder.module}.py")
            .read_text()
            .replace("import PUBLIC,", "import during, PUBLIC,")
            .replace('name="ping", requires=PUBLIC', 'name="ping", requires=during("calendar office")')
            .partition("\npings = ")[0]  # a topology that lacks it too
        )
        text = GOOD.replace("MODULE:", f"{name}:")
        (fault,) = faults(folder, text)
        assert (fault.line, fault.field) == (4, "reactors")
        assert fault.text == "ping requires during calendar office, and there is no calendar 'office'"
        assert read_topology_file(folder.write(text + OFFICE)).calendars
