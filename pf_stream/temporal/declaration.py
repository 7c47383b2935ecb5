"""Jobs: a function, the times at which it runs, and what happens when that cannot be.

::

    @job(cron="0 2 * * *", tz="Europe/Berlin")
    def nightly(run: JobRun) -> Effects:
        return Emit(CountDay(day=f"{run.nominal:%Y-%m-%d}"))

A run has a nominal time, which is the one in the timetable, and is what it is about. It begins then or later, never before.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, get_args

import orjson

from pf_stream.errors import DefinitionError
from pf_stream.model._periods import period_ms
from pf_stream.model.context import Context
from pf_stream.model.effect import Effect, Effects, Emit, Schedule
from pf_stream.model.failure import RetryLater
from pf_stream.model.intent import Intent
from pf_stream.model.when import BadWhenError, Calendar, When, calendar
from pf_stream.temporal.timetable import Timetable

__all__ = [
    "Cause",
    "Job",
    "JobRun",
    "Misfire",
    "Overlap",
    "Run",
    "TimesOf",
    "effects_of",
    "job",
    "run_name",
    "sends",
    "utc",
]

Misfire: TypeAlias = Literal["once", "all", "skip"]
"""What of the times that passed while nobody could run the job. ``once``: it runs for the last of them. ``all``: it runs for each,
up to a bound, the earliest first. ``skip``: it runs for none that is later than is tolerated."""

Overlap: TypeAlias = Literal["allow", "skip", "buffer_one", "cancel"]
"""What of a run that is to begin while another one has not ended. ``allow``: it begins. ``skip``: it is left out. ``buffer_one``:
one waits for the end, further ones are left out. ``cancel``: the other one is taken to be over, and this one is told which."""

Cause: TypeAlias = Literal["time", "trigger", "backfill"]
"""Why a job runs: it was time, somebody triggered it, or somebody had it run for times that have passed."""

Period: TypeAlias = timedelta | str
"""A ``timedelta``, or a number and a unit of s, m, h, d, such as ``"90s"``."""
TimesOf: TypeAlias = When | Calendar | str
"""Instants: a when, its text, or a calendar that is open then."""

MOST_AT_ONCE: Final = 1_000
"""Times that passed unused of which a job is aware at most."""

_name: Final = re.compile(r"[a-z][a-z0-9_.-]{0,99}").fullmatch


@dataclass(frozen=True, slots=True)
class JobRun:
    """One run of a job, as its function is given it."""

    name: str
    """The job's name."""
    nominal: datetime
    """The time that the run is for, UTC: of the timetable, or when it was triggered."""
    attempt: int
    """1, or more if runs of this time have failed."""
    cause: Cause
    """Why it runs."""
    cancels: datetime | None
    """The nominal time of the run that this one takes the place of, by the overlap policy ``cancel``: what that has begun may
    be stopped."""
    ctx: Context
    """The context: when it is, and under what subject this happens."""


Run: TypeAlias = Callable[[JobRun], Effects]


