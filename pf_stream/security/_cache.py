"""A map that is bounded in bytes, keeps what is used, and gives nobody more than a share."""

from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

__all__ = ["BoundedCache"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_SHARES: Final = 4


class BoundedCache(Generic[K, V]):
    """Two generations: what is found in the old one moves to the young, and a full young one replaces the old.

    A hit costs one dict lookup, nothing is reordered, and whatever was used since the last change of generations stays.

    With *owner_of*, an owner has at most a quarter of a generation: whose entries would need more begins anew with none,
    and nobody else loses any. So whoever can make valid entries without end fills his own share, over and over.
    """

    __slots__ = (
        "_limit",
        "_old",
        "_old_bytes",
        "_owner_of",
        "_share",
        "_shares",
        "_size_of",
        "_young",
        "_young_bytes",
    )

    def __init__(
        self, limit_bytes: int, size_of: Callable[[K, V], int], owner_of: Callable[[V], Hashable] | None = None
    ) -> None:
        """*size_of* an entry may grow while the entry is kept, if :meth:`grow` is told."""
        self._limit = limit_bytes // 2
        self._share = self._limit if owner_of is None else self._limit // _SHARES
        self._size_of = size_of
        self._owner_of = owner_of or (lambda _: None)
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}
        self._young_bytes = 0
        self._old_bytes = 0
        self._shares: dict[Hashable, int] = {}
        """Bytes of the young generation by owner."""

    @property
    def recent(self) -> dict[K, V]:
        """The young generation, to be read by those in a hurry: always the same object."""
        return self._young

    def get(self, key: K) -> V | None:
        value = self._young.get(key)
        if value is None and self._old:
            value = self._take_old(key)
            if value is not None:
                self.put(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        """Keep *value* under a *key* that is not there, unless it is larger than a share."""
        size = self._size_of(key, value)
        if size <= self._share:
            self._charge(self._owner_of(value), size)
            self._young[key] = value

    def grow(self, key: K, value: V, size: int) -> bool:
        """Whether the entry may become *size* bytes larger, which count from now on. If not, it may be gone."""
        if self._young.get(key) is not value:
            return False
        owner = self._owner_of(value)
        self._charge(owner, size)
        if key not in self._young:
            self._discharge(owner, size)
            return False
        return True

    def drop(self, key: K) -> None:
        """Forget *key*."""
        self._take_old(key)
        value = self._young.pop(key, None)
        if value is not None:
            self._discharge(self._owner_of(value), self._size_of(key, value))

    def _take_old(self, key: K) -> V | None:
        value = self._old.pop(key, None)
        if value is not None:
            self._old_bytes -= self._size_of(key, value)
        return value

    def _charge(self, owner: Hashable, size: int) -> None:
        """Make room for *size* bytes, and count them."""
        held = self._shares.get(owner, 0)
        if held + size > self._share:
            for key in [key for key, other in self._young.items() if self._owner_of(other) == owner]:
                del self._young[key]
            self._young_bytes -= held
            held = 0
        if self._young_bytes + size > self._limit:
            self._old, self._old_bytes = self._young.copy(), self._young_bytes
            self._young.clear()
            self._shares.clear()
            self._young_bytes = held = 0
        self._shares[owner] = held + size
        self._young_bytes += size

    def _discharge(self, owner: Hashable, size: int) -> None:
        left = self._shares[owner] - size
        if left:
            self._shares[owner] = left
        else:
            del self._shares[owner]
        self._young_bytes -= size

    @property
    def bytes(self) -> int:
        """Size of all entries, as *size_of* has it."""
        return self._young_bytes + self._old_bytes

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
