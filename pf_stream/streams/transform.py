"""Transforms: stages of a pipeline as classes, to be named, configured and tested by themselves."""

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

__all__ = ["Transform"]

A_contra = TypeVar("A_contra", contravariant=True)
B_co = TypeVar("B_co", covariant=True)


class Transform(Generic[A_contra, B_co]):
    """A stage that makes any number of values of each one::

        class Words(Transform[str, str]):
            def one(self, value: str) -> Iterable[str]:
                return value.split()

        stream(Said).map(lambda said: said.text, str).through(Words())

    It is pure, as a handler is: it keeps nothing, waits for nothing and reads no clock. If it raises, nothing remains of the
    intent that was on its way.
    """

    def one(self, value: A_contra) -> Iterable[B_co]:
        """What becomes of one value."""
        raise NotImplementedError

    def many(self, values: Sequence[A_contra]) -> Iterable[B_co]:
        """What becomes of values that arrive together, as windows that close at once do; override it if that is quicker
        than one by one. It must come to the same."""
        return [made for value in values for made in self.one(value)]
