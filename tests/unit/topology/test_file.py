"""Topology files: what they mean, and every way in which they can be wrong, with its line."""

import sys
from pathlib import Path

import pytest

from pf_stream.errors import ConfigurationError, NotFoundError
from pf_stream.model import Grant, family
from pf_stream.topology import Fault, TopologyFile, TopologyFileError, read_topology_file
from tests.unit.topology.conftest import FLIGHTS, Folder

GOOD = "name: pings\nreactors:\n  - MODULE:Watcher\n"


def faults(folder: Folder, text: str) -> tuple[Fault, ...]:
    with pytest.raises(TopologyFileError) as caught:
        read_topology_file(folder.write(text))
    return caught.value.faults


class TestMeaning:
    def test_the_file_of_the_flights_is_the_topology_of_the_module(self) -> None:
        read = read_topology_file(FLIGHTS / "reactors.yaml")
        assert read == sys.modules["flights"].flights

    def test_every_field(self, folder: Folder) -> None:
        topology = read_topology_file(
            folder.write(
                "name: pings\nnamespace: net.pings\nreactors: [MODULE:Watcher, MODULE:Echo]\ninternal: [pongs]\n"
                "emits: [MODULE:Pong]\nreplies: [answers.*]\npartitions: 12\n"
                "guarantee: transactional\nversion: 3\nretired: [old, older]\nstore: rocksdb\nstandby: 1\n"
            )
        )
        module = sys.modules[folder.module]
        assert topology.reactors == (module.Watcher, module.Echo)
        assert topology.emits == (module.Pong,)
        assert (topology.name, topology.namespace, topology.partitions) == ("pings", "net.pings", 12)
        assert topology.guarantee == "transactional"
        assert (topology.store, topology.standby) == ("rocksdb", 1)
        assert (topology.internal, topology.replies) == (frozenset({"pongs"}), ("answers.*",))
        assert (topology.version, topology.retired) == (3, frozenset({"old", "older"}))

    def test_parts_bring_what_they_need(self, folder: Folder) -> None:
        module = folder.add(
            f"from {folder.module} import Ping, Pong\nfrom pf_stream.streams import count, counted, pipeline, stream\n"
            "pongs = pipeline('pongs', stream(Ping).key_by(lambda ping: ping.host).window(counted(2)).aggregate(count())"
            ".emit(lambda counted: Pong(host=counted.key), Pong))\n"
        )
        topology = read_topology_file(folder.write(GOOD + f"parts: [{module}:pongs]\n"))
        assert [spec.id for spec in topology.specs] == ["watcher", "pongs-ping", "pongs-window"]
        assert topology.internal == {"pongs-window"}
        assert topology.emits == (sys.modules[folder.module].Pong,)
        (fault,) = faults(folder, GOOD + f"parts: [{module}:pong]\n")
        assert (fault.line, fault.field) == (4, "parts[0]")
        assert "has no Part 'pong'; did you mean 'pongs'?" in fault.text

    def test_parts_may_be_all_that_there_is(self, folder: Folder) -> None:
        module = folder.add(
            f"from {folder.module} import Ping, Watcher\nfrom pf_stream import Part\n"
            "watch = Part('watch', (Watcher,))\nagain = Part('again', (type('Again', (Watcher,), {}, id='watcher'),))\n"
        )
        topology = read_topology_file(folder.write(f"name: pings\nparts: [{module}:watch]\n"))
        assert [spec.id for spec in topology.specs] == ["watcher"]
        (fault,) = faults(folder, f"name: pings\npartitions: 0\nparts: [{module}:watch]\n")
        assert (fault.line, fault.field) == (2, "partitions")
        (fault,) = faults(folder, f"name: pings\nparts: [{module}:watch, {module}:again]\n")
        assert (fault.line, fault.field) == (2, "parts")
        assert "have the same id 'watcher'" in fault.text
        (fault,) = faults(folder, f"name: pings\nparts: [{module}:wach]\n")
        assert (fault.line, fault.field) == (2, "parts[0]")
        (fault,) = faults(folder, "name: pings\nparts: []\n")
        assert (fault.field, fault.text) == ("reactors", "is missing; allowed: a list of module:Class")

    def test_sinks(self, folder: Folder) -> None:
        name = folder.add(
            "from pf_stream import Sink\n"
            f"from {folder.module} import Ping, Pong\n\n"
            "async def to(batch):\n    pass\n\n"
            "drain = Sink('drain', of=Pong, to=to)\nwrong = Sink('wrong', of=Ping, to=to)\nnumber = 1\n"
        )
        head = "name: pings\nreactors: [MODULE:Watcher]\ninternal: [pongs]\nemits: [MODULE:Pong]\n"
        topology = read_topology_file(folder.write(f"{head}sinks: [{name}:drain]\n"))
        assert topology.sinks == (sys.modules[name].drain,)
        (fault,) = faults(folder, f"{head}sinks: [{name}:drain, {name}:wrong]\n")
        assert (fault.line, fault.field) == (5, "sinks[1]")
        assert fault.text.startswith("sink 'wrong' takes ping from 'intents', to which others may write")
        (fault,) = faults(folder, f"{head}sinks: [{name}:number]\n")
        assert fault.field == "sinks[0]"

    def test_defaults_are_those_of_the_model(self, folder: Folder) -> None:
        topology = read_topology_file(folder.write(GOOD))
        assert (topology.namespace, topology.partitions, topology.replies) == ("pings", 4, ())
        assert not topology.internal
        assert not topology.emits
        assert (topology.version, topology.retired) == (1, frozenset())

    def test_every_field_is_explained(self) -> None:
        assert all(field.description for field in TopologyFile.model_fields.values())

    def test_the_path_is_as_before(self, folder: Folder) -> None:
        before = list(sys.path)
        read_topology_file(folder.write(GOOD))
        assert sys.path == before

    def test_a_relative_file_finds_its_modules(self, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
        folder.write(GOOD)
        monkeypatch.chdir(folder.path)
        assert read_topology_file(Path("topology.yaml")).name == "pings"


# Each: the file, then line, field and what the message must hold.
SHAPES = {
    "unknown field": (
        "name: pings\nreactor:\n  - MODULE:Watcher\nreactors: [MODULE:Watcher]\n",
        (2, "reactor", "there is no field 'reactor'; did you mean 'reactors'?"),
    ),
    "number for a field": (
        "name: pings\n7: x\nreactors: [MODULE:Watcher]\n",
        (2, "[7]", "there is no field 7; known: "),
    ),
    "trust is no field": (
        GOOD + "trust_roots: [a.pub]\n",
        (
            4,
            "trust_roots",
            "there is no field 'trust_roots'; known: calendars, capabilities, constraints, emits, guarantee,",
        ),
    ),
    "missing name": ("reactors:\n  - MODULE:Watcher\n", (1, "name", "is missing; allowed: a text such as flights")),
    "missing reactors": ("name: pings\n", (1, "reactors", "is missing; allowed: a list of module:Class")),
    "number for a name": (
        "reactors: [MODULE:Watcher]\nname: 7\n",
        (2, "name", "found 7, a number; allowed: a text such as flights"),
    ),
    "text for a list": (
        "name: pings\nreactors: MODULE:Watcher\n",
        (2, "reactors", "a text; allowed: a list of module:Class"),
    ),
    "mapping for a list": (
        GOOD + "internal:\n  pongs: true\n",
        (4, "internal", "found a mapping; allowed: a list of topics within the namespace"),
    ),
    "nothing for a list": (
        GOOD + "replies:\n",
        (4, "replies", "found nothing; allowed: a list of topic patterns"),
    ),
    "empty list of reactors": (
        "name: pings\nreactors: []\n",
        (2, "reactors", "found an empty list; allowed: a list of module:Class"),
    ),
    "number in a list": (
        GOOD + "internal:\n  - pongs\n  - 3\n",
        (6, "internal[1]", "found 3, a number; allowed: topics within the namespace"),
    ),
    "text for a version": (
        GOOD + "version: v2\n",
        (4, "version", "found 'v2', a text; allowed: a whole number, 1 or more"),
    ),
    "number for a retired reactor": (
        GOOD + "retired: [7]\n",
        (4, "retired[0]", "found 7, a number; allowed: reactor ids"),
    ),
    "text for a number": (
        GOOD + "partitions: four\n",
        (4, "partitions", "found 'four', a text; allowed: a whole number, 1 or more"),
    ),
    "truth for a number": (
        GOOD + "partitions: yes\n",
        (4, "partitions", "found 'yes', a text; allowed: a whole number"),
    ),
    "guarantee": (
        GOOD + "guarantee: exactly_once\n",
        (4, "guarantee", "found 'exactly_once', a text; allowed: effectively_once or transactional"),
    ),
    "store": (GOOD + "store: disk\n", (4, "store", "found 'disk', a text; allowed: memory or rocksdb")),
    "standby": (GOOD + "standby: one\n", (4, "standby", "found 'one', a text; allowed: a whole number, 0 or more")),
    "less than no standby": (GOOD + "standby: -1\n", (4, "standby", "standby must be 0 or more, not -1")),
    "families in a list": (
        GOOD + "capabilities: [FileCap]\n",
        (4, "capabilities", "found a list; allowed: families such as FileCap, each with its operations"),
    ),
    "operations in a list": (
        GOOD + "capabilities:\n  FileCap:\n    - read\n",
        (5, "capabilities.FileCap", "found a list; allowed: operations such as read, each with a list"),
    ),
    "nothing for what is implied": (
        GOOD + "capabilities:\n  FileCap:\n    read:\n",
        (6, "capabilities.FileCap.read", "found nothing; allowed: a list of operations that it implies, such as []"),
    ),
    "text for what is implied": (
        GOOD + "capabilities:\n  FileCap:\n    read: []\n    write: read\n",
        (7, "capabilities.FileCap.write", "found 'read', a text; allowed: a list of operations"),
    ),
    "number for an operation": (
        GOOD + "capabilities:\n  FileCap:\n    write:\n      - 7\n",
        (7, "capabilities.FileCap.write[0]", "found 7, a number; allowed: an operation such as read, or OtherCap.read"),
    ),
    "number for a family": (
        GOOD + "capabilities:\n  7:\n    read: []\n",
        (5, "capabilities[7]", "found 7, a number; allowed: a name such as FileCap or read"),
    ),
    "fraction": (GOOD + "partitions: 1.5\n", (4, "partitions", "1.5, a fraction; allowed: a whole number")),
}

REFERENCES = {
    "no colon": (
        "name: pings\nreactors:\n  - MODULE.Watcher\n",
        (3, "reactors[0]", "found 'MODULE.Watcher'; allowed: module:Class; did you mean MODULE:Watcher?"),
    ),
    "no such module": (
        "name: pings\nreactors:\n  - nowhere_at_all:Watcher\n",
        (3, "reactors[0]", "there is no module 'nowhere_at_all' in "),
    ),
    "no such class": (
        "name: pings\nreactors:\n  - MODULE:Watcher\n  - MODULE:Ecco\n",
        (4, "reactors[1]", "has no Reactor 'Ecco'; did you mean 'Echo'?"),
    ),
    "another kind of class": (
        "name: pings\nreactors:\n  - MODULE:Seen\n",
        (3, "reactors[0]", ":Seen is the class Seen, not a Reactor; known: Echo, Watcher"),
    ),
    "no class": (GOOD + "emits: [MODULE:number]\n", (4, "emits[0]", ":number is an int, not an Intent")),
    "the base itself": ("name: pings\nreactors: [MODULE:Reactor]\n", (2, "reactors[0]", "is the class Reactor, not a")),
}

MODEL = {
    "bad name": ("name: Pings\nreactors: [MODULE:Watcher]\n", (1, "name", "name 'Pings' must be lower case letters")),
    "bad namespace": (GOOD + "namespace: a..b\n", (4, "namespace", "namespace 'a..b' must be lower case letters")),
    "no partitions": (GOOD + "partitions: 0\n", (4, "partitions", "partitions must be 1 or more, not 0")),
    "unknown internal topic": (
        "name: pings\nreactors: [MODULE:Watcher, MODULE:Echo]\ninternal:\n  - pongs\n  - pnogs\n",
        (5, "internal[1]", "internal topic 'pnogs' carries no intent type; did you mean 'pongs'?"),
    ),
    "intents cannot be internal": (GOOD + "internal: [intents]\n", (4, "internal[0]", "cannot be internal")),
    "the same reactor twice": (
        "name: pings\nreactors: [MODULE:Watcher, MODULE:Watcher]\n",
        (2, "reactors", "have the same id 'watcher'"),
    ),
}

YAML = {
    "no YAML": ("name: pings\nreactors: [MODULE:Watcher\n", (3, "", "no YAML: while parsing a flow sequence")),
    "a tab": ("name: pings\n\treactors: 1\n", (2, "", "no YAML: ")),
    "the same field twice": ("name: pings\nname: pongs\n", (2, "", 'found duplicate key "name"')),
    "empty": (
        "",
        (
            1,
            "",
            "found nothing; allowed: a mapping with the fields name, capabilities, calendars, reactors, requires, constraints,",
        ),
    ),
    "a list": ("- name: pings\n", (1, "", "found a list; allowed: a mapping")),
    "two documents": (GOOD + "---\nname: b\n", (4, "", "no YAML: ")),
    "a tag that lies": (GOOD + "partitions: !!int four\n", (1, "", "no YAML: invalid literal")),
    "a control character": ("name: \x01\n", (1, "", "no YAML: ")),
}

EVERY = {**SHAPES, **REFERENCES, **MODEL, **YAML}


class TestFaults:
    @pytest.mark.parametrize(("text", "expected"), EVERY.values(), ids=EVERY.keys())
    def test_one_fault_with_line_and_field(self, shared: Folder, text: str, expected: tuple[int, str, str]) -> None:
        line, field, said = expected
        (fault,) = faults(shared, text)
        assert (fault.line, fault.field) == (line, field)
        assert said.replace("MODULE", shared.module) in fault.text

    def test_all_faults_in_one_go_by_line(self, folder: Folder) -> None:
        found = faults(
            folder,
            "name: Pings\n"  # 1
            "nmespace: x\n"  # 2
            "reactors:\n"
            "  - MODULE:Watcher\n"
            "  - MODULE:Ecco\n"  # 5
            "  - nowhere_at_all:A\n"  # 6
            "  - nowhere_at_all:B\n"  # said once
            "internal: pongs\n"  # 8
            "emits: [MODULE:Png]\n"  # 9
            "partitions: 0\n",  # 10
        )
        assert [(fault.line, fault.field) for fault in found] == [
            (1, "name"),
            (2, "nmespace"),
            (5, "reactors[1]"),
            (6, "reactors[2]"),
            (8, "internal"),
            (9, "emits[0]"),
            (10, "partitions"),
        ]

    def test_a_topic_of_an_emitted_type_is_known_whatever_else_is_wrong(self, folder: Folder) -> None:
        (fault,) = faults(folder, GOOD + "emits: [MODULE:Pong]\ninternal: [pongs]\nversion: 0\n")
        assert fault.field == "version"

    def test_types_that_are_emitted_and_do_not_go_together(self, folder: Folder) -> None:
        name = folder.add(
            "from typing import Annotated\nfrom pf_stream import PUBLIC, Intent, Key\n"
            "class Pong(Intent, name='pong', topic='pongs', requires=PUBLIC):\n    host: Annotated[str, Key]\n"
        )
        (fault,) = faults(folder, GOOD + f"version: 1\nemits: [MODULE:Pong, {name}:Pong]\n")
        assert (fault.line, fault.field, fault.text) == (5, "emits", "Pong and Pong are both pong.v1")

    def test_a_fault_that_follows_from_another_is_not_told(self, folder: Folder) -> None:
        # pongs is unknown only because Echo is.
        (fault,) = faults(folder, "name: pings\nreactors:\n  - MODULE:Watcher\n  - MODULE:Ecco\ninternal: [pongs]\n")
        assert fault.field == "reactors[1]"

    def test_the_message_has_one_line_for_each(self, folder: Folder) -> None:
        path = folder.write("name: Pings\nreactors: [MODULE:Watcher]\npartitions: 0\n")
        with pytest.raises(TopologyFileError) as caught:
            read_topology_file(path)
        count, first, second = str(caught.value).splitlines()
        assert count == "2 faults"
        assert first.startswith(f"{path}:1: name: name 'Pings' must be")
        assert second == f"{path}:3: partitions: partitions must be 1 or more, not 0"
        assert caught.value.code == "bad_topology_file"


FAMILIES = "name: pings\nreactors: [MODULE:Watcher]\ncapabilities:\n"


class TestCapabilities:
    def test_are_known_before_the_modules_are_imported(self, folder: Folder) -> None:
        name = folder.add(
            "from typing import Annotated\n"
            "from pf_stream import Intent, Key, Reactor, State, on\n"
            "from pf_stream.model import family, grant\n"
            f"Cap = family('{folder.module}Cap')\n"
            f"class Ping(Intent, name='ping', requires=grant('{folder.module}Cap.read:/{{host}}')):\n"
            "    host: Annotated[str, Key]\n"
            "class Seen(State):\n"
            "    pass\n"
            "class Watcher(Reactor[Seen], id='watcher'):\n"
            "    @on\n"
            "    def pinged(self, intent: Ping, state: Seen, ctx: object) -> None: ...\n"
        )
        path = folder.write(
            f"name: pings\nreactors: [{name}:Watcher]\n"
            "capabilities:\n  MODULECap:\n    write: [read, MODULELog.note]\n    read: []\n  MODULELog: {note: []}\n"
        )
        (spec,) = read_topology_file(path).intents
        (grant,) = spec.requires
        assert isinstance(grant, Grant)
        assert str(grant) == f"{folder.module}Cap.read(/{{host}})"
        assert grant.operation.implied_by == {f"{folder.module}Cap.{short}" for short in ("read", "write")}
        assert [op.name for op in family(f"{folder.module}Cap").__operations__["write"].implies] == [
            f"{folder.module}Cap.read",
            f"{folder.module}Log.note",
        ]
        assert read_topology_file(path).intents == (spec,), "it may be read again"

    @pytest.mark.parametrize(
        ("families", "expected"),
        [
            (
                "  MODULECap:\n    read: []\n    write:\n      - read\n      - raed\n",
                (
                    8,
                    ".write[1]",
                    "write implies 'raed', but operation 'MODULECap.raed' is not known; did you mean 'read'?",
                ),
            ),
            (
                "  MODULECap:\n    note: [MODULEVlog.note]\n  MODULEVlogs: {note: []}\n",
                (5, ".note[0]", "but capability family 'MODULEVlog' is not known; did you mean 'MODULEVlogs'?"),
            ),
            (
                "  MODULECap:\n    note: [MODULEDiary.nte]\n  MODULEDiary: {note: []}\n",
                (5, ".note[0]", "operation 'MODULEDiary.nte' is not known; did you mean 'note'?"),
            ),
            (
                "  MODULECap: {a: [], b: [MODULECap.c]}\n",
                (4, ".b[0]", "operation 'MODULECap.c' is not known; known: a, b"),
            ),
            ("  MODULECap: {}\n", (4, "", "has no operations; declare at least one, such as read")),
            ("  MODULECap:\n    re-ad: []\n", (5, ".re-ad", "the name cannot be written into a token")),
            (
                "  MODULECap:\n    a: [b]\n    b: [c]\n    c: [a]\n",
                (
                    4,
                    "",
                    "implication runs in a circle: MODULECap.a -> MODULECap.b -> MODULECap.c -> MODULECap.a; remove",
                ),
            ),
        ],
    )
    def test_one_fault_with_line_and_field(self, folder: Folder, families: str, expected: tuple[int, str, str]) -> None:
        line, field, said = expected
        (fault,) = faults(folder, FAMILIES + families)
        assert (fault.line, fault.field) == (line, f"capabilities.{folder.module}Cap{field}")
        assert said.replace("MODULE", folder.module) in fault.text

    def test_all_faults_in_one_go_but_none_that_follows_from_another(self, folder: Folder) -> None:
        found = faults(
            folder,
            "name: Pings\n"
            "reactors: [nowhere_at_all:Watcher]\n"  # it may be that it fails for want of the families
            "capabilities:\n"
            "  MODULECap:\n"
            "    a: [MODULELog.note]\n"  # 5: it is only unknown because of line 9
            "    b: [x]\n"  # 6
            "    c: [y]\n"  # 7
            "  MODULELog:\n"
            "    note: [z]\n",  # 9
        )
        assert [(fault.line, fault.field.removeprefix(f"capabilities.{folder.module}")) for fault in found] == [
            (1, "name"),
            (6, "Cap.b[0]"),
            (7, "Cap.c[0]"),
            (9, "Log.note[0]"),
        ]

    def test_families_do_not_imply_each_other(self, folder: Folder) -> None:
        (fault,) = faults(
            folder, FAMILIES + "  MODULEa: {x: [MODULEb.x]}\n  MODULEb: {x: [MODULEc.x]}\n  MODULEc: {x: [MODULEa.x]}\n"
        )
        assert (fault.line, fault.field) == (3, "capabilities")
        a, b, c = (f"{folder.module}{letter}" for letter in "abc")
        circles = [" -> ".join(circle) for circle in ((a, b, c, a), (b, c, a, b), (c, a, b, c))]
        assert fault.text in {
            f"families imply operations of each other: {circle}; remove one step, or make them one family"
            for circle in circles
        }

    def test_one_name_has_one_meaning_in_file_and_module(self, folder: Folder) -> None:
        declared = f"from pf_stream import Capability, operation\nclass {folder.module}Cap(Capability):\n    read = operation()\n"
        watcher = f"from {folder.module} import Watcher\n"
        same, other = (
            folder.add(declared + watcher, "same"),
            folder.add(declared + "    write = operation()\n" + watcher, "other"),
        )
        families = "capabilities:\n  MODULECap: {read: []}\n"
        assert read_topology_file(folder.write(f"name: pings\nreactors: [{same}:Watcher]\n{families}")).name == "pings"
        (fault,) = faults(folder, f"name: pings\nreactors: [{other}:Watcher]\n{families}")
        assert (fault.line, fault.field) == (2, "reactors[0]")
        assert f"another family is called {folder.module}Cap and has other operations" in fault.text
        (fault,) = faults(folder, FAMILIES + "  MODULECap: {write: []}\n")
        assert (fault.line, fault.field) == (4, f"capabilities.{folder.module}Cap")
        assert f"another family is called {folder.module}Cap and has other operations" in fault.text


class TestModules:
    def test_a_misspelt_module_is_not_found_and_the_near_one_named(self, folder: Folder) -> None:
        (fault,) = faults(folder, f"name: pings\nreactors: [{folder.module}s:Watcher]\n")
        assert f"there is no module '{folder.module}s' in {folder.path}" in fault.text
        assert fault.text.endswith(f"; did you mean '{folder.module}'?")

    def test_a_missing_import_inside_is_another_fault(self, folder: Folder) -> None:
        name = folder.add("import os\nimport nowhere_at_all\n")
        (fault,) = faults(folder, f"name: pings\nreactors: [{name}:Watcher]\n")
        assert fault.text == (
            f"module '{name}' was found, but importing it failed at {folder.path / name}.py:2: "
            f"ModuleNotFoundError: No module named 'nowhere_at_all'"
        )

    def test_a_missing_import_two_modules_down_names_the_lower_one(self, folder: Folder) -> None:
        lower = folder.add("import nowhere_at_all\n", "lower")
        name = folder.add(f"\n\nimport {lower}\n")
        (fault,) = faults(folder, f"name: pings\nreactors: [{name}:Watcher]\n")
        assert f"{lower}.py:1: ModuleNotFoundError" in fault.text

    @pytest.mark.parametrize(
        ("source", "said"),
        [
            ("x = (\n", ".py:1: SyntaxError: '(' was never closed"),
            ("\n1 / 0\n", ".py:2: ZeroDivisionError: division by zero"),
            ("\nimport sys\nsys.exit(3)\n", ".py:3: SystemExit: 3"),
        ],
        ids=["syntax", "exception", "exit"],
    )
    def test_a_module_that_fails_says_where(self, folder: Folder, source: str, said: str) -> None:
        name = folder.add(source)
        (fault,) = faults(folder, f"name: pings\nreactors: [{name}:Watcher]\n")
        assert fault.text.endswith(said)

    def test_a_definition_error_passes_with_all_its_faults(self, folder: Folder) -> None:
        name = folder.add(
            "from pf_stream import Reactor, State\n\nclass Seen(State):\n    pass\n\nclass Broken(Reactor[Seen]):\n    pass\n"
        )
        first, second = faults(folder, f"name: pings\nreactors: [{name}:Broken]\n")
        assert (first.field, second.field) == ("reactors[0]", "reactors[0]")
        assert first.text.startswith(f"reactor {name}.Broken: has no id: write class Broken(Reactor[...]")
        assert second.text.startswith(f"reactor {name}.Broken: has no handler")

    def test_a_missing_part_of_a_package(self, folder: Folder) -> None:
        package = folder.path / f"{folder.module}_package"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "fleet.py").touch()
        (fault,) = faults(folder, f"name: pings\nreactors: [{package.name}.flet:Watcher]\n")
        assert fault.text.endswith("; did you mean 'fleet'?")

    def test_a_name_that_another_module_has_already(self, folder: Folder) -> None:
        (folder.path / "json.py").write_text("", encoding="utf-8")
        (fault,) = faults(folder, "name: pings\nreactors: [json:Watcher]\n")
        assert fault.text.startswith("the name 'json' belongs to ")
        assert fault.text.endswith(f"so {folder.path / 'json.py'} cannot be imported; rename it")


class TestUnreadable:
    def test_a_missing_file_names_the_near_one(self, folder: Folder) -> None:
        folder.write(GOOD)
        with pytest.raises(NotFoundError, match=r"no topology file .*topolgy.yaml; did you mean 'topology.yaml'\?"):
            read_topology_file(folder.path / "topolgy.yaml")

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError, match="no topology file"):
            read_topology_file(tmp_path / "none" / "topology.yaml")

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
            read_topology_file(tmp_path)

    def test_bytes_that_are_no_text(self, tmp_path: Path) -> None:
        path = tmp_path / "topology.yaml"
        path.write_bytes(b"name: \xff\n")
        with pytest.raises(TopologyFileError, match="it is not UTF-8"):
            read_topology_file(path)
