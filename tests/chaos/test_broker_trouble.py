"""A broker that refuses what it allowed, and one whose disk is full: workers wait, say why, and go on by themselves."""

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its public names, imported there without `as`
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from structlog.testing import capture_logs

from pf_stream.engine import denials
from pf_stream.kafka.dev import DevCluster, Listener, free_port
from pf_stream.kafka.link import ConnectionSettings
from tests.kafka._support import (
    Client,
    counts,
    durable,
    in_process,
    in_thread,
    make_topics,
    name_in,
    wait_until,
)

AUTHORISER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    # The listener without security is for the broker itself and for whoever administers it.
    "super.users": "User:ANONYMOUS",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SECOND:SASL_PLAINTEXT",
    "listener.name.second.sasl.enabled.mechanisms": "PLAIN",
    "listener.name.second.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule required "
    'user_worker="secret";',
}
WAIT_S = 60.0
"""How long a machine that is busy may take."""
ANY = ("*", ResourcePatternType.LITERAL, "User:worker", "*")


# -- authorisation ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded() -> Iterator[tuple[str, ConnectionSettings]]:
    """A broker with an authoriser: its servers for everybody who may do anything, and the worker's connection."""
    port = free_port()
    with DevCluster.temporary(1, second=[Listener(port, port)], settings=AUTHORISER) as cluster:
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers})
        everything = [
            AclBinding(kind, *ANY, AclOperation.ALL, AclPermissionType.ALLOW)
            for kind in (ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID)
        ]
        for future in admin.create_acls(everything).values():
            future.result(10)
        worker = ConnectionSettings(
            f"127.0.0.1:{port}", security_protocol="SASL_PLAINTEXT", sasl_username="worker", sasl_password="secret"
        )
        yield cluster.bootstrap_servers, worker


@pytest.mark.parametrize(
    ("topic", "operation", "said"),
    [
        ("{app}-intents-changelog", AclOperation.WRITE, "write to {app}-intents-changelog"),
        ("{app}.intents", AclOperation.READ, "read {app}.intents"),
        ("{app}.totals", AclOperation.WRITE, "write to {app}.totals"),
        ("{app}.totals", AclOperation.ALL, "{app}.totals"),
    ],
)
def test_a_right_that_is_taken_and_given_back(
    guarded: tuple[str, ConnectionSettings],
    unique: str,
    monkeypatch: pytest.MonkeyPatch,
    topic: str,
    operation: AclOperation,
    said: str,
) -> None:
    monkeypatch.setattr(denials, "AUTHORISATION_S", 0.5)
    servers, connection = guarded
    topology = counts.within(unique)
    make_topics(servers, topology)
    client = Client(servers, topology)
    admin = AdminClient({"bootstrap.servers": servers})
    names = [name_in(partition, topology) for partition in (0, 1)]
    app = topology.app_id if "changelog" in topic else topology.namespace
    denied = topic.format(app=app)
    rule = (ResourceType.TOPIC, denied, ResourcePatternType.LITERAL, "User:worker", "*", operation)
    with capture_logs() as logs, in_thread(connection, topology) as worker:
        for name in names:
            client.add(name, 5)
        client.flush()
        wait_until(lambda: same(worker.total(), 10), within=WAIT_S)
        open_lanes = worker.lanes
        for created in admin.create_acls([AclBinding(*rule, AclPermissionType.DENY)]).values():
            created.result(10)

        def refused() -> None:
            for name in names:
                client.add(name)
            client.flush()
            told = [entry for entry in logs if entry.get("code") == "kafka_not_authorised"]
            assert told, "the worker says nothing"
            assert said.format(app=app) in told[0]["reason"]

        wait_until(refused, within=WAIT_S)
        sent = sum(1 for _ in client.read(client.topic))
        for deleted in admin.delete_acls([AclBindingFilter(*rule, AclPermissionType.DENY)]).values():
            assert deleted.result(10)
        wait_until(lambda: same(worker.total(), sent), within=WAIT_S)
        wait_until(lambda: same(worker.lanes, open_lanes), within=WAIT_S)
        wait_until(lambda: same(durable(servers, topology).outbox, []))
        wait_until(lambda: same("Kafka allows it again" in [entry["event"] for entry in logs], True), within=WAIT_S)
        told = [entry["reason"] for entry in logs if entry.get("code") == "kafka_not_authorised"]
        # Once for each thing that is refused, however often it is tried and by however many lanes.
        assert len(told) == len(set(told))
    assert sum(durable(servers, topology).counted().values()) == sent


def same(found: object, wanted: object) -> None:
    assert found == wanted


# -- a full disk -----------------------------------------------------------------------------------------------------------


def test_a_broker_whose_disk_is_full(unique: str, tmp_path: Path) -> None:
    """The broker may write no file beyond a size, so an append fails in its log, as on a full disk, and it gives up.

    A file system of a limited size would need rights that not everybody has; to the broker an IOException from its log
    is the same. It ends itself, since its only folder is bad; the worker waits until it is back.
    """
    topology = counts.within(unique)
    with DevCluster.temporary(1) as cluster:
        servers = cluster.bootstrap_servers
        make_topics(servers, topology)
        client = Client(servers, topology)
        name = name_in(0, topology)
        with in_process(servers, topology, tmp_path, session_s=3.0) as worker:
            worker.wait_for("worker ready")
            client.add(name, 50)
            client.flush()
            wait_until(lambda: same(durable(servers, topology).total(), 50))
            broker = psutil.Process(cluster.broker(1).pid)
            broker.rlimit(psutil.RLIMIT_FSIZE, (4096, 4096))
            client.add(name, 50)
            deadline = time.monotonic() + 60
            while broker.is_running() and broker.status() != psutil.STATUS_ZOMBIE:
                assert time.monotonic() < deadline, "the broker goes on"
                client.add(name, 1)
                time.sleep(0.05)
            assert "File too large" in cluster.log_path(1).read_text()
            assert worker.process.poll() is None
            cluster.kill(1)  # what is left of it: its first thread may have ended before the others
            cluster.start(1)
            client.flush()
            sent = len(client.read(client.topic))
            assert sent > 100
            wait_until(lambda: same(durable(servers, topology).total(), sent), within=WAIT_S)
            assert durable(servers, topology).counted() == {name: sent}
            assert worker.end() == 0
