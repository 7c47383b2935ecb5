"""``pf worker run``: what stops it before it reaches for Kafka."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pf_stream.cli import worker
from pf_stream.security import SigningKey

FLIGHTS = str(Path(__file__).parents[3] / "topologies/flights/topology.yaml")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PF_TRUST_ROOTS", "PF_SERVICE_KEYS", "PF_NAMESPACE", "PF_WORKER_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PF_BOOTSTRAP_SERVERS", "nobody.invalid:1")


def run(*args: object) -> Result:
    return CliRunner().invoke(worker.app, ["run", *map(str, args)])


def test_nobody_is_trusted_by_default() -> None:
    done = run(FLIGHTS)
    assert done.exit_code == 2
    assert "Missing option '--trust'" in " ".join(done.stderr.replace("│", " ").split())


def test_a_missing_key_file() -> None:
    done = run(FLIGHTS, "--trust", "nowhere.pub")
    assert done.exit_code == 3
    assert "nowhere.pub: there is no such file" in done.stderr


def test_a_private_key_is_none_to_trust(tmp_path: Path) -> None:
    SigningKey.generate().save(tmp_path / "k")
    done = run(FLIGHTS, "--trust", tmp_path / "k")
    assert done.exit_code == 1
    assert "name the .pub file" in done.stderr
    assert "ed25519-private" not in done.stderr


def test_a_topology_that_is_wrong(tmp_path: Path) -> None:
    done = run(tmp_path / "topology.yaml", "--trust", "nowhere.pub")
    assert done.exit_code == 3
    assert "there is no topology file" in done.stderr


@pytest.fixture
def service(tmp_path: Path) -> Path:
    path = tmp_path / "topology.yaml"
    path.write_text(
        "name: tally\nreactors:\n  - {reactor: tests.tally.v2:Sums, as: service, key: 7, grants: [TallyCap.add:/**]}\n",
        encoding="utf-8",
    )
    for name, kid in (("issuer", 1), ("other", 2), ("service", 7)):
        SigningKey.generate(kid).save(tmp_path / name)
    return path


class TestServiceKeys:
    def test_a_key_that_was_not_given(self, service: Path) -> None:
        folder = service.parent
        for options in ([], ["--service-key", folder / "other"]):
            done = run(service, "--trust", folder / "issuer.pub", *options)
            assert (done.exit_code, done.stdout) == (1, "")
            assert done.stderr == (
                "error (service_key): reactor 'sums' emits as a service under key 7, and this worker was not given it: "
                "name its file with --service-key\n"
            )

    def test_a_key_that_nobody_would_believe(self, service: Path) -> None:
        folder = service.parent
        done = run(service, "--trust", folder / "issuer.pub", "--service-key", folder / "service")
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr == (
            "error (service_key): reactor 'sums' emits as a service under key 7, and it is not among the trust roots: "
            "add its .pub file with --trust\n"
        )

    def test_a_missing_file(self, service: Path) -> None:
        folder = service.parent
        done = run(service, "--trust", folder / "issuer.pub", "--service-key", folder / "nowhere")
        assert done.exit_code == 3
        assert "nowhere: there is no such file" in done.stderr

    @pytest.mark.slow
    def test_with_the_key_the_next_thing_is_kafka(self, service: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = service.parent
        monkeypatch.setenv("PF_SERVICE_KEYS", str(folder / "service"))
        done = run(service, "--trust", folder / "issuer.pub", "--trust", folder / "service.pub")
        assert done.exit_code == 1
        assert "nobody.invalid:1" in done.stderr


@pytest.mark.parametrize("seconds", ["0.5", "61", "soon"])
def test_a_session_that_no_group_allows(tmp_path: Path, seconds: str) -> None:
    done = run(FLIGHTS, "--trust", tmp_path / "k", "--session", seconds)
    assert done.exit_code == 2
    assert "--session" in done.stderr
