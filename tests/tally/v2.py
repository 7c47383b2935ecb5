"""The topology of :mod:`tests.tally.v1`, after every shape in it has changed."""

from typing import Annotated, Any

from pf_stream import Context, Effects, Emit, Intent, Key, Reactor, State, Topology, on, upcast, upgrade
from tests.tally.v1 import TallyCap


class Added(Intent, name="tally.added", version=2, requires=TallyCap.add("/{thing}")):
    """Something was counted, in some unit."""

    thing: Annotated[str, Key]
    amount: int
    unit: str

    @upcast(from_version=1)
    @staticmethod
    def _with_unit(old: dict[str, Any]) -> dict[str, Any]:
        return {"thing": old["name"], "amount": old.get("by", 1), "unit": "piece"}


class Summed(Intent, name="tally.summed", version=2, topic="sums", requires=TallyCap.add("/{thing}")):
    """The same, for the sum over all things with one last letter."""

    letter: Annotated[str, Key]
    thing: str
    amount: int
    unit: str

    @upcast(from_version=1)
    @staticmethod
    def _with_unit(old: dict[str, Any]) -> dict[str, Any]:
        return {"letter": old["letter"], "thing": old["name"], "amount": old["by"], "unit": "piece"}


class Count(State, version=2):
    """One thing."""

    amount: int = 0
    units: tuple[str, ...] = ()

    @upgrade(from_version=1)
    @staticmethod
    def _with_units(old: dict[str, Any]) -> dict[str, Any]:
        return {"amount": old["n"], "units": ["piece"]}


class Sum(State, version=2):
    """One last letter."""

    amount: int = 0

    @upgrade(from_version=1)
    @staticmethod
    def _renamed(old: dict[str, Any]) -> dict[str, Any]:
        return {"amount": old["n"]}


class Counts(Reactor[Count], id="counts"):
    """Counts."""

    @on
    def added(self, intent: Added, state: Count, ctx: Context) -> Effects:
        state.amount += intent.amount
        state.units = tuple(sorted({*state.units, intent.unit}))
        return Emit(Summed(letter=intent.thing[-1], thing=intent.thing, amount=intent.amount, unit=intent.unit))


class Sums(Reactor[Sum], id="sums"):
    """Sums up what comes through the internal topic."""

    @on
    def summed(self, intent: Summed, state: Sum, ctx: Context) -> None:
        state.amount += intent.amount


tally = Topology("tally", [Counts, Sums], internal=["sums"], replies=["replies"], partitions=2, version=2)
