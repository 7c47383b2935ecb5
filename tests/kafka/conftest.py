"""What every test against a real Kafka is given."""

import os
import secrets
from collections.abc import Iterator

import pytest

from pf_stream.kafka.dev import DevBroker


@pytest.fixture(scope="session")
def bootstrap_servers() -> Iterator[str]:
    """A real Kafka: the one that ``PF_BOOTSTRAP_SERVERS`` names, else one that lives as long as the session."""
    given = os.environ.get("PF_BOOTSTRAP_SERVERS")
    if given:
        yield given
        return
    with DevBroker.temporary() as broker:
        yield broker.bootstrap_servers


@pytest.fixture
def unique() -> str:
    """A prefix for names of topics, groups and transactional ids that no other test has: letters and digits."""
    return "t" + secrets.token_hex(5)
