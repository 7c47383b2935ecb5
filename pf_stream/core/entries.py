"""Entries of the maps of a state: read from the shelf when they are used, objects while a unit uses them, and a way back."""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import chain
from typing import Any, Final, TypeAlias

from pf_stream.core import changelog
from pf_stream.core.decoding import StateUndecodableError, decode_entry
from pf_stream.core.shelf import Shelf
from pf_stream.model.map_state import MapSpec, MapState
from pf_stream.model.reactor import ReactorSpec

__all__ = ["BrokenStateError", "Change", "StoredMap"]

_GONE: Final = object()
"""In place of a value: there is none."""
_UNREAD: Final = object()
"""In place of a value: it has not been decoded."""

Change: TypeAlias = tuple[int | str, "_Slot", bytes | None]
"""An entry that may have changed, and what it would be stored as; ``None`` if it was deleted."""


class BrokenStateError(BaseException):
    """Raised out of a handler that uses an entry which cannot be read. That is no failure of the handler's, who must not even
    catch it: whoever called the handler raises :attr:`reason` instead."""

    def __init__(self, reason: Exception) -> None:
        self.reason = reason
        super().__init__(reason)


class _Slot:
    """One entry."""

    __slots__ = ("name", "raw", "sized", "value")

    def __init__(self, name: bytes, raw: bytes | None) -> None:
        self.name = name
        """Its key in the changelog."""
        self.raw = raw
        """As of the base, see :class:`StoredMap`; ``None`` if there was none."""
        self.value: Any = _GONE if raw is None else _UNREAD
        self.sized = False
        """Whether it counts for the size of the open unit."""


