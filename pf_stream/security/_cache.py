"""A map that is bounded in bytes and keeps what is used."""

from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["BoundedCache"]

V = TypeVar("V")


class BoundedCache(Generic[V]):
    """Two generations: what is found in the old one moves to the young, and a full young one replaces the old.

    A hit costs one dict lookup, nothing is reordered, and whatever was used since the last change of generations stays.
    """

    __slots__ = ("_limit", "_old", "_size_of", "_young", "_young_bytes")

    def __init__(self, limit_bytes: int, size_of: Callable[[bytes, V], int]) -> None:
        self._limit = limit_bytes // 2
        self._size_of = size_of
        self._young: dict[bytes, V] = {}
        self._old: dict[bytes, V] = {}
        self._young_bytes = 0

    def get(self, key: bytes) -> V | None:
        value = self._young.get(key)
        if value is None and self._old:
            value = self._old.pop(key, None)
            if value is not None:
                self.put(key, value)
        return value

    def put(self, key: bytes, value: V) -> None:
        size = self._size_of(key, value)
        if size > self._limit:
            return
        if self._young_bytes + size > self._limit:
            self._old = self._young
            self._young = {}
            self._young_bytes = 0
        self._young[key] = value
        self._young_bytes += size

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
