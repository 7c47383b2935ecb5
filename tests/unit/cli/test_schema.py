"""``pf schema export``: written once, then compared."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pf_stream.cli import schema

FLIGHTS = str(Path(__file__).parents[3] / "topologies/flights/topology.yaml")


def export(*args: str) -> Result:
    return CliRunner().invoke(schema.app, ["export", FLIGHTS, *args], env={"COLUMNS": "200"})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "schemas"


def test_writes_to_schemas_and_then_finds_them_the_same(folder: Path) -> None:
    first, second = export("-o", "json"), export("-o", "json")
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert {row["status"] for row in json.loads(first.stdout)} == {"written"}
    assert {row["status"] for row in json.loads(second.stdout)} == {"same"}
    assert sorted(path.name for path in folder.iterdir()) == [
        Path(row["file"]).name for row in json.loads(first.stdout)
    ]


def test_check_finds_what_is_changed_and_missing_and_writes_nothing(folder: Path) -> None:
    export()
    (folder / "flights.departed.v1.json").write_text("{}", encoding="utf-8")
    (folder / "flights.origin_delay.v1.json").unlink()
    done = export("--check", "-o", "json")
    assert done.exit_code == 1
    found = {Path(row["file"]).name: row["status"] for row in json.loads(done.stdout) if row["status"] != "same"}
    assert found == {"flights.departed.v1.json": "changed", "flights.origin_delay.v1.json": "missing"}
    assert "write them with: pf schema export" in done.stderr
    assert (folder / "flights.departed.v1.json").read_text(encoding="utf-8") == "{}"


def test_check_is_content_with_what_was_written(folder: Path) -> None:
    export("--out", "elsewhere")
    done = export("--out", "elsewhere", "--check")
    assert (done.exit_code, done.stderr) == (0, "")
