"""``pf context explain``: what a worker would decide, and why."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pf_stream.cli import context
from pf_stream.clock import VirtualClock
from pf_stream.model.capability import parse_grant
from pf_stream.security import SigningKey, TrustRoots, attenuate, mint

NOW_MS = 1_767_225_600_000
FLIGHTS = Path(__file__).parents[3] / "topologies/flights/topology.yaml"
FLIGHT = {
    "carrier": "UA", "flight": 1545, "tailnum": "N14228", "origin": "EWR", "dest": "IAH", "sched_dep_time": 515,
    "date": "2013-01-01", "dep_delay": 2.0,
}  # fmt: skip


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    key = SigningKey.generate(7)
    key.save(tmp_path / "k")
    return key


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualClock:
    virtual = VirtualClock(NOW_MS)
    monkeypatch.setattr(context, "WallClock", lambda: virtual)
    return virtual


def token(key: SigningKey, *grants: str, audience: str = "flights") -> str:
    return mint(key, subject="ua", audience=audience, capabilities=[parse_grant(one) for one in grants], now_ms=NOW_MS)


def explain(tmp_path: Path, text: str, *more: str, event: Any = None, stdin: str | None = None) -> Result:
    """Run it on a flight of UA from EWR."""
    (tmp_path / "t").write_text(text)
    schema = json.loads((FLIGHTS.parents[2] / "schemas" / "flights.departed.v1.json").read_text())
    data = {name: FLIGHT.get(name, "x") for name in schema["required"]}
    (tmp_path / "i").write_text(json.dumps(event if event is not None else {"type": "flights.departed", "data": data}))
    options = ["-t", str(FLIGHTS), "--trust", str(tmp_path / "k.pub"), "--intent", str(tmp_path / "i")]
    return CliRunner().invoke(
        context.app, ["explain", *options, "--context", "-" if stdin else str(tmp_path / "t"), *more], input=stdin
    )


def test_accepted_by_which_grant_and_chain(tmp_path: Path, key: SigningKey) -> None:
    done = explain(tmp_path, token(key, "FlightCap.admin:/UA/**"), "-o", "json")
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["accepted"], said["code"], said["subject"]) == (True, None, "ua")
    assert said["expires"] == "2026-01-01T00:15:00Z"
    assert said["may"] == ["FlightCap.admin:/UA/**"]
    (finding,) = said["requirements"]
    assert finding["requirement"] == "FlightCap.report(/{carrier}/{origin})"
    assert finding["holds"]
    assert finding["because"].startswith(
        "granted: FlightCap.report:/UA/EWR\n  by FlightCap.admin:/UA/**, since FlightCap.admin"
    )


def test_refused_with_what_is_nearest(tmp_path: Path, key: SigningKey) -> None:
    done = explain(tmp_path, token(key, "FlightCap.report:/DL/**"), "-o", "json")
    assert done.exit_code == 4
    said = json.loads(done.stdout)
    assert (said["accepted"], said["code"]) == (False, "insufficient_capabilities")
    assert "nearest: FlightCap.report:/DL/**" in said["requirements"][0]["because"]


def test_narrowed_away(tmp_path: Path, key: SigningKey) -> None:
    narrow = attenuate(
        token(key, "FlightCap.report:/**"), TrustRoots.of(key), capabilities=[parse_grant("FlightCap.report:/DL/**")]
    )
    done = explain(tmp_path, narrow, "-o", "json")
    assert done.exit_code == 4
    assert "the issuer granted it, and somebody who held the token since narrowed it away" in done.stdout


def test_granted_and_yet_refused(tmp_path: Path, key: SigningKey) -> None:
    narrow = attenuate(token(key, "FlightCap.report:/**"), TrustRoots.of(key), topics=["other"])
    done = explain(tmp_path, narrow, "-o", "json")
    said = json.loads(done.stdout)
    assert said["code"] == "wrong_topic"
    assert (
        said["requirements"][0]["because"] == "FlightCap.report:/UA/EWR is granted, but the token is not for this topic"
    )


@pytest.mark.parametrize(("at", "code"), [("15m", "token_expired"), ("2026-01-01T00:15:00Z", "token_expired")])
def test_at_another_time(tmp_path: Path, key: SigningKey, clock: VirtualClock, at: str, code: str) -> None:
    text = token(key, "FlightCap.report:/**")
    clock.advance(30 * 60)
    assert explain(tmp_path, text, "--at", "20m", "-o", "json").exit_code == 0
    done = explain(tmp_path, text, "--at", at, "-o", "json")
    assert (done.exit_code, json.loads(done.stdout)["code"]) == (4, code)


def test_a_token_that_is_not_believed(tmp_path: Path, key: SigningKey) -> None:
    done = explain(tmp_path, token(key, audience="other"), "-o", "json")
    said = json.loads(done.stdout)
    assert (done.exit_code, said["code"], said["requirements"]) == (4, "wrong_audience", [])


def test_as_a_table_and_through_a_pipe(tmp_path: Path, key: SigningKey) -> None:
    done = explain(tmp_path, "", stdin=token(key, "FlightCap.report:/DL/**"))
    assert done.exit_code == 4
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["accepted", "False"]
    assert any(line.startswith("missing") and "FlightCap.report(/{carrier}/{origin})" in line for line in lines)
    assert any("nearest: FlightCap.report:/DL/**" in line for line in lines)


@pytest.mark.parametrize(
    ("event", "fault"),
    [
        ([], "no JSON object with a type and data"),
        ({"type": "flights.departed"}, "no JSON object with a type and data"),
        (
            {"type": "flights.departd", "data": {}},
            "no intent type 'flights.departd'; did you mean 'flights.departed.v1'",
        ),
        ({"type": "flights.departed", "data": {}}, "the data is no flights.departed.v1"),
    ],
)
def test_an_intent_that_cannot_be_read(tmp_path: Path, key: SigningKey, event: Any, fault: str) -> None:
    done = explain(tmp_path, token(key), event=event)
    assert done.exit_code in {1, 3}
    assert fault in " ".join(done.stderr.split())


def test_only_one_of_both_is_the_standard_input(tmp_path: Path, key: SigningKey) -> None:
    done = CliRunner().invoke(
        context.app, ["explain", "-t", str(FLIGHTS), "--trust", str(tmp_path / "k.pub"), "--intent", "-"]
    )
    assert done.exit_code == 2
    assert "cannot both be the standard input" in " ".join(done.stderr.split())
