"""``pf intent send``: what is found wrong before anything is sent. No broker is there to be asked."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pf_stream.cli import intent

FLIGHTS = str(Path(__file__).parents[3] / "topologies/flights/topology.yaml")
FLIGHT = '{"tailnum": "N1", "carrier": "UA", "origin": "EWR", "flight": 1, "dest": "ORD"}'


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PF_CONTEXT", "PF_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PF_TOPOLOGY", FLIGHTS)
    monkeypatch.setenv("PF_BOOTSTRAP_SERVERS", "nobody.invalid:1")


def send(*args: str, stdin: str | None = None) -> Result:
    done = CliRunner().invoke(intent.app, ["send", *args], input=stdin)
    assert done.stdout == ""
    return done


def test_a_misspelt_type() -> None:
    done = send("flights.departd", "--data", FLIGHT)
    assert done.exit_code == 3
    assert "did you mean 'flights.departed.v1'?" in done.stderr


def test_a_type_of_the_inside() -> None:
    done = send("flights.carrier_delay", "--data", "{}")
    assert done.exit_code == 1
    assert "error (internal_intent)" in done.stderr


@pytest.mark.parametrize("data", ["file", "-"])
def test_wrong_data_from_anywhere(tmp_path: Path, data: str) -> None:
    wrong = FLIGHT.replace("tailnum", "tailnm")
    (tmp_path / "flight.json").write_text(wrong, encoding="utf-8")
    done = send("flights.departed", "--data", "-" if data == "-" else f"@{tmp_path}/flight.json", stdin=wrong)
    assert done.exit_code == 1
    assert "the data is no flights.departed.v1:\n" in done.stderr
    assert "\n  tailnum: Field required\n" in done.stderr
    assert "\n  tailnm: there is no such" in done.stderr


def test_a_missing_file_of_data() -> None:
    done = send("flights.departed", "--data", "@nowhere.json")
    assert done.exit_code == 3
    assert "nowhere.json: there is no such file" in done.stderr


def test_a_missing_context() -> None:
    done = send("flights.departed", "--data", FLIGHT, "--context", "nowhere.ctx")
    assert done.exit_code == 3
    assert "nowhere.ctx: there is no such file" in done.stderr


def test_a_reply_topic_that_the_topology_does_not_allow() -> None:
    done = send("flights.departed", "--data", FLIGHT, "--reply-to", "elsewhere")
    assert done.exit_code == 1
    assert "sends no replies to flights.elsewhere; allowed: flights.replies" in done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--data", "-", "--context", "-"), "cannot both be the standard input"),
        (("--data", FLIGHT, "--timeout", "10"), "is not a duration"),
        ((), "Missing option '--data'"),
    ],
)
def test_usage(args: tuple[str, ...], said: str) -> None:
    done = send("flights.departed", *args)
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())
