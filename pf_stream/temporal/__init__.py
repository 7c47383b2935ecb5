"""Jobs: what is done at times, under the identity of a service, by nobody's intent. And what is done when: analytics."""

from pf_stream.temporal.analytics import Figures, OperationFigures, analytics
from pf_stream.temporal.declaration import Job, JobRun, job, sends
from pf_stream.temporal.intents import (
    BackfillJob,
    CancelJob,
    JobEnded,
    JobViolation,
    PauseJob,
    ResumeJob,
    ScheduleJob,
    TemporalCap,
    TriggerJob,
    UnscheduleJob,
)
from pf_stream.temporal.reactor import JobState, jobs
from pf_stream.temporal.timetable import Timetable

__all__ = [
    "BackfillJob",
    "CancelJob",
    "Figures",
    "Job",
    "JobEnded",
    "JobRun",
    "JobState",
    "JobViolation",
    "OperationFigures",
    "PauseJob",
    "ResumeJob",
    "ScheduleJob",
    "TemporalCap",
    "Timetable",
    "TriggerJob",
    "UnscheduleJob",
    "analytics",
    "job",
    "jobs",
    "sends",
]
