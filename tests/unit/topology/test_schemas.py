"""JSON Schemas: those in the repository are those of the code, and they say what the code accepts."""

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from pf_stream.errors import ConfigurationError
from pf_stream.topology import read_topology_file
from pf_stream.topology.schemas import SchemaStatus, compare_schemas, json_schemas, write_schemas
from tests.tally import v2
from tests.unit.topology.conftest import FLIGHTS, ROOT

FLIGHT = {"tailnum": "N1", "carrier": "UA", "origin": "EWR", "flight": 1, "dest": "ORD"}


@pytest.fixture(scope="module")
def schemas() -> dict[str, bytes]:
    return json_schemas(read_topology_file(FLIGHTS / "topology.yaml"))


def test_the_repository_has_not_drifted(schemas: dict[str, bytes]) -> None:
    drifted = [file for file in compare_schemas(schemas, ROOT / "schemas") if file.status is not SchemaStatus.same]
    assert not drifted, "write them with: pf schema export topologies/flights/topology.yaml"


def test_the_repository_has_no_other_schemas(schemas: dict[str, bytes]) -> None:
    assert {path.name for path in (ROOT / "schemas").iterdir()} == set(schemas)


def test_one_for_each_type_by_its_name(schemas: dict[str, bytes]) -> None:
    assert sorted(schemas) == [
        "days.window.due.v1.json",
        "flights.aircraft_day.v1.json",
        "flights.carrier_delay.v1.json",
        "flights.departed.v1.json",
        "flights.hourly_delay.v1.json",
        "flights.origin_delay.v1.json",
        "flights.overdue.v1.json",
        "flights.scheduled.v1.json",
        "hourly.window.due.v1.json",
    ]


@pytest.fixture(scope="module")
def departed(schemas: dict[str, bytes]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(schemas["flights.departed.v1.json"])
    return found


def test_says_what_it_is_and_what_it_takes(departed: dict[str, Any]) -> None:
    assert departed["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert departed["$id"] == "urn:pf:intent:flights.departed.v1"
    assert departed["title"] == "flights.departed.v1"
    assert departed["x-pf-key"] == ["tailnum"]
    assert departed["x-pf-requires"] == ["FlightCap.report(/{carrier}/{origin})"]
    assert departed["x-pf-also-accepts"] == []


def test_says_which_older_versions_are_taken() -> None:
    assert json.loads(json_schemas(v2.tally)["tally.added.v2.json"])["x-pf-also-accepts"] == ["tally.added.v1"]


def test_all_are_of_the_dialect_they_name(schemas: dict[str, bytes]) -> None:
    for content in schemas.values():
        jsonschema_rs.meta.validate(json.loads(content))


@pytest.mark.parametrize(
    ("payload", "valid"),
    [
        (FLIGHT, True),
        (FLIGHT | {"delay": None, "distance": 7}, True),
        (FLIGHT | {"delay": "late"}, False),
        (FLIGHT | {"tail": "N1"}, False),
        ({name: value for name, value in FLIGHT.items() if name != "tailnum"}, False),
    ],
)
def test_accepts_what_the_type_accepts(departed: dict[str, Any], payload: dict[str, Any], valid: bool) -> None:
    assert jsonschema_rs.is_valid(departed, payload) is valid


class TestFolder:
    def test_writes_what_is_missing_or_changed_and_says_so(self, schemas: dict[str, bytes], tmp_path: Path) -> None:
        folder = tmp_path / "deep" / "schemas"
        assert {file.status for file in write_schemas(schemas, folder)} == {SchemaStatus.missing}
        assert {file.status for file in compare_schemas(schemas, folder)} == {SchemaStatus.same}
        (folder / "flights.departed.v1.json").write_text("{}", encoding="utf-8")
        changed = [file for file in write_schemas(schemas, folder) if file.status is not SchemaStatus.same]
        assert [(file.path.name, file.status) for file in changed] == [
            ("flights.departed.v1.json", SchemaStatus.changed)
        ]
        assert (folder / "flights.departed.v1.json").read_bytes() == schemas["flights.departed.v1.json"]

    def test_comparing_writes_nothing(self, schemas: dict[str, bytes], tmp_path: Path) -> None:
        compare_schemas(schemas, tmp_path / "schemas")
        assert not (tmp_path / "schemas").exists()

    def test_a_folder_that_is_a_file(self, schemas: dict[str, bytes], tmp_path: Path) -> None:
        (tmp_path / "schemas").touch()
        with pytest.raises(ConfigurationError, match="cannot write to"):
            write_schemas(schemas, tmp_path / "schemas")
