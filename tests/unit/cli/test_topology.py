"""``pf topology``: as people and as programs see it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from pf_stream.cli import topology

ROOT = Path(__file__).parents[3]
FLIGHTS = str(ROOT / "topologies/flights/reactors.yaml")
PF = [sys.executable, "-W", "error", "-m", "pf_stream"]


@pytest.fixture(autouse=True)
def no_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PF_NAMESPACE", raising=False)


def pf(*args: str) -> Result:
    return CliRunner().invoke(topology.app, list(args))


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    path = tmp_path / "topology.yaml"
    path.write_text("name: flights\nreactors: []\npartitons: 4\n", encoding="utf-8")
    return path


@pytest.fixture
def guarded(tmp_path: Path) -> Path:
    path = tmp_path / "topology.yaml"
    path.write_text(
        """\
name: tally
calendars:
  office:
    zone: Europe/London
    open: [mon-fri 09:00-17:00 Europe/London, sat 10:00-12:00 UTC]
    holidays: [2026-12-25]
reactors:
  - tests.tally.v2:Counts
  - {reactor: tests.tally.v2:Sums, as: service, key: 7, grants: [TallyCap.add:/**]}
requires:
  tally.added:
    - during calendar office
    - [TallyCap.add:/, caller tenant=acme]
""",
        encoding="utf-8",
    )
    return path


class TestValidate:
    def test_ok_in_a_word(self) -> None:
        done = pf("validate", FLIGHTS)
        assert done.exit_code == 0
        assert done.stdout.split()[:2] == ["status", "ok"]

    def test_all_faults_on_stderr_where_an_editor_finds_them(self, faulty: Path) -> None:
        done = pf("validate", str(faulty))
        assert (done.exit_code, done.stdout) == (1, "")
        assert f"{faulty}:2: reactors: found an empty list; allowed: a list of module:Class\n" in done.stderr
        assert f"{faulty}:3: partitons: there is no field 'partitons'; did you mean 'partitions'?\n" in done.stderr

    def test_a_requirement_that_names_what_is_not_known(self, guarded: Path) -> None:
        text = guarded.read_text().replace("during calendar office", "during calendar ofice")
        guarded.write_text(text.replace("[TallyCap.add:/,", "[TallyCap.ad:/,"))
        done = pf("validate", str(guarded))
        assert (done.exit_code, done.stdout) == (1, "")
        assert f"{guarded}:12: requires.tally.added[0]: tally.added requires during calendar ofice, and" in done.stderr
        assert (
            f"{guarded}:13: requires.tally.added[1][0]: operation 'TallyCap.ad': is not known; did you" in done.stderr
        )

    def test_for_programs_faults_are_data(self, faulty: Path) -> None:
        done = pf("validate", str(faulty), "-o", "json")
        assert (done.exit_code, done.stderr) == (1, "")
        said = json.loads(done.stdout)
        assert said["status"] == "faulty"
        assert [(fault["line"], fault["field"]) for fault in said["faults"]] == [(2, "reactors"), (3, "partitons")]

    def test_no_faults_are_data_too(self) -> None:
        assert json.loads(pf("validate", FLIGHTS, "-o", "json").stdout) == {
            "status": "ok",
            "name": "flights",
            "namespace": "flights",
            "groups": 3,
            "reactors": 3,
            "intents": 3,
            "faults": [],
        }

    def test_a_missing_file_has_its_own_exit_code(self) -> None:
        done = pf("validate", str(ROOT / "topologies/flights/topolgy.yaml"))
        assert done.exit_code == 3
        assert "did you mean 'topology.yaml'?" in done.stderr

    @pytest.mark.slow
    def test_a_module_of_the_working_directory(self) -> None:
        done = subprocess.run(
            [*PF, "topology", "validate", "flights:flights"],
            cwd=ROOT / "topologies/flights",
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert (done.returncode, done.stderr) == (0, "")


class TestShow:
    def test_groups_and_types(self) -> None:
        done = CliRunner().invoke(topology.app, ["show", FLIGHTS], env={"COLUMNS": "200"})
        assert done.exit_code == 0
        rows = [line.split() for line in done.stdout.splitlines()]
        assert ["guarantee", "effectively_once"] in rows
        assert ["intents", "fleet", "Aircraft", "v1", "flights.departed.v1", "flights-intents-changelog"] in rows
        requires = "FlightCap.report(/{carrier}/{origin})"
        assert ["flights.departed.v1", "flights.intents", "tailnum", requires, "fleet"] in rows
        assert ["flights.origin_delay.v1", "flights.airports", "(internal)", "origin", requires, "board"] in rows
        assert ["FlightCap.report", "-", "FlightCap.admin"] in rows
        assert ["FlightCap.admin", "FlightCap.report", "-"] in rows

    def test_older_versions_that_are_taken(self) -> None:
        shown = CliRunner().invoke(topology.app, ["show", "tests.tally.v2:tally"], env={"COLUMNS": "200"})
        rows = [line.split() for line in shown.stdout.splitlines()]
        requires = "TallyCap.add(/{thing})"
        assert ["tally.added.v2", "tally.added.v1", "tally.intents", "thing", requires, "counts"] in rows
        assert "also accepts" not in pf("show", FLIGHTS).stdout

    def test_who_may_do_what_when(self, guarded: Path) -> None:
        shown = CliRunner().invoke(topology.app, ["show", str(guarded)], env={"COLUMNS": "250"}).stdout
        (added,) = [line for line in shown.splitlines() if line.startswith("tally.added.v2")]
        assert (
            " TallyCap.add(/{thing}), during calendar office [topology, at run time], "
            "(TallyCap.add(/) or caller's tenant is acme) [topology]  "
        ) in added
        rows = [line.split() for line in shown.splitlines()]
        assert ["sums", "service:tally/sums", "7", "TallyCap.add:/**"] in rows
        office = "office    Europe/London  mon-fri 09:00-17:00 Europe/London or sat 10:00-12:00 UTC  1"
        assert office in [line.rstrip() for line in shown.splitlines()]
        assert "calendar" not in pf("show", FLIGHTS).stdout

    def test_who_may_do_what_when_as_data(self, guarded: Path) -> None:
        said = json.loads(pf("show", str(guarded), "-o", "json").stdout)
        assert said["intents"][0]["requires"] == [
            {"text": "TallyCap.add(/{thing})", "static": True, "required_by": ["type"]},
            {"text": "during calendar office", "static": False, "required_by": ["topology"]},
            {
                "text": "(TallyCap.add(/) or caller's tenant is acme)",
                "static": True,
                "required_by": ["topology"],
            },
        ]
        assert said["services"] == [
            {"reactor": "sums", "subject": "service:tally/sums", "key": 7, "grants": ["TallyCap.add:/**"]}
        ]
        assert said["calendars"] == [
            {
                "name": "office",
                "zone": "Europe/London",
                "open": ["mon-fri 09:00-17:00 Europe/London", "sat 10:00-12:00 UTC"],
                "holidays": 1,
            }
        ]

    def test_when_intents_are_handled(self, guarded: Path) -> None:
        with guarded.open("a", encoding="utf-8") as file:
            file.write(
                "constraints: {tally.added: [only calendar office, never daily 12:00-12:30 UTC otherwise refuse]}\n"
            )
        shown = CliRunner().invoke(topology.app, ["show", str(guarded)], env={"COLUMNS": "200"})
        assert shown.exit_code == 0, shown.output
        rows = [
            line.split() for line in shown.stdout.splitlines() if line.rstrip().endswith(("waits", "in_maintenance"))
        ]
        assert rows == [
            ["tally.added.v2", "only", "calendar", "office", "topology", "waits"],
            [
                "tally.added.v2",
                "never",
                "daily",
                "12:00-12:30",
                "UTC",
                "otherwise",
                "refuse",
                "topology",
                "in_maintenance",
            ],
        ]
        data = json.loads(pf("show", str(guarded), "-o", "json").stdout)
        assert [one["code"] for intent in data["intents"] for one in intent["constraints"]] == [
            "outside_hours",
            "in_maintenance",
        ]

    def test_in_another_namespace(self) -> None:
        said = json.loads(pf("show", FLIGHTS, "--namespace", "test", "-o", "json").stdout)
        assert said["app"] == "test.flights"
        assert [group["changelog"] for group in said["groups"]] == [
            "test.flights-airports-changelog",
            "test.flights-carriers-changelog",
            "test.flights-intents-changelog",
        ]

    def test_keys_are_the_same_in_yaml(self) -> None:
        said = json.loads(pf("show", FLIGHTS, "-o", "json").stdout)
        assert YAML(typ="safe").load(pf("show", FLIGHTS, "-o", "yaml").stdout) == said
        assert list(said) == [
            "name",
            "version",
            "namespace",
            "app",
            "partitions",
            "guarantee",
            "store",
            "standby",
            "replies",
            "retired",
            "groups",
            "intents",
            "capabilities",
            "services",
            "calendars",
            "sinks",
            "tables",
        ]
        assert said["capabilities"] == [
            {
                "name": "FlightCap",
                "operations": [
                    {"name": "FlightCap.report", "implies": [], "implied_by": ["FlightCap.admin"]},
                    {"name": "FlightCap.admin", "implies": ["FlightCap.report"], "implied_by": []},
                ],
            }
        ]
        assert list(said["groups"][0]["reactors"][0]) == [
            "id",
            "class",
            "state",
            "state_version",
            "oldest_state_version",
            "handles",
        ]

    def test_the_namespace_comes_from_the_environment_unless_a_flag_says_it(self) -> None:
        env = {"PF_NAMESPACE": "env"}
        by_env = CliRunner().invoke(topology.app, ["show", FLIGHTS, "-o", "json"], env=env)
        by_flag = CliRunner().invoke(topology.app, ["show", FLIGHTS, "-o", "json", "--namespace", "flag"], env=env)
        assert json.loads(by_env.stdout)["namespace"] == "env"
        assert json.loads(by_flag.stdout)["namespace"] == "flag"

    def test_a_bad_namespace_is_an_error_with_a_reason(self) -> None:
        done = pf("show", FLIGHTS, "--namespace", "Flights")
        assert done.exit_code == 1
        assert "error (bad_definition): topology 'flights': namespace 'Flights' must be lower case" in done.stderr

    @pytest.mark.slow
    def test_a_reader_that_leaves_early_is_no_traceback(self) -> None:
        read, write = os.pipe()
        with subprocess.Popen(
            [*PF, "topology", "show", FLIGHTS, "-o", "json"],
            stdout=write,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        ) as process:
            os.close(write)
            os.close(read)
            _, said = process.communicate(timeout=30)
        assert process.returncode == 1
        assert b"Traceback" not in said
        assert b"BrokenPipe" not in said
