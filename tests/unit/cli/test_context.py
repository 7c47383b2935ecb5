"""``pf context``: from a key to a decision, through pipes and files."""

import json
import stat
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from pf_stream.cli import context
from pf_stream.clock import VirtualClock
from pf_stream.security import SigningKey, describe, mint

NOW_MS = 1_767_225_600_000
GRANT = ("--grant", "FlightCap.report:/UA/**")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    SigningKey.generate(7).save(tmp_path / "k")
    return tmp_path / "k"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualClock:
    virtual = VirtualClock(NOW_MS)
    monkeypatch.setattr(context, "WallClock", lambda: virtual)
    for name in ("PF_CONTEXT", "PF_SIGNING_KEY", "PF_TRUST_ROOTS"):
        monkeypatch.delenv(name, raising=False)
    return virtual


def pf(*args: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(context.app, [str(arg) for arg in args], input=stdin)


def minted(key: Path, *more: object) -> str:
    done = pf("mint", "--key", key, "--subject", "alice", "--audience", "flights", *GRANT, *more)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def trust(key: Path) -> tuple[str, Path]:
    return "--trust", key.with_name("k.pub")


class TestMint:
    def test_prints_the_token_alone(self, key: Path) -> None:
        said = minted(key, "--tenant", "acme", "--type", "t", "--type", "u", "--topic", "q", "--lifetime", "1h")
        assert said.count("\n") == 1
        says = describe(said.strip())
        assert (says.subject, says.tenant, says.audience, says.expires_ms) == (
            "alice",
            "acme",
            "flights",
            NOW_MS + 3_600_000,
        )
        assert (says.intent_types, says.topics) == (frozenset("tu"), frozenset("q"))
        assert list(map(str, says.capabilities)) == ["FlightCap.report:/UA/**"]

    def test_as_data(self, key: Path) -> None:
        said = json.loads(minted(key, "-o", "json"))
        assert said == {
            "token": said["token"],
            "kid": 7,
            "subject": "alice",
            "tenant": None,
            "audience": "flights",
            "session": None,
            "attributes": {},
            "issued": "2026-01-01T00:00:00Z",
            "authenticated": None,
            "capabilities": ["FlightCap.report:/UA/**"],
            "narrowed_to": [],
            "during": [],
            "intent_types": None,
            "topics": None,
            "not_before": None,
            "expires": "2026-01-01T00:15:00Z",
            "blocks": 1,
            "sealed": False,
            "in_profile": True,
            "revocation_ids": list(describe(said["token"]).revocation_ids),
        }

    def test_what_the_issuer_knows_and_when(self, key: Path) -> None:
        said = minted(
            key,
            *("--during", "mon-fri 09:00-17:00 UTC", "--during", "calendar office"),
            *("--session", "7f3a", "--attribute", "clearance=secret", "--attribute", "team=a=b"),
            *("--authenticated-at", "2026-01-01T00:59:59+01:00", "--not-before", "2026-01-01T00:01:00Z"),
        )
        shown = json.loads(pf("inspect", "-o", "json", stdin=said).stdout)
        assert shown["during"] == [["mon-fri 09:00-17:00 UTC", "calendar office"]]
        assert (shown["session"], shown["attributes"]) == ("7f3a", {"clearance": "secret", "team": "a=b"})
        assert (shown["issued"], shown["authenticated"]) == ("2026-01-01T00:00:00Z", "2025-12-31T23:59:59Z")
        assert shown["not_before"] == "2026-01-01T00:01:00Z"

    def test_a_grant_may_be_limited_in_time(self, key: Path) -> None:
        said = minted(key, "--grant", "FlightCap.admin:/** during thu 00:00-01:00 UTC")
        assert list(map(str, describe(said.strip()).capabilities)) == [
            "FlightCap.report:/UA/**",
            "FlightCap.admin:/** during thu 00:00-01:00 UTC",
        ]

    @pytest.mark.parametrize(
        ("more", "fault"),
        [
            (("--attribute", "a"), "'a' has no '='"),
            (("--attribute", "a=1", "--attribute", "a=2"), "'a' is given twice"),
            (("--not-before", "2026-01-01T00:00:00"), "is no time such as"),
            (("--authenticated-at", "ü"), "is no time such as"),
        ],
    )
    def test_options_have_their_forms(self, key: Path, more: tuple[str, ...], fault: str) -> None:
        done = pf("mint", "--key", key, "--subject", "a", "--audience", "b", *GRANT, *more)
        assert (done.exit_code, done.stdout) == (2, "")
        assert fault in " ".join(done.stderr.split())

    def test_a_time_that_is_none(self, key: Path) -> None:
        done = pf("mint", "--key", key, "--subject", "a", "--audience", "b", *GRANT, "--during", "some day")
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.startswith("error (bad_when): when 'some day': ")

    def test_into_a_file(self, key: Path, tmp_path: Path) -> None:
        out = tmp_path / "alice.ctx"
        done = pf("mint", "--key", key, "--subject", "alice", "--audience", "flights", *GRANT, "--out", out)
        assert (done.exit_code, done.stdout) == (0, "")
        assert stat.S_IMODE(out.stat().st_mode) == 0o600
        assert describe(out.read_text().strip()).subject == "alice"

    def test_without_a_grant_it_warns(self, key: Path) -> None:
        done = pf("mint", "--key", key, "--subject", "alice", "--audience", "flights")
        assert done.exit_code == 0
        assert "warning" in done.stderr

    @pytest.mark.parametrize(
        ("grant", "fault"),
        [
            ("FlightCap.report", "there is no ':' between operation and scope"),
            ("FlightCap:/UA", "'FlightCap' is not the name of an operation"),
            ("FlightCap.report:UA", "does not start with '/'"),
            ("FlightCap.report:/UA*", "for a whole segment"),
        ],
    )
    def test_a_malformed_grant_is_one_clear_line(self, key: Path, grant: str, fault: str) -> None:
        done = pf("mint", "--key", key, "--subject", "alice", "--audience", "flights", "--grant", grant)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith(f"error (bad_grant): grant {grant!r}: ")
        assert fault in done.stderr

    @pytest.mark.parametrize("lifetime", ["", "15", "15 m", "m", "1.5h", "-1s", "1w"])
    def test_a_lifetime_is_a_duration(self, key: Path, lifetime: str) -> None:
        done = pf("mint", "--key", key, "--subject", "a", "--audience", "b", *GRANT, "--lifetime", lifetime)
        assert done.exit_code == 2
        assert "is not a duration" in done.stderr

    def test_durations_add_up(self, key: Path) -> None:
        says = describe(minted(key, "--lifetime", "1d2h3m4s").strip())
        assert says.expires_ms == NOW_MS + (86400 + 2 * 3600 + 3 * 60 + 4) * 1000

    def test_a_missing_key(self, tmp_path: Path) -> None:
        assert pf("mint", "--key", tmp_path / "x", "--subject", "a", "--audience", "b", *GRANT).exit_code == 3


class TestAttenuate:
    def test_through_pipes(self, key: Path) -> None:
        token = minted(key)
        narrow = pf("attenuate", *trust(key), "--grant", "FlightCap.report:/UA/EWR", "--type", "t", stdin=token)
        assert narrow.exit_code == 0
        more = ("--topic", "q", "--lifetime", "90s", "--during", "calendar office")
        narrower = pf("attenuate", *trust(key), *more, stdin=narrow.stdout)
        info = describe(narrower.stdout.strip())
        assert info.blocks == 3
        assert [list(map(str, one)) for one in info.narrowed_to] == [["FlightCap.report:/UA/EWR"]]
        assert (info.intent_types, info.topics) == (frozenset("t"), frozenset("q"))
        assert info.expires_ms == NOW_MS + 90_000
        assert [list(map(str, one)) for one in info.during] == [["calendar office"]]

    def test_from_a_file_into_a_file(self, key: Path, tmp_path: Path) -> None:
        (tmp_path / "in").write_text(minted(key))
        done = pf("attenuate", *trust(key), "--context", tmp_path / "in", "--topic", "q", "--out", tmp_path / "out")
        assert (done.exit_code, done.stdout) == (0, "")
        assert describe((tmp_path / "out").read_text().strip()).blocks == 2

    def test_what_cannot_be_narrowed(self, key: Path) -> None:
        for args, stdin, fault in (
            ((), minted(key), "nothing to narrow"),
            (("--topic", "q"), "nonsense", "cannot be read"),
            (("--topic", "q"), minted(key)[:-9], "cannot be read"),
        ):
            done = pf("attenuate", *trust(key), *args, stdin=stdin)
            assert (done.exit_code, done.stdout) == (1, "")
            assert "error (bad_token)" in done.stderr
            assert fault in done.stderr
            assert stdin.strip()[-20:] not in done.stderr or stdin == "nonsense"


class TestInspect:
    def test_shows_without_verifying(self, key: Path, clock: VirtualClock) -> None:
        forged = mint(SigningKey.generate(9), subject="[bold]mallory", audience="x", capabilities=[], now_ms=NOW_MS)
        for form, load in (("json", json.loads), ("yaml", YAML(typ="safe").load)):
            done = pf("inspect", "-o", form, stdin=forged)
            assert done.exit_code == 0
            assert "not verified" in done.stderr or "nothing of this is verified" in done.stderr
            assert "expired" not in done.stderr
            assert load(done.stdout)["subject"] == "[bold]mallory"
        assert "[bold]mallory" in pf("inspect", stdin=forged).stdout
        clock.advance(901)
        assert "it has expired" in pf("inspect", stdin=forged).stderr

    def test_from_the_environment(self, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "ctx").write_text(minted(key))
        monkeypatch.setenv("PF_CONTEXT", str(tmp_path / "ctx"))
        assert json.loads(pf("inspect", "-o", "json").stdout)["subject"] == "alice"
        assert pf("inspect", "--context", tmp_path / "none").exit_code == 3
        assert "Is a directory" in pf("inspect", "--context", tmp_path).stderr


class TestVerify:
    def test_accepts_what_a_worker_would(self, key: Path) -> None:
        done = pf("verify", *trust(key), "--audience", "flights", "-o", "json", stdin=minted(key))
        assert done.exit_code == 0
        said = json.loads(done.stdout)
        assert (said["accepted"], said["subject"], said["expires"]) == (True, "alice", "2026-01-01T00:15:00Z")

    @pytest.mark.parametrize(
        ("asked", "expected"),
        [
            (("FlightCap.report:/UA/EWR", "t", "q"), None),
            (("FlightCap.report:/AA/EWR", "t", "q"), "insufficient_capabilities"),
            (("FlightCap.admin:/UA/EWR", "t", "q"), "insufficient_capabilities"),
            (("FlightCap.report:/UA/EWR", "u", "q"), "wrong_intent_type"),
            (("FlightCap.report:/UA/EWR", "t", "r"), "wrong_topic"),
        ],
    )
    def test_decides_a_request(self, key: Path, asked: tuple[str, str, str], expected: str | None) -> None:
        token = minted(key, "--type", "t", "--topic", "q")
        grant, type_, topic = asked
        request = ("--grant", grant, "--type", type_, "--topic", topic)
        done = pf("verify", *trust(key), "--audience", "flights", *request, "-o", "json", stdin=token)
        said = json.loads(done.stdout)
        assert (said["accepted"], said.get("code"), done.exit_code) == (
            expected is None,
            expected,
            4 if expected else 0,
        )

    def test_a_token_for_other_times(self, key: Path, clock: VirtualClock) -> None:
        token = minted(key, "--during", "thu 00:00-00:01 UTC")
        args = ("verify", *trust(key), "--audience", "flights", "-o", "json")
        assert json.loads(pf(*args, stdin=token).stdout)["accepted"]
        clock.advance(60)
        done = pf(*args, stdin=token)
        assert (done.exit_code, json.loads(done.stdout)["code"]) == (4, "not_now")

    def test_refuses_with_code_and_reason(self, key: Path, clock: VirtualClock) -> None:
        token = minted(key)
        for audience, stdin, expected in (
            ("other", token, "wrong_audience"),
            ("flights", token[:-9], "malformed_token"),
            ("flights", "", "malformed_token"),
            ("flights", "Ünsinn", "malformed_token"),
            ("flights", "A" * 9000, "token_too_large"),
        ):
            done = pf("verify", *trust(key), "--audience", audience, "-o", "json", stdin=stdin)
            said = json.loads(done.stdout)
            assert (done.exit_code, said["accepted"], said["code"]) == (4, False, expected)
            assert said["reason"]
        clock.advance(900)
        expired = pf("verify", *trust(key), "--audience", "flights", stdin=token)
        assert expired.exit_code == 4
        assert "token_expired" in expired.stdout

    def test_a_request_is_whole_and_concrete(self, key: Path) -> None:
        args = (*trust(key), "--audience", "flights")
        assert "go together" in pf("verify", *args, "--topic", "q", stdin=minted(key)).stderr
        wild = pf("verify", *args, "--grant", "A.b:/x/*", "--type", "t", "--topic", "q", stdin=minted(key))
        assert wild.exit_code == 2
        assert "one resource" in wild.stderr
        timed = pf("verify", *args, "--grant", "A.b:/x during ../..", "--type", "t", "--topic", "q", stdin=minted(key))
        assert timed.exit_code == 2
        assert "one resource" in timed.stderr


@pytest.mark.parametrize("command", ["mint", "attenuate", "inspect", "verify"])
def test_help_has_an_example(command: str) -> None:
    assert f"pf context {command}" in " ".join(pf(command, "--help").stdout.split())
