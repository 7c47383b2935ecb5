"""What jobs are told, and what they tell. All of it is keyed by the job's name."""

from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, Field

from pf_stream.model.capability import PUBLIC, Capability, operation
from pf_stream.model.intent import Intent, Key
from pf_stream.temporal.declaration import Cause
from pf_stream.temporal.form import JobForm

__all__ = [
    "BackfillJob",
    "CancelJob",
    "DeclareJob",
    "EndRun",
    "JobDue",
    "JobEnded",
    "JobViolation",
    "PauseJob",
    "ResumeJob",
    "RunJob",
    "ScheduleJob",
    "TemporalCap",
    "TriggerJob",
    "UnscheduleJob",
]

_TOPIC: Final = "jobs"
"""Of its own, so that jobs are a group of their own, whose lanes are theirs alone."""

JobName = Annotated[str, Key, Field(pattern=r"^[a-z][a-z0-9_.-]{0,99}$")]


class TemporalCap(Capability):
    """What may be done with jobs: ``/{job}``."""

    schedule = operation()
    """Make and remove jobs at run time."""
    manage = operation()
    """Pause, resume, trigger, backfill and cancel."""
    report = operation()
    """Say that a run has ended."""
    run = operation()
    """Begin runs when they are due: for the service that jobs act under."""


# -- from outside ------------------------------------------------------------------------------------------------------


class ScheduleJob(Intent, JobForm, name="temporal.schedule", topic=_TOPIC, requires=TemporalCap.schedule("/{job}")):
    """Make a job, or change one that was made so. It acts under the service of the topology's jobs."""

    job: JobName


class UnscheduleJob(Intent, name="temporal.unschedule", topic=_TOPIC, requires=TemporalCap.schedule("/{job}")):
    """Remove a job that was made at run time."""

    job: JobName


class PauseJob(Intent, name="temporal.pause", topic=_TOPIC, requires=TemporalCap.manage("/{job}")):
    """Let no time of the job begin a run, until it is resumed."""

    job: JobName


class ResumeJob(Intent, name="temporal.resume", topic=_TOPIC, requires=TemporalCap.manage("/{job}")):
    """Go on with the next time; those that passed meanwhile are left out."""

    job: JobName


class TriggerJob(Intent, name="temporal.trigger", topic=_TOPIC, requires=TemporalCap.manage("/{job}")):
    """Run the job now, paused or not. The run is for the time at which this is handled."""

    job: JobName


class BackfillJob(Intent, name="temporal.backfill", topic=_TOPIC, requires=TemporalCap.manage("/{job}")):
    """Run the job for all its times from *start* until before *end*, one after the other; in place of a backfill before."""

    job: JobName
    start: AwareDatetime
    end: AwareDatetime


class CancelJob(Intent, name="temporal.cancel", topic=_TOPIC, requires=TemporalCap.manage("/{job}")):
    """Take all runs that are under way for over, and do none that waits, a backfill's included."""

    job: JobName


class JobEnded(Intent, name="temporal.ended", topic=_TOPIC, requires=TemporalCap.report("/{job}")):
    """A run of a job that reports has ended."""

    job: JobName
    nominal: AwareDatetime
    """Which run: its nominal time."""
    failed: bool = False
    """Whether it failed; it may be done again then."""
    reason: str = ""
    """Why."""


# -- within ------------------------------------------------------------------------------------------------------------


class DeclareJob(Intent, name="temporal.declare", topic=_TOPIC, requires=TemporalCap.run("/{job}")):
    """The topology has this job: what its lane is told when it begins."""

    job: JobName


class JobDue(Intent, name="temporal.due", topic=_TOPIC, requires=TemporalCap.run("/{job}")):
    """It is time."""

    job: JobName


class RunJob(Intent, name="temporal.run", topic=_TOPIC, requires=TemporalCap.run("/{job}")):
    """Begin a run."""

    job: JobName
    nominal_ms: int
    cause: Cause = "time"
    attempt: int = 1


class EndRun(Intent, name="temporal.bound", topic=_TOPIC, requires=TemporalCap.run("/{job}")):
    """The time that a run may take is over."""

    job: JobName
    nominal_ms: int


# -- to whom it concerns -----------------------------------------------------------------------------------------------


class JobViolation(Intent, name="temporal.violation", topic="violations", requires=PUBLIC):
    """A run of a job failed for good, or did not end in time."""

    job: JobName
    nominal: AwareDatetime
    """Which run: its nominal time."""
    code: Literal["run_failed", "time_bound_exceeded"]
    """What happened."""
    reason: str
    """In words."""