@dataclass(frozen=True, slots=True)
class Job:
    """A job; made by :func:`job`.

    Raises:
        DefinitionError: with every fault.
    """

    name: str
    """Its stable name, the key of its state."""
    run: Run
    """What it does."""
    timetable: Timetable | None = None
    """When; ``None`` for one that only runs when it is triggered, or is what those made at run time run."""
    limit: int | None = None
    """How often it runs by its timetable, in all."""
    jitter_ms: int = 0
    """Runs begin up to so much later than their nominal time, by a delay that follows from name and time."""
    misfire: Misfire = "once"
    """What of the times that passed while nobody could run it."""
    most: int = 100
    """How many of them at most by the policy ``all``: the last ones."""
    tolerance_ms: int = 60_000
    """How late a run may begin without being misfired."""
    catch_up_ms: int | None = None
    """How late a run may begin at all."""
    overlap: Overlap = "allow"
    """What of a run that is to begin while another one has not ended."""
    reports: bool = False
    """Whether a run has ended only when a ``JobEnded`` says so; else it has when its function returned, or failed for good."""
    bound_ms: int | None = None
    """How long after its beginning a run that reports may end; then it is taken to be over, and a ``JobViolation`` is sent."""
    retry: RetryLater | None = None
    """Whether and when a run that failed is done again."""

    def __post_init__(self) -> None:
        faults = []
        if not _name(self.name):
            faults.append(
                "its name must be lower-case letters, digits, '_', '.' and '-', starting with a letter, up to 100"
            )
        for label, value in (("limit", self.limit), ("bound", self.bound_ms), ("catch_up", self.catch_up_ms)):
            if value is not None and value < 1:
                faults.append(f"{label} must be more than nothing, not {value}")
        if not 1 <= self.most <= MOST_AT_ONCE:
            faults.append(f"most must be 1 to {MOST_AT_ONCE}, not {self.most}")
        if self.jitter_ms < 0 or self.tolerance_ms < 0:
            faults.append("jitter and tolerance must not be negative")
        every_ms = None if self.timetable is None else self.timetable.every_ms
        if every_ms is not None and self.jitter_ms >= every_ms:
            faults.append(f"its jitter of {self.jitter_ms} ms must be less than its period of {every_ms} ms")
        for label, given, known in (("misfire", self.misfire, Misfire), ("overlap", self.overlap, Overlap)):
            if given not in get_args(known):
                faults.append(f"{label} must be one of {', '.join(get_args(known))}, not {given!r}")
        if self.reports and self.bound_ms is None:
            faults.append(
                "runs that report their end need a bound: one whose end is never reported would be under way for ever"
            )
        if self.bound_ms is not None and not self.reports:
            faults.append(
                "a bound is for runs that report their end (reports=True); others end when their function returns"
            )
        if faults:
            raise DefinitionError(f"job {self.name!r}", faults)

    @property
    def definition(self) -> str:
        """What tells this job from another of the same name: JSON of all but its function."""
        table = self.timetable
        said = {
            "timetable": None if table is None else str(table),
            "start_ms": None if table is None else table.start_ms,
            "end_ms": None if table is None else table.end_ms,
            "calendars": {} if table is None else {name: _said_of(one) for name, one in table.named_calendars.items()},
            "limit": self.limit,
            "jitter_ms": self.jitter_ms,
        }
        return orjson.dumps(said, option=orjson.OPT_SORT_KEYS).decode()

    def delay_ms(self, nominal_ms: int) -> int:
        """How much later than its nominal time a run begins."""
        if not self.jitter_ms:
            return 0
        digest = hashlib.blake2b(f"{self.name}@{nominal_ms}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) % (self.jitter_ms + 1)

    def next_ms(self, after_ms: int) -> int | None:
        """The first nominal time after *after_ms*, milliseconds since the epoch."""
        return None if self.timetable is None else self.timetable.after(after_ms)

    def due(self, after_ms: int, now_ms: int) -> list[int]:
        """The nominal times after *after_ms* that are due at *now_ms*, in order; the last ones if they are too many to tell."""
        if self.timetable is None:
            return []
        times = self.timetable.latest(after_ms, now_ms, MOST_AT_ONCE)
        while times and times[-1] + self.delay_ms(times[-1]) > now_ms:
            times.pop()
        return times

    def choose(self, due: list[int], now_ms: int) -> list[int]:
        """For which of the nominal times that are due it runs, by its policy for misfires."""
        if self.catch_up_ms is not None:
            due = [at_ms for at_ms in due if now_ms - at_ms <= self.catch_up_ms]
        match self.misfire:
            case "once":
                return due[-1:]
            case "all":
                return due[-self.most :]
            case "skip":
                return [at_ms for at_ms in due if now_ms - at_ms - self.delay_ms(at_ms) <= self.tolerance_ms][
                    -self.most :
                ]


def _said_of(calendar: Calendar) -> list[str]:
    return [calendar.zone, *map(str, calendar.open), *map(str, sorted(calendar.holidays))]


def run_name(job: Job, nominal_ms: int) -> str:
    """The name of a run, of which its id and those of what it emits are made."""
    return f"{job.name}@{utc(nominal_ms).isoformat(timespec='milliseconds').replace('+00:00', 'Z')}"


def utc(at_ms: int) -> datetime:
    """An aware datetime."""
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def effects_of(job: Job, run: JobRun) -> list[Effect]:
    """What the job's function returns, where nothing else is said as of the run's nominal time, and with ids made of it."""
    result = job.run(run)
    name = run_name(job, round(run.nominal.timestamp() * 1000))
    effects: list[Effect] = []
    for index, effect in enumerate(result if isinstance(result, list | tuple) else [result] if result else []):
        given = isinstance(effect, Emit | Schedule)
        effects.append(
            replace(effect, id=effect.id or f"{name}:{index}", time=effect.time or run.nominal) if given else effect
        )
    return effects


def sends(intent: Intent) -> Run:
    """What a job does that sends this intent each time."""

    def run(_: JobRun) -> Effects:
        return Emit(intent)

    return run


def job(
    *,
    name: str | None = None,
    every: Period | None = None,
    cron: str | None = None,
    tz: str = "UTC",
    during: TimesOf | None = None,
    exclude: TimesOf | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    limit: int | None = None,
    jitter: Period | None = None,
    misfire: Misfire = "once",
    most: int = 100,
    tolerance: Period = "60s",
    catch_up: Period | None = None,
    overlap: Overlap = "allow",
    reports: bool = False,
    bound: Period | None = None,
    retry: RetryLater | None = None,
    calendars: Mapping[str, Calendar] = MappingProxyType({}),
) -> Callable[[Run], Job]:
    """Make a function a job: it runs by a period or a cron expression, or when it is triggered if there is neither.

    The function takes a :class:`JobRun` and returns effects, as a handler does; and as one it must not wait, read a clock or roll
    dice. What it emits has the id ``{job}@{nominal time}:{index}``, and the nominal time as event time, if it gives no other.

    *name* is the function's if not given. *during* and *exclude* are instants, such as ``"mon-fri 09:00-17:00 Europe/London"``
    or a :class:`Calendar`, in which the timetable's times must, or must not, be; *calendars* are those that their texts name.
    The other arguments are those of :class:`Job`.

    Raises:
        DefinitionError: with every fault, one of which may be that the timetable has no time at all.
    """

    def make(run: Run) -> Job:
        label = getattr(run, "__name__", "") if name is None else name
        faults: list[str] = []
        timetable = None
        if every is not None or cron is not None:
            every_ms = _period("every", every, faults)
            timetable = _timetable(every_ms, cron, tz, (during, exclude), (start, end), dict(calendars), faults)
        made = None
        try:
            made = Job(
                name=label,
                run=run,
                timetable=timetable,
                limit=limit,
                jitter_ms=_period("jitter", jitter, faults) or 0,
                misfire=misfire,
                most=most,
                tolerance_ms=_period("tolerance", tolerance, faults) or 0,
                catch_up_ms=_period("catch_up", catch_up, faults),
                overlap=overlap,
                reports=reports,
                bound_ms=_period("bound", bound, faults),
                retry=retry,
            )
        except DefinitionError as error:
            faults += error.faults
        if faults or made is None:
            raise DefinitionError(f"job {label!r}", faults)
        return made

    return make


def _timetable(
    every_ms: int | None,
    cron: str | None,
    tz: str,
    times: tuple[TimesOf | None, TimesOf | None],
    edges: tuple[datetime | None, datetime | None],
    calendars: dict[str, Calendar],
    faults: list[str],
) -> Timetable | None:
    whens: dict[str, When | None] = {}
    for side, one in zip(("during", "exclude"), times, strict=True):
        if isinstance(one, Calendar):
            calendars[side] = one
        try:
            whens[side] = _when(side, one)
        except BadWhenError as error:
            faults.append(str(error))
    bounds: dict[str, int | None] = {}
    for side, edge in zip(("start", "end"), edges, strict=True):
        if edge is not None and edge.tzinfo is None:
            faults.append(f"{side} {edge.isoformat()} has no zone; append one, such as 'Z'")
        else:
            bounds[side] = None if edge is None else round(edge.timestamp() * 1000)
    if faults:
        return None
    try:
        return Timetable(
            every_ms, cron, tz, whens["during"], whens["exclude"], bounds["start"], bounds["end"], calendars
        )
    except DefinitionError as error:
        faults += error.faults
        return None


def _when(side: str, times: TimesOf | None) -> When | None:
    if isinstance(times, Calendar):
        return calendar(side)
    return When.parse(times) if isinstance(times, str) else times


def _period(label: str, period: Period | None, faults: list[str]) -> int | None:
    if period is None:
        return None
    ms = period_ms(period) if isinstance(period, str) else round(period.total_seconds() * 1000)
    if ms is None:
        faults.append(
            f"{label}={period!r} must be a timedelta, or a number and a unit, such as '30s', '10m', '24h', '7d'"
        )
    return ms
