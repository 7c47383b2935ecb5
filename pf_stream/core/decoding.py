"""Stored states and entries of their maps, read as the classes of their reactors."""

import struct
from collections.abc import Iterable
from typing import Any

from pf_stream.core import changelog
from pf_stream.errors import PFError
from pf_stream.model.map_state import MapSpec
from pf_stream.model.reactor import ReactorSpec
from pf_stream.model.versions import StepError

__all__ = ["StateUndecodableError", "current_json", "decode_entry", "decode_state", "decode_whole", "entry_json"]

_PREFIX = changelog.STATE_PREFIX


class StateUndecodableError(PFError):
    """Raised when a stored state cannot be read as its reactor's state class: its lane stops, so that nothing is lost."""

    code = "state_undecodable"

    def __init__(self, reactor: str, key: bytes, reason: str, subkey: bytes = b"") -> None:
        self.reactor = reactor
        self.key = key
        self.reason = reason
        self.subkey = subkey
        """Of the entry, behind the key of its state in the changelog; empty if it is the state itself."""
        super().__init__(f"state of reactor {reactor!r} under key {key!r} cannot be decoded: {reason}")


def current_json(spec: ReactorSpec, key: bytes, raw: bytes) -> bytes:
    """JSON of a stored state, upgraded to the version of its class; it may still not fit the class.

    Raises :class:`StateUndecodableError`.
    """
    name = spec.state_type.__name__
    upgrades = spec.state.upgrades
    try:
        form, version = _PREFIX.unpack_from(raw)
        if form != changelog.FORMAT:
            reason = f"it has format {form}, and this worker reads format {changelog.FORMAT}"
        elif version > spec.state.version:
            reason = (
                f"it has version {version}, and {name} is version {spec.state.version} here: a newer version of the "
                f"reactor wrote it. Upgrade this worker, or drop the reactor's state to begin without it"
            )
        elif version < upgrades.oldest:
            reason = (
                f"it has version {version}, and {name}, version {spec.state.version}, has no step from there: add "
                f"@upgrade(from_version={version})"
            )
        else:
            return upgrades.run(raw[_PREFIX.size :], version)
    except (StepError, ValueError, struct.error) as error:
        raise StateUndecodableError(spec.id, key, str(error)) from error
    raise StateUndecodableError(spec.id, key, reason)


def decode_state(spec: ReactorSpec, key: bytes, raw: bytes) -> Any:
    """A stored state as an object of its class; raises :class:`StateUndecodableError`."""
    json = current_json(spec, key, raw)
    try:
        return spec.state.decode(json)
    except ValueError as error:  # pydantic's is one
        raise StateUndecodableError(spec.id, key, str(error)) from error


def entry_json(spec: ReactorSpec, field: MapSpec, key: bytes, entry: int | str, raw: bytes) -> bytes:
    """JSON of a stored entry of a map, which no step has changed; it may still not fit its type.

    Raises :class:`StateUndecodableError`.
    """
    name = spec.state_type.__name__
    try:
        form, version = _PREFIX.unpack_from(raw)
        if form == changelog.FORMAT and field.since <= version <= spec.state.version:
            return raw[_PREFIX.size :]
        if form != changelog.FORMAT:
            reason = f"it has format {form}, and this worker reads format {changelog.FORMAT}"
        elif version > spec.state.version:
            reason = f"it has version {version}, and {name} is version {spec.state.version} here: upgrade this worker"
        else:
            reason = (
                f"it has version {version}, and @upgrade does not reach entries. If {name}, version {spec.state.version}, reads "
                f"those of that version as they are, say so: Annotated[MapState[...], Entries(since={version})]"
            )
    except struct.error as error:
        reason = str(error)
    raise _bad_entry(spec, field, key, entry, reason)


def decode_entry(spec: ReactorSpec, field: MapSpec, key: bytes, entry: int | str, raw: bytes) -> Any:
    """A stored entry of a map as a value of its type; raises :class:`StateUndecodableError`."""
    json = entry_json(spec, field, key, entry, raw)
    try:
        return field.decode(json)
    except ValueError as error:  # pydantic's is one
        raise _bad_entry(spec, field, key, entry, str(error)) from error


def decode_whole(spec: ReactorSpec, key: bytes, json: bytes, entries: Iterable[tuple[bytes, bytes]]) -> Any:
    """A state with all *entries* of its maps, by subkey, in memory. *json* is that of :func:`current_json`.

    Raises ``ValueError`` and :class:`StateUndecodableError`.
    """
    state = spec.state.decode(json)
    fields = {field.id: field for field in spec.state.maps}
    for subkey, raw in entries:
        id_, entry = changelog.parse_subkey(subkey)
        if id_ in fields:
            field = fields[id_]
            getattr(state, field.name)[entry] = decode_entry(spec, field, key, entry, raw)
    return state


def _bad_entry(spec: ReactorSpec, field: MapSpec, key: bytes, entry: int | str, reason: str) -> StateUndecodableError:
    subkey = changelog.pack_name(field.id) + changelog.pack_entry_key(entry)
    return StateUndecodableError(spec.id, key, f"entry {entry!r:.200} of {field.name!r}: {reason}", subkey)
