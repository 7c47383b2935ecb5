"""What a worker checks before it starts."""

import pytest

from pf_stream import Reactor, State, Topology, on
from pf_stream.engine import ServiceKeyError, WorkerSettings, check_service_keys
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.model import Service
from pf_stream.security import SigningKey, TrustRoots
from tests.tally.v2 import Added, Sums

SEVEN, EIGHT = SigningKey.generate(7), SigningKey.generate(8)
ISSUER = SigningKey.generate(1)


class Seen(State):
    """Nothing."""


class Watcher(Reactor[Seen], id="watcher"):
    """Emits as nobody but its callers."""

    @on
    def added(self, intent: Added, state: Seen, ctx: object) -> None: ...


def check(services: dict[str, int], trusted: list[SigningKey], given: list[SigningKey]) -> None:
    topology = Topology(
        "tally", [Watcher, Sums], services={id_: Service(kid, ["TallyCap.add:/**"]) for id_, kid in services.items()}
    )
    settings = WorkerSettings(
        ConnectionSettings("nobody.invalid:1"), TrustRoots.of(*trusted), "w", service_keys=tuple(given)
    )
    check_service_keys(topology, settings)


def test_without_services_no_key_is_needed_and_one_too_many_is_none() -> None:
    check({}, [ISSUER], [])
    check({}, [ISSUER], [SEVEN])


def test_each_service_has_its_key_and_services_may_share_one() -> None:
    check({"watcher": 7, "sums": 8}, [ISSUER, SEVEN, EIGHT], [SEVEN, EIGHT])
    check({"watcher": 7, "sums": 7}, [SEVEN], [SEVEN])


@pytest.mark.parametrize(
    ("trusted", "given", "said"),
    [
        ([SEVEN, EIGHT], [SEVEN], "reactor 'sums' emits as a service under key 8, and this worker was not given it"),
        ([SEVEN], [SEVEN, EIGHT], "reactor 'sums' emits as a service under key 8, and it is not among the trust roots"),
        ([SEVEN, SigningKey.generate(8)], [SEVEN, EIGHT], "under key 8, and it is not among the trust roots"),
    ],
    ids=["not given", "not trusted", "another key of that number is trusted"],
)
def test_a_key_that_is_missing(trusted: list[SigningKey], given: list[SigningKey], said: str) -> None:
    with pytest.raises(ServiceKeyError) as caught:
        check({"watcher": 7, "sums": 8}, trusted, given)
    assert said in str(caught.value)
