"""State of one reactor in one lane: bytes on a shelf, objects while in use, and a way back."""

import struct
from typing import Any, Final

from pydantic_core import PydanticSerializationError

from pf_stream.core import changelog
from pf_stream.core.plan import Binding, ReactorPlan
from pf_stream.core.shelf import Shelf
from pf_stream.errors import PFError
from pf_stream.model.context import Context
from pf_stream.model.effect import forgets
from pf_stream.model.reactor import ReactorSpec
from pf_stream.model.state import strictly
from pf_stream.model.versions import StepError

__all__ = ["ENCODING_ERRORS", "REMOVED", "Entry", "StateUndecodableError", "Store", "current_json", "decode_state"]

_PREFIX = changelog.STATE_PREFIX

_LIVE: Final = 32_768
"""States of a reactor that are kept as objects at least, if they are in use, in all lanes together; twice as many at most."""
_LIVE_IN_LANE: Final = 64
"""How many of them a lane keeps, however many lanes there are."""

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


def decode_state(spec: ReactorSpec, key: bytes, raw: bytes) -> Any:
    """A stored state as an object of its class; raises :class:`StateUndecodableError`."""
    json = current_json(spec, key, raw)
    try:
        return spec.state.decode(json)
    except ValueError as error:  # pydantic's is one
        raise StateUndecodableError(spec.id, key, str(error)) from error


REMOVED: Final = b""
"""In place of the bytes of a state: there was one, and it was removed."""


class Entry:
    """The state under one key, as an object."""

    __slots__ = ("base", "log", "raw", "removed", "state")

    def __init__(self, state: Any, raw: bytes | None) -> None:
        self.state = state
        self.removed = False
        """Whether the state was removed, and *state* is a new one that no intent has seen."""
        self.raw = raw
        """As last sealed; ``None`` if it never was."""
        self.base = raw
        """Where *log* starts."""
        self.log: list[tuple[Binding, bytes, Context]] | None = None
        """What was done to it since *base*, with the intents as JSON; ``None`` while it is as sealed."""


class Store:
    """All keys of one reactor in one lane.

    Those in use are objects; they become bytes again when there are too many. An object that was not used since the
    lane's objects were last counted goes first.
    """

    __slots__ = ("_idle", "_most", "_shelf", "live", "reactor")

    def __init__(self, reactor: ReactorPlan, shelf: Shelf, partitions: int) -> None:
        """*partitions* share what may be kept as objects."""
        self.reactor = reactor
        self.live: dict[bytes, Entry] = {}
        """States that were used of late."""
        self._idle: dict[bytes, Entry] = {}
        """Those that were used before that."""
        self._shelf = shelf
        self._most = max(_LIVE_IN_LANE, _LIVE // partitions)

    def load(self, key: bytes) -> Entry | None:
        """The entry of a key that is not live, if it is known; raises :class:`StateUndecodableError`."""
        entry = self._idle.pop(key, None)
        if entry is None:
            raw = self._shelf.get(changelog.state_key(self.reactor.prefix, key))
            if raw is None:
                return None
            entry = Entry(decode_state(self.reactor.spec, key, raw), raw)
        self.live[key] = entry
        return entry

    def age(self) -> None:
        """Forget objects that are not in use if there are too many.

        To be called when a unit is acknowledged and on the shelf. What the open unit changes is never forgotten: it was
        used since the unit before it was acknowledged.
        """
        if len(self.live) > self._most:
            self._idle, self.live = self.live, {}

    def create(self, key: bytes) -> Entry:
        """The entry of a new key."""
        entry = self.live[key] = Entry(self.reactor.fresh(), None)
        return entry

    def remove(self, entry: Entry) -> None:
        """Begin anew with a key: what it had goes with the unit."""
        entry.state = self.reactor.fresh()
        entry.removed = True

    def undo(self, key: bytes, entry: Entry) -> None:
        """Rebuild the object as its log says, after something outside the log changed it.

        Runs the handlers of this unit's earlier intents once more; they are pure, and their effects were taken then.
        """
        spec = self.reactor.spec
        if entry.log is None and entry.raw is None:
            del self.live[key]
            return
        entry.state = decode_state(spec, key, entry.base) if entry.base else self.reactor.fresh()
        entry.removed = entry.base == REMOVED
        for binding, value, context in entry.log or ():
            entry.removed = False
            if forgets(binding.handle(binding.decode(value), entry.state, context)):
                self.remove(entry)
        if not entry.log:
            return
        try:
            # A stream of failures on one key must not run its whole log again each time.
            with strictly():
                entry.base = REMOVED if entry.removed else self._encode(entry.state)
            entry.log = []
        except ENCODING_ERRORS:
            pass  # the lane finds the intent that left this behind when it seals the unit

    @staticmethod
    def is_untouched(entry: Entry) -> bool:
        """Whether everything that was done to a dirty entry was undone, or all that was begun was forgotten."""
        if entry.removed and not entry.raw:
            return True
        return not entry.log and entry.base is entry.raw

    def forget(self, key: bytes) -> None:
        """Go back to what was last acknowledged."""
        self.live.pop(key, None)
        self._idle.pop(key, None)

    def _encode(self, state: Any) -> bytes:
        spec = self.reactor.spec.state
        return changelog.pack_state(spec.version, spec.encode(state))
