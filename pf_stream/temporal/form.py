"""Jobs as data: what an intent or a topology file says of one."""

from collections.abc import Mapping
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from pf_stream.errors import DefinitionError
from pf_stream.model._names import nearest
from pf_stream.model.failure import RetryLater
from pf_stream.model.intent import Intent
from pf_stream.model.when import Calendar
from pf_stream.temporal.declaration import Job, Misfire, Overlap, Run, job, sends

__all__ = ["JobForm", "RetryForm", "job_of"]


class RetryForm(BaseModel):
    """When a run that failed is done again, as :class:`pf_stream.RetryLater` has it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    attempts: int = 5
    """How often it is run in all."""
    backoff_s: float = 1.0
    """Seconds until the second attempt; twice as long before each further one."""
    max_backoff_s: float = 60.0
    """Longest pause between two attempts, in seconds."""


class JobForm(BaseModel):
    """What is said of a job: what it does, and the arguments of :func:`pf_stream.temporal.job`, as text."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    run: str | None = None
    """The job whose function it runs; either this or *intent*."""
    intent: str | None = None
    """Type of the intent that it sends each time, such as ``flights.count.v1``."""
    payload: dict[str, JsonValue] = Field(default_factory=dict)
    """That intent's fields."""
    every: str | None = None
    """A period such as ``10m``; either this or *cron*."""
    cron: str | None = None
    """A cron expression such as ``0 2 * * *``."""
    tz: str = "UTC"
    """IANA name of the zone of the cron expression."""
    during: str | None = None
    """Times that are left in, such as ``mon-fri 09:00-17:00 Europe/London`` or ``calendar office``."""
    exclude: str | None = None
    """Times that are left out."""
    start: AwareDatetime | None = None
    """The first time is this or later."""
    end: AwareDatetime | None = None
    """Every time is before this."""
    limit: int | None = None
    """How often it runs by its timetable."""
    jitter: str | None = None
    """Runs begin up to so much later."""
    misfire: Misfire = "once"
    """What of the times that passed while nobody could run it."""
    most: int = 100
    """How many of them at most by the policy ``all``."""
    tolerance: str = "60s"
    """How late a run may begin without being misfired."""
    catch_up: str | None = None
    """How late a run may begin at all."""
    overlap: Overlap = "allow"
    """What of a run that is to begin while another one has not ended."""
    reports: bool = False
    """Whether a run has ended only when a ``JobEnded`` says so."""
    bound: str | None = None
    """How long such a run may take."""
    retry: RetryForm | None = None
    """When a run that failed is done again."""


def job_of(
    name: str,
    form: JobForm,
    runs: Mapping[str, Run],
    types: Mapping[str, type[Intent]],
    calendars: Mapping[str, Calendar],
) -> Job:
    """The job that *form* describes, of what may be run (by name) and sent (by type), with these calendars.

    Raises:
        DefinitionError: with every fault.
    """
    faults: list[str] = []
    run = _run(form, runs, types, faults)
    said: dict[str, Any] = form.model_dump(exclude={"run", "intent", "payload", "retry"})
    made = None
    try:
        if form.retry is not None:
            said["retry"] = RetryLater(**form.retry.model_dump())
        made = job(name=name, calendars=calendars, **said)(run or _nothing)
    except DefinitionError as error:
        faults += error.faults
    if faults or made is None:
        raise DefinitionError(f"job {name!r}", faults)
    return made


def _nothing(_: object) -> None:
    return None


def _run(form: JobForm, runs: Mapping[str, Run], types: Mapping[str, type[Intent]], faults: list[str]) -> Run | None:
    if (form.run is None) == (form.intent is None):
        faults.append("say what it does: run, the name of a declared job, or intent, the type of what it sends")
    elif form.run is not None:
        if form.run in runs:
            return runs[form.run]
        faults.append(f"there is no job {form.run!r} to run{nearest(form.run, runs)}")
    elif form.intent is not None:
        kind = types.get(form.intent)
        if kind is None:
            faults.append(f"there is no intent {form.intent!r} to send{nearest(form.intent, types)}")
        else:
            try:
                return sends(kind.model_validate(form.payload))
            except ValidationError as error:
                faults += [
                    f"payload: {'.'.join(map(str, fault['loc']))}: {fault['msg']}"
                    for fault in error.errors(include_url=False, include_context=False)
                ]
    return None
