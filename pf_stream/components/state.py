"""State of reactors, read from outside: what the changelog says, which is what was acknowledged."""

from dataclasses import dataclass
from typing import Any

import orjson

from pf_stream.core.changelog import STATE_PREFIX, state_key, state_prefix
from pf_stream.core.partition import partition_of
from pf_stream.core.store import current_json
from pf_stream.errors import NotFoundError
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.errors import TopicMissingError
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.reader import read_topic
from pf_stream.model import Group, ReactorSpec, Topology
from pf_stream.model._names import nearest

__all__ = ["StateNotFoundError", "StoredState", "read_state"]


class StateNotFoundError(NotFoundError):
    """Raised when a reactor has no state under a key."""

    code = "no_state"

    def __init__(self, reactor: str, key: str) -> None:
        super().__init__(f"reactor {reactor!r} has no state under the key {key!r}")


@dataclass(frozen=True, slots=True)
class StoredState:
    """The state of a reactor under one key, as it was last committed."""

    reactor: str
    """The reactor's id."""
    key: str
    """The key."""
    version: int
    """Version of the shape that is shown: the reactor's own."""
    stored_version: int
    """Version in which it is stored; it is upgraded when it next changes."""
    state: Any
    """Its JSON."""
    topic: str
    """The changelog."""
    partition: int
    """The key's partition."""
    offset: int
    """Where it lies there."""
    timestamp_ms: int
    """When it was committed, milliseconds since the epoch."""


def read_state(settings: ConnectionSettings, topology: Topology, reactor: str, key: str) -> StoredState:
    """Look *key* up in the changelog; no worker is needed, nor asked. Reads the key's partition from its beginning.

    Where several fields form the key, it is a JSON array of their values as texts.

    Raises:
        StateNotFoundError: nothing is kept under the key.
        NotFoundError: the topology has no such reactor, or its changelog does not exist.
        StateUndecodableError: the record has a format or a version that is not known here, or an upgrade failed.
    """
    group, spec = _reactor(topology, reactor)
    changelog = topology.changelog(group)
    found = Admin(settings).topics([changelog])
    if changelog not in found:
        raise TopicMissingError([changelog], "Create it with: pf topics create")
    record_key = _record_key(spec, key)
    partition = partition_of(record_key, found[changelog].partitions)
    wanted = state_key(state_prefix(spec.id), record_key)
    last = None
    for record in read_topic(settings, changelog, partitions=[partition]):
        if record.key == wanted:
            last = record
    if last is None or last.value is None:
        raise StateNotFoundError(reactor, key)
    state = orjson.loads(current_json(spec, record_key, last.value))
    return StoredState(
        reactor=reactor,
        key=record_key.decode(),
        version=spec.state.version,
        stored_version=STATE_PREFIX.unpack_from(last.value)[1],
        state=state,
        topic=changelog,
        partition=partition,
        offset=last.offset,
        timestamp_ms=last.timestamp,
    )


def _reactor(topology: Topology, reactor: str) -> tuple[Group, ReactorSpec]:
    known = {found.__reactor__.id: (group, found.__reactor__) for group in topology.groups for found in group.reactors}
    if reactor not in known:
        raise NotFoundError(f"topology {topology.name!r} has no reactor {reactor!r}{nearest(reactor, known)}")
    return known[reactor]


def _record_key(spec: ReactorSpec, key: str) -> bytes:
    if any(len(handler.intent.key_fields) > 1 for handler in spec.handlers):
        try:
            parts = orjson.loads(key)
        except orjson.JSONDecodeError:
            parts = None
        if isinstance(parts, list):
            return orjson.dumps([str(part) for part in parts])  # however it was spaced
    return key.encode()