class StoredMap(MapState[Any, Any]):
    """One map under one key of a lane.

    An entry lies on the shelf; what is not there yet, or was used in this unit, has a slot here. The *base* is what handlers
    that fail are undone to: the map as last sealed, or as it was in this unit when something else was last undone.
    """

    __slots__ = (
        "_before",
        "_blind",
        "_fresh",
        "_kept",
        "_key",
        "_prefix",
        "_reactor",
        "_shelf",
        "_slots",
        "_spec",
        "_touched",
        "cleared",
        "growth",
        "name",
    )

    def __init__(
        self, spec: MapSpec, reactor: ReactorSpec, key: bytes, state_key: bytes, shelf: Shelf, *, new: bool
    ) -> None:
        """That of a *key* of a *reactor*; *new* if nothing can be on the shelf, nor on its way."""
        self.name = spec.name
        """Of the field."""
        self._spec = spec
        self._reactor = reactor
        self._key = key
        self._prefix = state_key + changelog.pack_name(spec.id)
        self._shelf = shelf
        self._slots: dict[Any, _Slot] = {}
        self._fresh: list[Any] = []
        """In order, the keys of entries that the shelf may not have; some may have been deleted since."""
        self._touched: dict[Any, _Slot] = {}
        """Slots that may differ from the base."""
        self._before: dict[Any, bytes | None] = {}
        """As last sealed, the entries of which the base differs."""
        self._blind = new
        """Whether the shelf is not asked, since it is known or about to be empty."""
        self.cleared = False
        """Whether all that was stored is deleted in this unit."""
        self._kept: tuple[Any, ...] | None = None
        """What belongs to the base, if it was cleared since."""
        self.growth = 0
        """By how much it has made the open unit larger, in bytes and by estimate; whoever counts that sets it back."""

    # -- what handlers do ----------------------------------------------------------------------------------------------

    def get(self, key: Any, default: Any = None, /) -> Any:
        value = self._value(key, self._slot(key))
        return default if value is _GONE else value

    def __getitem__(self, key: Any, /) -> Any:
        value = self._value(key, self._slot(key))
        if value is _GONE:
            raise KeyError(key)
        return value

    def __contains__(self, key: Any, /) -> bool:
        return self._slot(key).value is not _GONE

    def __setitem__(self, key: Any, value: Any, /) -> None:
        slot = self._slot(key)
        if slot.value is _GONE:
            at = bisect_left(self._fresh, key)
            if at == len(self._fresh) or self._fresh[at] != key:
                self._fresh.insert(at, key)
        self._change(key, slot, value)

    def __delitem__(self, key: Any, /) -> None:
        slot = self._slot(key)
        if slot.value is _GONE:
            raise KeyError(key)
        self._change(key, slot, _GONE)

    def items(self, start: Any = None, stop: Any = None) -> Iterator[tuple[Any, Any]]:
        low = self._prefix if start is None else self._name(start)
        high = self._prefix + changelog.BEHIND_ENTRIES if stop is None else self._name(stop)
        fresh = self._fresh
        ours: list[Any] = []
        if fresh:
            first = 0 if start is None else bisect_left(fresh, start)
            ours = fresh[first : None if stop is None else bisect_left(fresh, stop)]
        at = 0
        for key, name, raw in self._stored(low, high):
            while at < len(ours) and ours[at] < key:
                value = self._value(ours[at], self._slots[ours[at]])
                if value is not _GONE:
                    yield ours[at], value
                at += 1
            if at < len(ours) and ours[at] == key:
                at += 1
            slot = self._slots.get(key)
            if slot is None:
                slot = _Slot(name, raw)
                if not self._spec.frozen:
                    self._slots[key] = slot
            value = self._value(key, slot)
            if value is not _GONE:
                yield key, value
        for key in ours[at:]:
            value = self._value(key, self._slots[key])
            if value is not _GONE:
                yield key, value

    def _slot(self, key: Any) -> _Slot:
        slot = self._slots.get(key)
        # Else True would be 1 for as long as 1 is in use.
        if slot is not None and type(key) is self._spec.key_type:
            return slot
        name = self._name(key)
        try:
            raw = None if self._blind else self._shelf.get(name)
        except Exception as error:
            raise BrokenStateError(error) from error
        slot = self._slots[key] = _Slot(name, raw)
        return slot

    def _value(self, key: Any, slot: _Slot) -> Any:
        value = slot.value
        if value is _UNREAD:
            assert slot.raw is not None
            try:
                value = slot.value = decode_entry(self._reactor, self._spec, self._key, key, slot.raw)
            except StateUndecodableError as error:
                raise BrokenStateError(error) from error
        if not self._spec.frozen and value is not _GONE:
            self._touched[key] = slot  # it may be changed in place
        return value

    def _change(self, key: Any, slot: _Slot, value: Any) -> None:
        slot.value = value
        self._touched[key] = slot
        if not slot.sized:
            slot.sized = True
            self.growth += 128 + len(slot.raw or b"")

    def _name(self, key: Any) -> bytes:
        """The key of an entry in the changelog."""
        if type(key) is not self._spec.key_type:
            raise TypeError(
                f"keys of {self._spec.name!r} are {self._spec.key_type.__name__}, and {key!r:.200} is {type(key).__name__}"
            )
        return self._prefix + changelog.pack_entry_key(key)

    def _stored(self, start: bytes, stop: bytes) -> Iterator[tuple[Any, bytes, bytes]]:
        """Keys, names and values of what the shelf has in a range of names."""
        if self._blind:
            return
        try:
            for name, raw in self._shelf.entries(start, stop):
                key = changelog.parse_entry_key(name, len(self._prefix))
                if type(key) is not self._spec.key_type:
                    raise ValueError(f"the key {key!r} is no {self._spec.key_type.__name__}")
                yield key, name, raw
        except ValueError as error:
            reason = f"an entry of {self._spec.name!r}: {error}"
            raise BrokenStateError(StateUndecodableError(self._reactor.id, self._key, reason)) from error
        except Exception as error:
            raise BrokenStateError(error) from error

    # -- what the lane does --------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Delete everything."""
        if self._kept is None:
            self._kept = self._slots, self._fresh, self._touched, self._before, self._blind, self.cleared
        self._slots, self._fresh, self._touched, self._before = {}, [], {}, {}
        self._blind = self.cleared = True

    def undo(self) -> None:
        """Go back to the base."""
        if self._kept is not None:
            self._slots, self._fresh, self._touched, self._before, self._blind, self.cleared = self._kept
            self._kept = None
        for slot in self._touched.values():
            slot.value = _GONE if slot.raw is None else _UNREAD
        self._touched = {}

    def changes(self) -> list[Change]:
        """How the map may differ from the base; raises what encoding a state raises."""
        version, encode = self._reactor.state.version, self._spec.encode
        return [
            (key, slot, None if slot.value is _GONE else changelog.pack_state(version, encode(slot.value)))
            for key, slot in self._touched.items()
        ]

    def rebase(self, changes: list[Change]) -> None:
        """Make what it is now, which differs by :meth:`changes`, the base."""
        for key, slot, raw in changes:
            if raw != slot.raw:
                self._before.setdefault(key, slot.raw)
                slot.raw = raw
        self._touched = {}
        self._kept = None

    def seal(self) -> list[tuple[bytes, bytes | None]]:
        """End the unit; returns the records of what it changes, but for what it has cleared.

        The unit before it is on the shelf. So only what this one has used needs a slot further on.
        """
        if not self._slots and not self.cleared:
            self._blind = False
            return []
        changes = self.changes()
        self.rebase(changes)
        before, slots = self._before, self._slots
        self._slots = {key: slots[key] for key in chain((key for key, _, _ in changes), before)}
        for slot in self._slots.values():
            slot.sized = False
        self._fresh = sorted(key for key in before if slots[key].raw is not None)
        self._before = {}
        self._blind, self.cleared = self.cleared, False
        return [(slots[key].name, slots[key].raw) for key, raw in before.items() if slots[key].raw != raw]
