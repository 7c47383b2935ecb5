"""A reactor that emits under its own identity, in a real worker: signed there, believed there, and nowhere without the key."""

import secrets
from typing import Any

import pytest

from pf_stream import Service, Topology
from pf_stream.engine import ServiceKeyError
from pf_stream.security import Claims, Verifier
from tests.kafka._support import (
    ROOTS,
    SIGNER,
    Client,
    ThreadWorker,
    headers_of,
    in_thread,
    make_topics,
    token,
    wait_until,
)
from tests.unit.core.test_services import Ledger, LedgerCap, Order, Orders


def ledger(**services: Service) -> Topology:
    """Orders and their bookings, in a namespace of its own."""
    return Topology(
        "ledger",
        [Orders, Ledger],
        namespace="t" + secrets.token_hex(5),
        internal=["bookings"],
        services=services,
        partitions=2,
    )


def send(client: Client, order: Order, context: str) -> None:
    spec = Order.__intent__
    client.send(spec.key_of(order), spec.encode(order), client.headers(spec.type, pf_context=context))
    client.flush()


@pytest.mark.parametrize("later", [False, True])
def test_does_what_its_caller_may_not(bootstrap_servers: str, later: bool) -> None:
    topology = ledger(orders=Service(SIGNER.kid, ["LedgerCap.book:/**"]))
    make_topics(bootstrap_servers, topology)
    client = Client(bootstrap_servers, topology)
    context = token(topology, LedgerCap.order("/**"), subject="ann")
    with in_thread(bootstrap_servers, topology, service_keys=(SIGNER,)) as worker:
        for account in "abcd":
            send(client, Order(account=account, target=account + "2", later=later), context)
        # What a timer of two seconds brings tells the same.
        subject = f"service:{topology.app_id}/orders"
        for account in "abcd":
            state = booked(worker, account + "2")
            assert (state["callers"], state["traces"]) == ([subject], [[f"{topology.app_id}/orders"]])
        assert dict(worker.worker.refused) == {}
    emitted = client.read(f"{topology.namespace}.bookings")
    tokens = {headers_of(message)["pf-context"] for message in emitted}
    assert len(tokens) == 1, "signed once"
    claims = Verifier(ROOTS, topology.namespace).verify(tokens.pop() or b"")
    assert isinstance(claims, Claims)
    assert (claims.subject, list(map(str, claims.rights))) == (subject, ["LedgerCap.book:/*"])


def booked(worker: ThreadWorker, account: str) -> dict[str, Any]:
    def found() -> dict[str, Any]:
        state = worker.state("ledger", account)
        assert isinstance(state, dict)
        return state

    return wait_until(found, within=30)


def test_without_it_the_same_is_refused(bootstrap_servers: str) -> None:
    topology = ledger()
    make_topics(bootstrap_servers, topology)
    client = Client(bootstrap_servers, topology)
    with in_thread(bootstrap_servers, topology) as worker:
        send(client, Order(account="a"), token(topology, LedgerCap.order("/**")))

        def refused() -> None:
            assert dict(worker.worker.refused) == {"insufficient_capabilities": 1}

        wait_until(refused)
        assert worker.state("ledger", "a") is None


def test_a_worker_without_the_key_does_not_start(bootstrap_servers: str) -> None:
    topology = ledger(orders=Service(SIGNER.kid + 1, ["LedgerCap.book:/**"]))
    make_topics(bootstrap_servers, topology)
    with (
        pytest.raises(
            ServiceKeyError, match=r"reactor 'orders' emits as a service under key \d+, and this worker was not"
        ),
        in_thread(bootstrap_servers, topology, service_keys=(SIGNER,)),
    ):
        pass
