"""The reactor that runs jobs, and the part that brings it into a topology.

A job's name is its key, so one lane has it, and its next time is a timer there: it fires once in a cluster, and what it causes
is part of the unit that removes the timer. Making a run begin and running it are two intents, since a run at which something
is wrong becomes a dead letter, and the times that follow must not end with it.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from types import MappingProxyType
from typing import ClassVar, Final

from pf_stream.errors import DefinitionError, PFError
from pf_stream.model._names import nearest
from pf_stream.model.context import Context
from pf_stream.model.effect import Cancel, Effect, Effects, Emit, Forget, Reply, Schedule
from pf_stream.model.intent import Intent
from pf_stream.model.part import Part
from pf_stream.model.reactor import Reactor, on
from pf_stream.model.service import Service
from pf_stream.model.state import State
from pf_stream.model.when import Calendar
from pf_stream.temporal.declaration import Cause, Job, JobRun, effects_of, run_name, utc
from pf_stream.temporal.form import JobForm, job_of
from pf_stream.temporal.intents import (
    BackfillJob,
    CancelJob,
    DeclareJob,
    EndRun,
    JobDue,
    JobEnded,
    JobViolation,
    PauseJob,
    ResumeJob,
    RunJob,
    ScheduleJob,
    TemporalCap,
    TriggerJob,
    UnscheduleJob,
)

__all__ = ["JobState", "Jobs", "UnknownJobError", "jobs"]

_TICK: Final = "due"
_FARTHEST_MS: Final = 300 * 86_400_000
"""How far ahead a timer is set, which is less than a timer may wait; on a longer way it is set again."""


class UnknownJobError(PFError):
    """Raised when something is to be done with a job that is not there, or not to that kind of job."""

    code = "unknown_job"


class JobState(State):
    """What is known of a job."""

    definition: str = ""
    """By what definition *next_ms* was found."""
    made: str = ""
    """The form of a job that was made at run time, as JSON; empty for one that the topology declares."""
    next_ms: int | None = None
    """The next nominal time, milliseconds since the epoch; ``None`` if there is none."""
    last_ms: int | None = None
    """The last nominal time that was due."""
    paused: bool = False
    """Whether its times begin no runs."""
    taken: int = 0
    """Runs by its timetable."""
    begun: int = 0
    """Runs that began."""
    missed: int = 0
    """Times that began no run, since nobody could in time."""
    skipped: int = 0
    """Runs left out, since another one was under way."""
    failed: int = 0
    """Runs that failed for good."""
    cancelled: int = 0
    """Runs that were taken for over before they had ended."""
    overdue: int = 0
    """Runs that did not end in time."""
    late_ms: int = 0
    """How late the last run by the timetable began."""
    latest_ms: int = 0
    """How late the latest of them did."""
    running: dict[int, int] = dataclasses.field(default_factory=dict)
    """Runs under way, or to be done again: their attempt, by nominal time."""
    waiting_ms: int | None = None
    """The run that begins when the one under way has ended."""
    backfill_ms: int | None = None
    """Of a backfill the run that is under way."""
    backfilled_ms: int = 0
    """Of a backfill the time until which runs have begun."""
    backfill_end_ms: int | None = None
    """Before which a backfill ends; ``None`` if there is none."""


class Jobs(Reactor[JobState], id="jobs"):
    """Runs the jobs of a topology."""

    declared: ClassVar[Mapping[str, Job]] = MappingProxyType({})
    """By name."""
    build: ClassVar[Callable[[str, str], Job]]
    """The job of a name and a form."""

    # -- when it is time -----------------------------------------------------------------------------------------------

    @on
    def declare(self, intent: DeclareJob, state: JobState, ctx: Context) -> Effects:
        job = self.declared.get(intent.job)
        if job is None:
            return Forget()
        state.made = ""
        return self._define(job, state, ctx.now_ms)

    @on
    def due(self, intent: JobDue, state: JobState, ctx: Context) -> Effects:
        job = self._find(intent.job, state)
        if job is None:  # the topology has it no more
            return [*_cancels(state), Forget()]
        if state.paused or state.next_ms is None:
            return None
        now_ms = ctx.now_ms
        due = job.due(state.next_ms - 1, now_ms)
        if not due:
            return _tick(job, state, now_ms)
        chosen = job.choose(due, now_ms)
        state.missed += len(due) - len(chosen)
        if job.limit is not None:
            chosen = chosen[: job.limit - state.taken]
        state.taken += len(chosen)
        state.last_ms = due[-1]
        state.next_ms = job.next_ms(due[-1]) if job.limit is None or state.taken < job.limit else None
        return [*(_begin(job, nominal_ms, "time") for nominal_ms in chosen), *_tick(job, state, now_ms)]

    @on
    def run(self, intent: RunJob, state: JobState, ctx: Context) -> Effects:
        job = self._find(intent.job, state)
        nominal_ms, attempt = intent.nominal_ms, intent.attempt
        if job is None or (attempt > 1 and nominal_ms not in state.running):
            return None  # removed, or cancelled
        effects: list[Effect] = []
        cancels = None
        if attempt == 1:
            if state.running and job.overlap in {"skip", "buffer_one"}:
                _hold_back(job, state, intent)
                return None
            if state.running and job.overlap == "cancel":
                cancels = utc(max(state.running))
                effects += _end_all(state)
            state.begun += 1
            if intent.cause == "time":
                state.late_ms = ctx.now_ms - nominal_ms - job.delay_ms(nominal_ms)
                state.latest_ms = max(state.latest_ms, state.late_ms)
        run = JobRun(job.name, utc(nominal_ms), attempt, intent.cause, cancels, ctx)
        try:
            effects += effects_of(job, run)
        except Exception as error:  # noqa: BLE001 - whatever a job raises, its times go on
            return [*effects, *_failed(job, state, nominal_ms, attempt, f"{type(error).__name__}: {error}")]
        if not job.reports:
            return [*effects, *_over(job, state, nominal_ms)]
        assert job.bound_ms is not None
        state.running[nominal_ms] = attempt
        bound = EndRun(job=job.name, nominal_ms=nominal_ms)
        effects.append(
            Schedule(
                bound, after=job.bound_ms / 1000, name=_bound_name(nominal_ms), id=f"{run_name(job, nominal_ms)}:bound"
            )
        )
        return effects

    @on
    def ended(self, intent: JobEnded, state: JobState, ctx: Context) -> Effects:
        job = self._known(intent.job, state)
        nominal_ms = round(intent.nominal.timestamp() * 1000)
        attempt = state.running.get(nominal_ms)
        if attempt is None:
            return None
        if intent.failed:
            return [Cancel(_bound_name(nominal_ms)), *_failed(job, state, nominal_ms, attempt, intent.reason)]
        return [Cancel(_bound_name(nominal_ms)), *_over(job, state, nominal_ms)]

    @on
    def bound(self, intent: EndRun, state: JobState, ctx: Context) -> Effects:
        job = self._find(intent.job, state)
        if job is None or intent.nominal_ms not in state.running:
            return None
        state.overdue += 1
        reason = f"it has not ended {(job.bound_ms or 0) / 1000:g} s after it began"
        return [
            _violation(job, intent.nominal_ms, "time_bound_exceeded", reason),
            *_over(job, state, intent.nominal_ms),
        ]

    # -- what is asked for ---------------------------------------------------------------------------------------------

    @on
    def schedule(self, intent: ScheduleJob, state: JobState, ctx: Context) -> Effects:
        if intent.job in self.declared:
            raise UnknownJobError(f"the topology declares the job {intent.job!r} itself: choose another name")
        state.made = intent.model_dump_json(exclude={"job"}, exclude_defaults=True)
        job = type(self).build(intent.job, state.made)
        return [*self._define(job, state, ctx.now_ms), _told(intent.job, state)]

    @on
    def unschedule(self, intent: UnscheduleJob, state: JobState, ctx: Context) -> Effects:
        if intent.job in self.declared:
            raise UnknownJobError(
                f"the topology declares the job {intent.job!r} itself: pause it, or take it out there"
            )
        self._known(intent.job, state)
        return [*_cancels(state), Forget(), Reply({"job": intent.job})]

    @on
    def pause(self, intent: PauseJob, state: JobState, ctx: Context) -> Effects:
        self._known(intent.job, state)
        state.paused = True
        return [Cancel(_TICK), _told(intent.job, state)]

    @on
    def resume(self, intent: ResumeJob, state: JobState, ctx: Context) -> Effects:
        job = self._known(intent.job, state)
        if state.paused:
            state.paused = False
            if state.next_ms is not None:
                state.next_ms = job.next_ms(max(state.next_ms, ctx.now_ms) - 1)
        return [*_tick(job, state, ctx.now_ms), _told(intent.job, state)]

    @on
    def trigger(self, intent: TriggerJob, state: JobState, ctx: Context) -> Effects:
        job = self._known(intent.job, state)
        return [_begin(job, ctx.now_ms, "trigger"), _told(intent.job, state)]

    @on
    def backfill(self, intent: BackfillJob, state: JobState, ctx: Context) -> Effects:
        job = self._known(intent.job, state)
        state.backfill_ms = None
        state.backfilled_ms = round(intent.start.timestamp() * 1000) - 1
        state.backfill_end_ms = round(intent.end.timestamp() * 1000)
        return [*_go_on(job, state), _told(intent.job, state)]

    @on
    def cancel(self, intent: CancelJob, state: JobState, ctx: Context) -> Effects:
        self._known(intent.job, state)
        state.waiting_ms = state.backfill_ms = state.backfill_end_ms = None
        return [*_end_all(state), _told(intent.job, state)]

    # -- what it is about ----------------------------------------------------------------------------------------------

    def _find(self, name: str, state: JobState) -> Job | None:
        job = self.declared.get(name)
        return type(self).build(name, state.made) if job is None and state.made else job

    def _known(self, name: str, state: JobState) -> Job:
        job = self._find(name, state)
        if job is None:
            raise UnknownJobError(f"there is no job {name!r}{nearest(name, self.declared)}")
        return job

    @staticmethod
    def _define(job: Job, state: JobState, now_ms: int) -> list[Effect]:
        if state.definition != job.definition:
            state.definition = job.definition
            done = job.limit is not None and state.taken >= job.limit
            state.next_ms = None if done else job.next_ms(max(now_ms - 1, state.last_ms or 0))
        return [] if state.paused else _tick(job, state, now_ms)


def _tick(job: Job, state: JobState, now_ms: int) -> list[Effect]:
    """The timer of the next time; none if there is none."""
    if state.next_ms is None:
        return [Cancel(_TICK)]
    due_ms = state.next_ms + job.delay_ms(state.next_ms)
    at = utc(min(due_ms, now_ms + _FARTHEST_MS))
    return [Schedule(JobDue(job=job.name), at=at, name=_TICK, id=f"{run_name(job, state.next_ms)}:due", time=at)]


def _begin(job: Job, nominal_ms: int, cause: Cause, attempt: int = 1, after_ms: int = 0) -> Effect:
    run = RunJob(job=job.name, nominal_ms=nominal_ms, cause=cause, attempt=attempt)
    return Schedule(
        run,
        after=after_ms / 1000,
        name=f"run {nominal_ms}",
        id=run_name(job, nominal_ms),
        time=utc(nominal_ms),
    )


def _hold_back(job: Job, state: JobState, intent: RunJob) -> None:
    """Another run is under way."""
    if intent.cause == "backfill":
        state.backfill_ms = None
        state.backfilled_ms = intent.nominal_ms - 1
    elif job.overlap == "buffer_one" and state.waiting_ms is None:
        state.waiting_ms = intent.nominal_ms
    else:
        state.skipped += 1


def _failed(job: Job, state: JobState, nominal_ms: int, attempt: int, reason: str) -> list[Effect]:
    if job.retry is not None and attempt < job.retry.attempts:
        state.running[nominal_ms] = attempt
        return [_begin(job, nominal_ms, _cause(job, state, nominal_ms), attempt + 1, job.retry.delay_ms(attempt))]
    state.failed += 1
    return [_violation(job, nominal_ms, "run_failed", reason), *_over(job, state, nominal_ms)]


def _cause(job: Job, state: JobState, nominal_ms: int) -> Cause:
    """Why a run began."""
    if nominal_ms == state.backfill_ms:
        return "backfill"
    return "time" if job.next_ms(nominal_ms - 1) == nominal_ms else "trigger"


def _over(job: Job, state: JobState, nominal_ms: int) -> list[Effect]:
    """A run has ended: what waited for that."""
    state.running.pop(nominal_ms, None)
    if state.backfill_ms == nominal_ms:
        state.backfill_ms = None
    return _go_on(job, state)


def _go_on(job: Job, state: JobState) -> list[Effect]:
    if state.running and job.overlap != "allow":
        return []
    if state.waiting_ms is not None:
        nominal_ms, state.waiting_ms = state.waiting_ms, None
        return [_begin(job, nominal_ms, "time")]
    if state.backfill_end_ms is None or state.backfill_ms is not None:
        return []
    next_ms = job.next_ms(state.backfilled_ms)
    if next_ms is None or next_ms >= state.backfill_end_ms:
        state.backfill_end_ms = None
        return []
    state.backfill_ms = state.backfilled_ms = next_ms
    return [_begin(job, next_ms, "backfill")]


def _end_all(state: JobState) -> list[Effect]:
    """Take the runs that are under way for over."""
    cancels = [Cancel(name) for nominal_ms in state.running for name in _timers_of(nominal_ms)]
    state.cancelled += len(state.running)
    state.running.clear()
    return [*cancels]


def _cancels(state: JobState) -> list[Effect]:
    """Take all timers away."""
    names = chain.from_iterable(_timers_of(nominal_ms) for nominal_ms in state.running)
    return [Cancel(_TICK), *map(Cancel, names)]


def _timers_of(nominal_ms: int) -> tuple[str, str]:
    return f"run {nominal_ms}", _bound_name(nominal_ms)


def _bound_name(nominal_ms: int) -> str:
    return f"bound {nominal_ms}"


def _violation(job: Job, nominal_ms: int, code: str, reason: str) -> Effect:
    violation = JobViolation.model_validate(
        {"job": job.name, "nominal": utc(nominal_ms), "code": code, "reason": reason[:1000]}
    )
    return Emit(violation, id=f"{run_name(job, nominal_ms)}:violation")


def _told(name: str, state: JobState) -> Effect:
    next_ = None if state.next_ms is None or state.paused else utc(state.next_ms).isoformat()
    return Reply({"job": name, "paused": state.paused, "next": next_})


def jobs(
    *declared: Job,
    service: Service,
    emits: Sequence[type[Intent]] = (),
    calendars: Mapping[str, Calendar] = MappingProxyType({}),
) -> Part:
    """Jobs as a part of a topology, which may have one such part.

    They act under *service*, whose grants must cover what they emit. *emits* are the intent types that they emit and no reactor
    of the topology handles; jobs that are made at run time may send these and the functions of those that are *declared*, and
    name *calendars*.

    ::

        Topology("flights", [Fleet], parts=[jobs(nightly, service=Service(7, ["FlightCap.count:/**"]))])

    Raises:
        DefinitionError: two jobs have one name.
    """
    by_name = {job.name: job for job in declared}
    if len(by_name) < len(declared):
        names = [job.name for job in declared]
        raise DefinitionError(
            "jobs", [f"two jobs are called {name!r}" for name in sorted(by_name) if names.count(name) > 1]
        )
    runs = {job.name: job.run for job in declared}
    types = {kind.__intent__.type: kind for kind in emits}

    @lru_cache(maxsize=4096)
    def made(name: str, form: str) -> Job:
        return job_of(name, JobForm.model_validate_json(form), runs, types, calendars)

    class DeclaredJobs(Jobs, id="jobs"):
        declared = MappingProxyType(by_name)
        build = staticmethod(made)

    return Part(
        name="jobs",
        reactors=(DeclaredJobs,),
        emits=(JobViolation, *emits),
        services={"jobs": Service(service.key, [*service.grants, TemporalCap.run("/**")])},
        starts=tuple(DeclareJob(job=name) for name in by_name),
    )
