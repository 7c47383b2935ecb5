"""``pf doctor`` on a real Kafka, and on one with listeners that want a password or speak TLS."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its public names, imported there without `as`
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)

from pf_stream.clock import VirtualClock, WallClock
from pf_stream.components.doctor import Finding, Level, examine
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.clocks import PROBE
from pf_stream.kafka.dev import DevBroker
from pf_stream.kafka.dev.storage import DataDir
from pf_stream.kafka.link import ConnectionSettings
from tests.kafka._support import ROOT, connection, counts, make_topics, now_ms, wait_until


def look(settings: ConnectionSettings) -> dict[str, Finding]:
    """Findings about the cluster by code, each of which is there once."""
    found = examine(settings, None, WallClock())
    assert len({finding.code for finding in found}) == len(found), found
    return {finding.code: finding for finding in found}


# -- a broker of one's own --------------------------------------------------------------------------------------------------


def test_a_development_broker_is_well(bootstrap_servers: str, unique: str) -> None:
    topology = counts.within(unique)
    make_topics(bootstrap_servers, topology)
    found = examine(connection(bootstrap_servers), topology, WallClock())
    assert {(finding.level, finding.code) for finding in found} == {
        (Level.note, "single_broker"),
        (Level.note, "no_authoriser"),
    }
    assert not [name for name in Admin(connection(bootstrap_servers)).names() if name.startswith(PROBE)]


def test_missing_and_altered_topics(bootstrap_servers: str, unique: str) -> None:
    topology = counts.within(unique)
    changelog = f"{topology.app_id}-intents-changelog"
    missing = f"{topology.namespace}.totals.dlq"
    make_topics(bootstrap_servers, topology)
    Admin(connection(bootstrap_servers)).delete([missing])
    alter(bootstrap_servers, ResourceType.TOPIC, changelog, "cleanup.policy", "delete")

    def found() -> dict[str, Finding]:
        """The broker knows a change a moment after it has taken it."""
        all_ = examine(connection(bootstrap_servers), topology, WallClock())
        errors = {finding.subject: finding for finding in all_ if finding.level is Level.error}
        assert set(errors) == {missing, changelog}
        return errors

    errors = wait_until(found)
    assert errors[missing].fix.startswith("pf topics create")
    assert "cleanup.policy is delete instead of compact: state" in errors[changelog].message
    assert errors[changelog].fix.endswith("--add-config cleanup.policy=compact")


def test_a_broker_that_forgets_fences(bootstrap_servers: str) -> None:
    name = "producer.id.expiration.ms"
    alter(bootstrap_servers, ResourceType.BROKER, "1", name, "3600000")
    try:

        def seen() -> Finding:
            found = look(connection(bootstrap_servers))
            assert "fence_forgotten" in found
            return found["fence_forgotten"]

        finding = wait_until(seen)
        assert finding.level is Level.error
        assert finding.fix.endswith("producer.id.expiration.ms=86400000")
    finally:
        alter(bootstrap_servers, ResourceType.BROKER, "1", name, "86400000")


@pytest.mark.parametrize(("ahead_s", "level"), [(0, None), (5, Level.warning), (-5, Level.warning), (600, Level.error)])
def test_clocks_that_differ(bootstrap_servers: str, ahead_s: int, level: Level | None) -> None:
    """The broker's is the machine's, and ours is set wrong."""
    found = examine(connection(bootstrap_servers), None, Skewed(ahead_s))
    skewed = [finding for finding in found if finding.code == "clock_skew"]
    assert [finding.level for finding in skewed] == ([] if level is None else [level])
    if level is not None:
        assert ("behind this" if ahead_s > 0 else "ahead of this") in skewed[0].message


class Skewed(VirtualClock):
    def __init__(self, ahead_s: int) -> None:
        super().__init__()
        self._ahead_ms = ahead_s * 1000

    def now_ms(self) -> int:
        return now_ms() + self._ahead_ms


def test_the_command(bootstrap_servers: str, unique: str) -> None:
    environment = {**os.environ, "PF_BOOTSTRAP_SERVERS": bootstrap_servers, "COLUMNS": "60"}

    def pf(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-W", "error", "-m", "pf_stream", "doctor", *words]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    well = pf()
    assert well.returncode == 0, well.stderr
    assert "nothing is wrong with the brokers" in well.stderr
    assert max(map(len, well.stdout.splitlines())) <= 60
    ill = pf("tests.kafka._support:counts", "--namespace", unique, "-o", "json")
    assert ill.returncode == 5, ill.stderr
    found = json.loads(ill.stdout)
    assert f"{unique}.intents" in {finding["subject"] for finding in found if finding["code"] == "topic_missing"}
    assert set(found[0]) == {"level", "code", "subject", "message", "fix"}


def alter(servers: str, kind: ResourceType, resource: str, name: str, value: str) -> None:
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    asked = ConfigResource(kind, resource, incremental_configs=[entry])
    for future in admin.incremental_alter_configs([asked]).values():
        future.result(10)


# -- what cannot be reached -------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("servers", "code", "said"),
    [
        ("127.0.0.1:{free}", "refused", "nothing listens on that port"),
        ("nobody.invalid:9092", "name", "name cannot be resolved"),
        ("127.0.0.1", "address", "not written as HOST:PORT"),
    ],
)
def test_a_wrong_server(servers: str, code: str, said: str) -> None:
    found = look(ConnectionSettings(servers.format(free=free_port())))
    assert list(found) == [code]
    assert said in found[code].message
    assert found[code].level is Level.error


def test_something_that_is_no_kafka() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        assert list(look(ConnectionSettings(f"127.0.0.1:{deaf.getsockname()[1]}"))) == ["silent"]


@dataclass(frozen=True, slots=True)
class Secured:
    """A broker with three listeners and an authoriser."""

    plain: ConnectionSettings
    """Nobody asks who one is; that is a super user."""
    sasl: ConnectionSettings
    """Alice, who may do nothing."""
    tls: ConnectionSettings
    """TLS with a certificate that she made herself."""


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is needed to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    make = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*make, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    store = folder / "broker.pem"
    store.write_text(key.read_text() + certificate.read_text())
    sasl, tls = free_port(), free_port()
    listeners = f",SASL_PLAINTEXT://127.0.0.1:{sasl},SSL://127.0.0.1:{tls}"
    prepare = DataDir.prepare

    def with_listeners(self: DataDir, *args: Any) -> None:
        prepare(self, *args)
        path = self.path / "server.properties"
        plain = r"^((?:advertised\.)?listeners=PLAINTEXT://127\.0\.0\.1:\d+)"
        text = re.sub(plain, rf"\1{listeners}", path.read_text(), flags=re.MULTILINE)
        text = text.replace("PLAINTEXT:PLAINTEXT", "PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL")
        path.write_text(
            f"{text}\n"
            "sasl.enabled.mechanisms=PLAIN\n"
            "listener.name.sasl_plaintext.plain.sasl.jaas.config="
            'org.apache.kafka.common.security.plain.PlainLoginModule required user_alice="secret";\n'
            f"ssl.keystore.type=PEM\nssl.keystore.location={store}\n"
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n"
            "super.users=User:ANONYMOUS\n"
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DataDir, "prepare", with_listeners)
        with DevBroker.temporary() as broker:
            alice = ConnectionSettings(
                f"127.0.0.1:{sasl}", security_protocol="SASL_PLAINTEXT", sasl_username="alice", sasl_password="secret"
            )
            encrypted = ConnectionSettings(f"127.0.0.1:{tls}", security_protocol="SSL", ca_file=str(certificate))
            yield Secured(ConnectionSettings(broker.bootstrap_servers), alice, encrypted)


def test_a_wrong_password_is_no_wrong_network(secured: Secured) -> None:
    (code, finding), *more = look(replace(secured.sasl, sasl_password="wrong")).items()
    assert (code, more) == ("authentication", [])
    assert "'alice': sasl_plaintext://" in finding.message
    assert "Invalid username or password" in finding.message
    assert "PF_SASL_PASSWORD" in finding.fix


def test_a_wrong_mechanism(secured: Secured) -> None:
    found = look(replace(secured.sasl, sasl_mechanism="SCRAM-SHA-512"))
    assert list(found) == ["sasl_mechanism"]
    assert "supported mechanisms: PLAIN" in found["sasl_mechanism"].message


def test_a_listener_without_sasl(secured: Secured) -> None:
    found = look(replace(secured.sasl, bootstrap_servers=secured.plain.bootstrap_servers))
    assert list(found) == ["sasl_mechanism"]
    assert "PF_SECURITY_PROTOCOL" in found["sasl_mechanism"].fix


def test_a_listener_that_wants_a_password(secured: Secured) -> None:
    assert list(look(ConnectionSettings(secured.sasl.bootstrap_servers))) == ["silent"]


def test_tls_on_one_side_only(secured: Secured) -> None:
    assert list(look(ConnectionSettings(secured.tls.bootstrap_servers))) == ["tls"]
    assert list(look(ConnectionSettings(secured.plain.bootstrap_servers, security_protocol="SSL"))) == ["no_tls"]


def test_a_certificate_that_is_not_trusted(secured: Secured) -> None:
    found = look(replace(secured.tls, ca_file=None))
    assert list(found) == ["certificate"]
    assert "PF_CA_FILE" in found["certificate"].fix
    assert "certificate" not in look(secured.tls)


def test_somebody_who_may_not_look(secured: Secured, unique: str) -> None:
    """Not seeing is no finding that something is wrong, and none that all is well."""
    found = look(secured.sasl)
    assert set(found) == {"settings_unknown", "authoriser_unknown", "clocks_unknown"}
    assert {finding.level for finding in found.values()} == {Level.note}
    of_topology = examine(secured.sasl, counts.within(unique), WallClock())
    assert [finding.code for finding in of_topology if finding.level is Level.error] == ["topics_unknown"]


def test_internal_topics_that_everybody_may_write(secured: Secured, unique: str) -> None:
    topology = counts.within(unique)
    make_topics(secured.plain.bootstrap_servers, topology)

    def errors() -> set[str]:
        found = examine(secured.plain, topology, WallClock())
        return {finding.subject for finding in found if finding.code == "writable_by_all"}

    assert errors() == set()
    admin = AdminClient({"bootstrap.servers": secured.plain.bootstrap_servers, "log_level": 0})
    rule = AclBinding(
        ResourceType.TOPIC,
        f"{unique}.counts-",
        ResourcePatternType.PREFIXED,
        "User:*",
        "*",
        AclOperation.WRITE,
        AclPermissionType.ALLOW,
    )
    for future in admin.create_acls([rule]).values():
        future.result(10)

    def seen() -> None:
        assert errors() == {f"{unique}.counts-intents-changelog", f"{unique}.counts-totals-changelog"}

    wait_until(seen)
