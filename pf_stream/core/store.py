"""State of one reactor in one lane: bytes until used, objects while in use, and a way back."""

import struct
from typing import Any

from pydantic_core import PydanticSerializationError

from pf_stream.core import changelog
from pf_stream.core.plan import Binding, ReactorPlan
from pf_stream.errors import PFError
from pf_stream.model.context import Context
from pf_stream.model.reactor import ReactorSpec
from pf_stream.model.state import strictly
from pf_stream.model.versions import StepError

__all__ = ["ENCODING_ERRORS", "Entry", "StateUndecodableError", "Store", "current_json"]

_PREFIX = changelog.STATE_PREFIX

ENCODING_ERRORS = (PydanticSerializationError, UserWarning, ValueError)
"""What encoding a state with a value of a wrong type raises, within :func:`~pf_stream.model.state.strictly`."""


class StateUndecodableError(PFError):
    """Raised when a stored state cannot be read as its reactor's state class: its lane stops, so that nothing is lost."""

    code = "state_undecodable"

    def __init__(self, reactor: str, key: bytes, reason: str) -> None:
        self.reactor = reactor
        self.key = key
        self.reason = reason
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


class Entry:
    """The state under one key, as an object."""

    __slots__ = ("base", "log", "raw", "state")

    def __init__(self, state: Any, raw: bytes | None) -> None:
        self.state = state
        self.raw = raw
        """As last sealed; ``None`` if it never was."""
        self.base = raw
        """Where *log* starts."""
        self.log: list[tuple[Binding, bytes, Context]] | None = None
        """What was done to it since *base*, with the intents as JSON; ``None`` while it is as sealed."""


class Store:
    """All keys of one reactor in one lane."""

    __slots__ = ("cold", "known", "live", "reactor")

    def __init__(self, reactor: ReactorPlan) -> None:
        self.reactor = reactor
        self.cold: dict[bytes, bytes] = {}
        """Values of the changelog that nobody has asked for since the recovery."""
        self.live: dict[bytes, Entry] = {}
        self.known: list[bytes] = []
        """Every key that has a sealed state, each once. New ones are appended, so it can be walked in pieces while the lane
        goes on, as the dictionaries cannot; copying the keys of one takes up to 70 ms for a million."""

    def load(self, key: bytes) -> Entry | None:
        """The entry of a key that is not live, if it is known; raises :class:`StateUndecodableError`."""
        raw = self.cold.get(key)
        if raw is None:
            return None
        entry = self.live[key] = Entry(self._decode(key, raw), raw)
        del self.cold[key]
        return entry

    def create(self, key: bytes) -> Entry:
        """The entry of a new key."""
        entry = self.live[key] = Entry(self.reactor.fresh(), None)
        return entry

    def undo(self, key: bytes, entry: Entry) -> None:
        """Rebuild the object as its log says, after something outside the log changed it.

        Runs the handlers of this unit's earlier intents once more; they are pure, and their effects were taken then.
        """
        if entry.log is None:
            if entry.raw is None:
                del self.live[key]
            else:
                entry.state = self._decode(key, entry.raw)
            return
        state = self.reactor.fresh() if entry.base is None else self._decode(key, entry.base)
        for binding, value, context in entry.log:
            binding.handle(binding.decode(value), state, context)
        entry.state = state
        if not entry.log:
            return
        try:
            # A stream of failures on one key must not run its whole log again each time.
            with strictly():
                entry.base = self._encode(state)
            entry.log = []
        except ENCODING_ERRORS:
            pass  # the lane finds the intent that left this behind when it seals the unit

    @staticmethod
    def is_untouched(entry: Entry) -> bool:
        """Whether everything that was done to a dirty entry was undone."""
        return not entry.log and entry.base is entry.raw

    def forget(self, key: bytes, entry: Entry) -> None:
        """Go back to what was last sealed."""
        del self.live[key]
        if entry.raw is not None:
            self.cold[key] = entry.raw

    def _encode(self, state: Any) -> bytes:
        spec = self.reactor.spec.state
        return changelog.pack_state(spec.version, spec.encode(state))

    def _decode(self, key: bytes, raw: bytes) -> Any:
        spec = self.reactor.spec
        json = current_json(spec, key, raw)
        try:
            return spec.state.decode(json)
        except ValueError as error:  # pydantic's is one
            raise StateUndecodableError(spec.id, key, str(error)) from error
