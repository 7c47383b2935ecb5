"""States of one reactor as they are stored. Tools read them in the changelog, or from workers (:mod:`.live`)."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from heapq import nsmallest
from typing import Any, NamedTuple, Protocol

import orjson
from pydantic_core import from_json, to_json

from pf_stream.core.changelog import STATE_PREFIX, parse_state_key, parse_subkey, state_key, state_prefix
from pf_stream.core.decoding import StateUndecodableError, current_json, entry_json
from pf_stream.core.partition import partition_of
from pf_stream.errors import ConfigurationError, NotFoundError
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.errors import TopicMissingError
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.reader import read_topic
from pf_stream.model import Group, ReactorSpec, Topology
from pf_stream.model._names import nearest

__all__ = [
    "ChangelogStates",
    "Cursor",
    "KeyPage",
    "StateNotFoundError",
    "States",
    "Stored",
    "StoredState",
    "export_line",
    "find_reactor",
    "read_state",
]


class StateNotFoundError(NotFoundError):
    """Raised when a reactor has no state under a key."""

    code = "no_state"

    def __init__(self, reactor: str, key: str) -> None:
        super().__init__(f"reactor {reactor!r} has no state under the key {key!r}")


@dataclass(frozen=True, slots=True)
class Stored:
    """A state as it is stored."""

    key: bytes
    """Its key."""
    raw: bytes
    """Format, version and JSON, see :mod:`pf_stream.core.changelog`."""
    partition: int
    """The key's partition."""
    offset: int | None = None
    """Where it lies in the changelog; None if a worker told it."""
    timestamp_ms: int | None = None
    """When it was committed, milliseconds since the epoch; likewise."""
    worker: str | None = None
    """The worker that told it; None if it was read in the changelog."""
    entries: Mapping[bytes, bytes] | None = None
    """What its maps have, by subkey; None if a worker told it, which does not tell them."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """How many entries its maps have, by the ids of the fields, if a worker told it."""


class KeyPage(NamedTuple):
    """Some of the keys."""

    keys: list[tuple[str, int]]
    """Each with its partition: by partition, and sorted within."""
    next: str | None
    """The :class:`Cursor` of the page that follows; None if there is none."""


class Cursor(NamedTuple):
    """Where a page begins, as text ``3:apples`` or ``3``."""

    partition: int
    """The first partition."""
    after: bytes | None
    """Behind which key of it; None for all of them."""

    @classmethod
    def parse(cls, text: str, partitions: int) -> "Cursor":
        """The cursor that *text* writes. Raises :class:`ConfigurationError`."""
        number, colon, key = text.partition(":")
        if not (number.isascii() and number.isdigit() and len(number) < 10 and int(number) < partitions):
            raise ConfigurationError(f"cursor {text!r} does not begin with a partition, 0 to {partitions - 1}")
        return cls(int(number), key.encode() if colon else None)

    def __str__(self) -> str:
        return f"{self.partition}" if self.after is None else f"{self.partition}:{self.after.decode(errors='replace')}"


class States(Protocol):
    """Where the states of one reactor are read."""

    spec: ReactorSpec
    """The reactor, as the topology has it here."""
    changelog: str
    """Its changelog topic."""

    def get(self, key: bytes) -> Stored | None:
        """The state under *key*."""
        ...

    def page(self, prefix: str, cursor: str, limit: int) -> KeyPage:
        """Up to *limit* keys that begin with *prefix*, from *cursor* on."""
        ...

    def all(self, prefix: str) -> Iterator[Stored]:
        """Every state whose key begins with *prefix*, partition by partition."""
        ...


class ChangelogStates:
    """Reads the changelog from its beginning, and disturbs nobody. Keeps what it reads of one partition in memory."""

    def __init__(self, settings: ConnectionSettings, topology: Topology, reactor: str) -> None:
        """Raises :class:`NotFoundError` if the topology has no such reactor, or its changelog does not exist."""
        group, self.spec = find_reactor(topology, reactor)
        self.changelog = topology.changelog(group)
        self._settings = settings
        self._prefix = state_prefix(reactor)
        found = Admin(settings).topics([self.changelog])
        if self.changelog not in found:
            raise TopicMissingError([self.changelog], "Create it with: pf topics create")
        self._partitions = found[self.changelog].partitions

    def get(self, key: bytes) -> Stored | None:
        """See :class:`States`."""
        states = self._partition(partition_of(key, self._partitions), state_key(self._prefix, key))
        return next(iter(states), None)

    def page(self, prefix: str, cursor: str, limit: int) -> KeyPage:
        """See :class:`States`."""
        number, after = Cursor.parse(cursor, self._partitions)
        found: list[tuple[str, int]] = []
        while number < self._partitions:
            states = self._partition(number, self._prefix)
            keys = (one.key for one in states if one.key.startswith(prefix.encode()))
            page = nsmallest(limit - len(found), (key for key in keys if after is None or key > after))
            found += ((key.decode(errors="replace"), number) for key in page)
            if len(found) == limit:
                return KeyPage(found, str(Cursor(number, page[-1])))
            number, after = number + 1, None
        return KeyPage(found, None)

    def all(self, prefix: str) -> Iterator[Stored]:
        """See :class:`States`."""
        for number in range(self._partitions):
            yield from (one for one in self._partition(number, self._prefix) if one.key.startswith(prefix.encode()))

    def _partition(self, number: int, prefix: bytes) -> Iterable[Stored]:
        """The states of a partition whose keys in the changelog begin so."""
        last: dict[bytes, Stored] = {}
        entries: dict[bytes, dict[bytes, bytes]] = {}
        for record in read_topic(self._settings, self.changelog, partitions=[number]):
            if record.key is None or not record.key.startswith(prefix):
                continue
            _, key, subkey = parse_state_key(record.key)
            if subkey:
                of_key = entries.setdefault(key, {})
                of_key.pop(subkey, None)
                if record.value is not None:
                    of_key[subkey] = record.value
            elif record.value is None:
                last.pop(key, None)
            else:
                last[key] = Stored(key, record.value, number, record.offset, record.timestamp)
        return (replace(one, entries=entries.get(key, {})) for key, one in last.items())


# -- as people see them -----------------------------------------------------------------------------------------------------


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
    """Its JSON; with the entries of its maps, by key, where the changelog was read."""
    entries: dict[str, int]
    """How many entries each of its maps has; a worker counts 10,000 in all."""
    topic: str
    """The changelog."""
    partition: int
    """The key's partition."""
    offset: int | None
    """Where it lies there; None if a worker told it."""
    timestamp_ms: int | None
    """When it was committed, milliseconds since the epoch; likewise."""
    worker: str | None
    """The worker that told it; None if it was read in the changelog."""


