"""A topology that counts, in its first version; :mod:`tests.tally.v2` is the next one."""

from typing import Annotated

from pf_stream import Capability, Context, Effects, Emit, Intent, Key, Reactor, State, Topology, on, operation


class TallyCap(Capability):
    """Who may count what: ``/{name}``."""

    add = operation()


class Added(Intent, name="tally.added", version=1, requires=TallyCap.add("/{name}")):
    """Something was counted."""

    name: Annotated[str, Key]
    by: int = 1


class Summed(Intent, name="tally.summed", version=1, topic="sums", requires=TallyCap.add("/{name}")):
    """The same, for the sum over all names with one last letter."""

    letter: Annotated[str, Key]
    name: str
    by: int


class Count(State, version=1):
    """One name."""

    n: int = 0


class Sum(State, version=1):
    """One last letter."""

    n: int = 0


class Counts(Reactor[Count], id="counts"):
    """Counts."""

    @on
    def added(self, intent: Added, state: Count, ctx: Context) -> Effects:
        state.n += intent.by
        return Emit(Summed(letter=intent.name[-1], name=intent.name, by=intent.by))


class Sums(Reactor[Sum], id="sums"):
    """Sums up what comes through the internal topic."""

    @on
    def summed(self, intent: Summed, state: Sum, ctx: Context) -> None:
        state.n += intent.by


tally = Topology("tally", [Counts, Sums], internal=["sums"], replies=["replies"], partitions=2)
