"""What is done, by the times at which it happened: how often, how long it took, how much of it went well.

A library of two reactors: one where the intents are, one where what is counted together meets. As with all reactors what they
count is exact, over crashes and repeats; only the tallies for metrics begin anew with each worker.
"""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeVar

from pf_stream.errors import DefinitionError
from pf_stream.model._names import nearest
from pf_stream.model.capability import PUBLIC
from pf_stream.model.constraint import only, sometimes
from pf_stream.model.context import Context
from pf_stream.model.effect import Effects, Emit, Tally
from pf_stream.model.intent import Intent, Key
from pf_stream.model.part import Part
from pf_stream.model.reactor import Reactor, on
from pf_stream.model.state import State, Stateless
from pf_stream.model.when import Calendar, When, is_calendar_name
from pf_stream.temporal.declaration import TimesOf

__all__ = ["Figures", "OperationFigures", "analytics"]

I = TypeVar("I", bound=Intent)  # noqa: E741 - an intent

_MINUTE_MS: Final = 60_000
_MINUTES: Final = 60
"""Of how many minutes, up to the latest one, figures are kept."""


@dataclasses.dataclass
class Figures:
    """Of several operations."""

    count: int = 0
    """How many there were."""
    failed: int = 0
    """How many of them failed."""
    took_ms: int = 0
    """How long all of them took, milliseconds."""

    @property
    def mean_ms(self) -> float:
        """How long one took; nan if there was none."""
        return self.took_ms / self.count if self.count else float("nan")

    @property
    def success_rate(self) -> float:
        """Which share of them did not fail; nan if there was none."""
        return 1 - self.failed / self.count if self.count else float("nan")

    def add(self, took_ms: int, failed: bool) -> None:
        """One more."""
        self.count += 1
        self.failed += failed
        self.took_ms += took_ms


class OperationFigures(State):
    """What is known of an operation, the key."""

    periods: dict[str, Figures] = dataclasses.field(default_factory=dict)
    """By the name of the period in which it happened."""
    minutes: dict[int, Figures] = dataclasses.field(default_factory=dict)
    """By the start of the minute, milliseconds since the epoch: the last hour of those in which there were any."""


def analytics(
    name: str,
    of: type[I],
    *,
    operation: Callable[[I], str],
    periods: Mapping[str, TimesOf],
    otherwise: str = "after_hours",
    took_ms: Callable[[I], int] | None = None,
    failed: Callable[[I], bool] | None = None,
    calendars: Mapping[str, Calendar] = MappingProxyType({}),
) -> Part:
    """Count the intents of a type by *operation*, and by the period in which they happened (their event time).

    *periods* are times by name, of which the first that holds counts; *otherwise* is what it is called when none does. *took_ms*
    says how long an operation took; without it, it is how long after its event time the intent was handled, which for what a job
    emits is the delay of the schedule. *failed* says whether it failed.

    The figures are the state of the reactor *name* under the operation (:class:`OperationFigures`); what was counted is on
    ``/metrics`` too, by period and for failures, as ``pf_tally_total``. *calendars* are those that *periods* name.

    ::

        analytics("work", FileDone, operation=lambda done: done.operation, failed=lambda done: not done.ok,
                  periods={"maintenance": "daily 02:00-04:00 UTC", "business": "mon-fri 09:00-17:00 UTC"})

    Raises:
        DefinitionError: with every fault of the periods.
    """
    known = dict(calendars)
    whens: dict[str, When] = {}
    faults = [
        f"period {one!r} must be lower case letters, digits and '_', at most 25"
        for one in (*periods, otherwise)
        if not is_calendar_name(one) or not one.replace("_", "a").isalnum() or len(one) > 25
    ]
    if otherwise in periods:
        faults.append(f"otherwise={otherwise!r} is one of the periods: choose another name")
    for period, times in periods.items():
        if isinstance(times, Calendar):
            known[f"period.{period}"] = times
        try:
            constraint = only(f"calendar period.{period}" if isinstance(times, Calendar) else times)
        except DefinitionError as error:
            faults += [f"period {period!r}: {fault}" for fault in error.faults]
            continue
        assert constraint.when is not None
        whens[period] = constraint.when
        unknown = sorted(constraint.when.calendars - known.keys())
        faults += [f"period {period!r}: there is no calendar {one!r}{nearest(one, known)}" for one in unknown]
        if not unknown and not sometimes([constraint], known):
            faults.append(f"period {period!r} never comes")
    if faults:
        raise DefinitionError(f"analytics {name!r}", faults)

    class Measured(Intent, name=f"{name}.measured", topic=name, requires=PUBLIC):
        """An operation as it is counted."""

        operation: Annotated[str, Key]
        at_ms: int
        took_ms: int
        failed: bool

    class Measure(Reactor[Stateless], id=f"{name}-measure", emits=[Measured]):
        """Where the intents are."""

        @on
        def measure(self, intent: of, state: Stateless, ctx: Context) -> Effects:  # type: ignore[valid-type]
            return Emit(
                Measured(
                    operation=operation(intent),
                    at_ms=min(ctx.time_ms, ctx.now_ms),
                    took_ms=max(0, ctx.now_ms - ctx.time_ms) if took_ms is None else took_ms(intent),
                    failed=failed is not None and failed(intent),
                )
            )

    class Analyse(Reactor[OperationFigures], id=name):
        """Where they meet."""

        @on
        def count(self, intent: Measured, state: OperationFigures, ctx: Context) -> Effects:
            held = (one for one, when in whens.items() if when.holds(intent.at_ms, known))
            period = next(held, otherwise)
            state.periods.setdefault(period, Figures()).add(intent.took_ms, intent.failed)
            minute = intent.at_ms - intent.at_ms % _MINUTE_MS
            oldest = max((minute, *state.minutes)) - (_MINUTES - 1) * _MINUTE_MS
            state.minutes.setdefault(minute, Figures()).add(intent.took_ms, intent.failed)
            for start in [start for start in state.minutes if start < oldest]:
                del state.minutes[start]
            return [Tally(period), *([Tally(f"{period}_failed")] if intent.failed else [])]

    reactors: tuple[type[Reactor[Any]], ...] = (Measure, Analyse)
    return Part(name, reactors, internal=frozenset({name}))
