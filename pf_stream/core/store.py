"""State of one reactor in one lane: bytes on a shelf, objects while in use, and a way back."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

from pydantic_core import PydanticSerializationError

from pf_stream.core import changelog
from pf_stream.core.decoding import decode_state
from pf_stream.core.entries import BrokenStateError, StoredMap
from pf_stream.core.plan import Binding, ReactorPlan
from pf_stream.core.shelf import Shelf
from pf_stream.model.context import Context
from pf_stream.model.effect import forgets
from pf_stream.model.state import Keeper, strictly

__all__ = ["ENCODING_ERRORS", "NOTHING", "REMOVED", "Before", "Entry", "Log", "Store"]

_LIVE: Final = 32_768
"""States of a reactor that are kept as objects at least, if they are in use, in all lanes together; twice as many at most."""
_LIVE_IN_LANE: Final = 64
"""How many of them a lane keeps, however many lanes there are."""

ENCODING_ERRORS = (PydanticSerializationError, UserWarning, ValueError)
"""What encoding a state with a value of a wrong type raises, within :func:`~pf_stream.model.state.strictly`."""


REMOVED: Final = b""
"""In place of the bytes of a state: there was one, and it was removed."""


Log: TypeAlias = "tuple[()] | tuple[Log, Binding, bytes, Context]"
"""What was done to a state: nothing, or something, and then one intent more, which is JSON. A list would take two more objects
for each, and there is one for nearly every record."""
NOTHING: Final[Log] = ()


Before: TypeAlias = tuple[Any, "Sequence[Any] | None", bool, bool]
"""What an entry was before a handler: the state, what was kept of it, whether it was removed, whether it was loose."""


class Entry:
    """The state under one key, as an object."""

    __slots__ = ("base", "log", "loose", "maps", "raw", "removed", "state")

    def __init__(self, state: Any, raw: bytes | None, maps: tuple[StoredMap, ...] = ()) -> None:
        self.state = state
        self.maps = maps
        """Its fields whose entries are stored one by one."""
        self.removed = False
        """Whether the state was removed, and *state* is a new one that no intent has seen."""
        self.raw = raw
        """As last sealed; ``None`` if it never was."""
        self.base = raw
        """Where *log* starts."""
        self.log: Log | None = None
        """What was done to it since *base*, but for what *loose* stands for; ``None`` while it is as sealed."""
        self.loose = False
        """Whether something was done to it since *base* that *log* does not tell: what it was before that was kept."""


def _kept_not(state: Any) -> None:
    """Nothing is kept."""


def _never(state: Any, kept: Sequence[Any]) -> None:
    raise AssertionError("nothing was kept")


_NO_KEEPER: Final = Keeper(_kept_not, _never)


class Store:
    """All keys of one reactor in one lane.

    Those in use are objects; they become bytes again when there are too many. An object that was not used since the
    lane's objects were last counted goes first.
    """

    __slots__ = ("_idle", "_keeper", "_maps", "_most", "_shelf", "keep", "live", "reactor")

    def __init__(self, reactor: ReactorPlan, shelf: Shelf, partitions: int) -> None:
        """*partitions* share what may be kept as objects."""
        self.reactor = reactor
        self.live: dict[bytes, Entry] = {}
        """States that were used of late."""
        self._idle: dict[bytes, Entry] = {}
        """Those that were used before that."""
        self._shelf = shelf
        self._maps = reactor.spec.state.maps
        self._keeper = reactor.spec.state.keeper or _NO_KEEPER
        self.keep = self._keeper.keep
        """What a state holds, before a handler may change it; ``None`` if what handlers do to it is to be logged."""
        self._most = max(_LIVE_IN_LANE, _LIVE // partitions)

    def load(self, key: bytes) -> Entry | None:
        """The entry of a key that is not live, if it is known; raises :class:`StateUndecodableError`."""
        entry = self._idle.pop(key, None)
        if entry is None:
            raw = self._shelf.get(changelog.state_key(self.reactor.prefix, key))
            if raw is None:
                return None
            entry = Entry(decode_state(self.reactor.spec, key, raw), raw)
            if self._maps:
                self._give_maps(key, entry, new=False)
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
        if self._maps:
            self._give_maps(key, entry, new=True)
        return entry

    def _give_maps(self, key: bytes, entry: Entry, *, new: bool) -> None:
        at = changelog.state_key(self.reactor.prefix, key)
        entry.maps = tuple(StoredMap(field, self.reactor.spec, key, at, self._shelf, new=new) for field in self._maps)
        _attach(entry)

    def remove(self, entry: Entry) -> None:
        """Begin anew with a key: what it had goes with the unit."""
        entry.state = self.reactor.fresh()
        entry.removed = True
        for field in entry.maps:
            field.clear()
        _attach(entry)

    def undo(self, key: bytes, entry: Entry, before: Before) -> None:
        """Make it what it was *before* a handler that failed.

        If that was not kept, it is rebuilt as its log says. Runs the handlers of this unit's earlier intents once more; they
        are pure, and their effects were taken then.
        """
        spec = self.reactor.spec
        if entry.log is None and entry.raw is None:
            del self.live[key]
            return
        state, kept, entry.removed, entry.loose = before
        if kept is not None:
            entry.state = state
            self._keeper.restore(state, kept)
            for field in entry.maps:
                field.undo()
            _attach(entry)
            return
        entry.state = decode_state(spec, key, entry.base) if entry.base else self.reactor.fresh()
        entry.removed = entry.base == REMOVED
        for field in entry.maps:
            field.undo()
        _attach(entry)
        for binding, value, context in _in_order(entry.log):
            entry.removed = False
            try:
                result = binding.handle(binding.decode(value), entry.state, context)
            except BrokenStateError as broken:
                raise broken.reason from None
            if forgets(result):
                self.remove(entry)
        if entry.log:
            # A stream of failures on one key must not run its whole log again each time.
            with suppress(*ENCODING_ERRORS):  # the lane finds the intent that left this behind when it seals the unit
                self.rebase(entry)

    def rebase(self, entry: Entry) -> None:
        """Make what it is now its base, from which its log begins anew; raises :data:`ENCODING_ERRORS`."""
        with strictly():
            changes = [field.changes() for field in entry.maps]
            entry.base = REMOVED if entry.removed else self.encode(entry)
        for field, changed in zip(entry.maps, changes, strict=True):
            field.rebase(changed)
        entry.log = NOTHING
        entry.loose = False

    @staticmethod
    def is_untouched(entry: Entry) -> bool:
        """Whether everything that was done to a dirty entry was undone, or all that was begun was forgotten."""
        if entry.removed and not entry.raw:
            return True
        return not entry.log and not entry.loose and entry.base is entry.raw

    def forget(self, key: bytes) -> None:
        """Go back to what was last acknowledged."""
        self.live.pop(key, None)
        self._idle.pop(key, None)

    def encode(self, entry: Entry) -> bytes:
        """The state as it is stored, without the entries of its maps; raises :data:`ENCODING_ERRORS`."""
        for field in entry.maps:
            if getattr(entry.state, field.name) is not field:
                raise ValueError(f"{field.name!r} is another map: change the one that is there")
        spec = self.reactor.spec.state
        return changelog.pack_state(spec.version, spec.encode(entry.state))

    def seal_maps(self, key: bytes, entry: Entry) -> list[tuple[bytes, bytes | None]]:
        """End the unit for the maps of an entry; returns their records. Raises :data:`ENCODING_ERRORS`."""
        cleared = False
        records: list[tuple[bytes, bytes | None]] = []
        for field in entry.maps:
            cleared |= field.cleared
            records += field.seal()
        if cleared:
            at = changelog.state_key(self.reactor.prefix, key)
            known = {name for name, _ in records}
            # Also those of fields that the class does not have any more.
            stored = self._shelf.entries(*changelog.entries_range(at))
            records += [(name, None) for name, _ in stored if name not in known]
        return records


def _in_order(log: "Log | None") -> list[tuple[Binding, bytes, Context]]:
    """The first intent first."""
    deeds: list[tuple[Binding, bytes, Context]] = []
    while log:
        log, binding, value, context = log
        deeds.append((binding, value, context))
    return deeds[::-1]


def _attach(entry: Entry) -> None:
    for field in entry.maps:
        setattr(entry.state, field.name, field)