def read_state(states: States, key: str) -> StoredState:
    """The state under *key*. Where several fields form the key, it is a JSON array of their values as texts.

    Raises:
        StateNotFoundError: nothing is kept under the key.
        StateUndecodableError: the record has a format or a version that is not known here, or an upgrade failed.
    """
    spec = states.spec
    stored = states.get(_record_key(spec, key))
    if stored is None:
        raise StateNotFoundError(spec.id, key)
    state = orjson.loads(_current(spec, stored))
    return StoredState(
        reactor=spec.id,
        key=stored.key.decode(errors="replace"),
        version=spec.state.version,
        stored_version=STATE_PREFIX.unpack_from(stored.raw)[1],
        state=state,
        entries={
            one.name: stored.counts.get(one.id, 0) if stored.entries is None else len(state[one.name])
            for one in spec.state.maps
        },
        topic=states.changelog,
        partition=stored.partition,
        offset=stored.offset,
        timestamp_ms=stored.timestamp_ms,
        worker=stored.worker,
    )


def export_line(spec: ReactorSpec, stored: Stored) -> bytes:
    """``{"reactor", "key", "version", "state"}`` in a line, the state in the version that the reactor has here.

    Raises :class:`StateUndecodableError`.
    """
    key, json = stored.key.decode(errors="replace"), orjson.Fragment(_current(spec, stored))
    line = {"reactor": spec.id, "key": key, "version": spec.state.version, "state": json}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _current(spec: ReactorSpec, stored: Stored) -> bytes:
    json = current_json(spec, stored.key, stored.raw)
    try:
        value = from_json(json, allow_inf_nan=False)
    except ValueError as error:
        raise StateUndecodableError(spec.id, stored.key, f"it is no JSON: {error}") from error
    if stored.entries is not None and spec.state.maps and isinstance(value, dict):
        fields = {one.id: one for one in spec.state.maps}
        value |= {one.name: {} for one in fields.values()}
        for subkey, raw in sorted(stored.entries.items()):
            id_, entry = parse_subkey(subkey)
            if id_ in fields:
                told = entry_json(spec, fields[id_], stored.key, entry, raw)
                value[fields[id_].name][str(entry)] = from_json(told)
        return to_json(value, inf_nan_mode="strings")
    return to_json(value) if b"\n" in json else json


def find_reactor(topology: Topology, reactor: str) -> tuple[Group, ReactorSpec]:
    """A reactor and its group. Raises :class:`NotFoundError`."""
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
