"""What a topology file may say, and the words for what is not allowed."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag
from pydantic_core import ErrorDetails

from pf_stream.model._names import nearest
from pf_stream.model.service import MAX_KID
from pf_stream.model.topology import Guarantee, Store
from pf_stream.streams.form import FORMS, INNER, LIST, MAPPING, STAGES, TEXT, WINDOWS, PipelineForm, shape
from pf_stream.temporal.form import JobForm

__all__ = [
    "CalendarForm",
    "JobsForm",
    "ServiceForm",
    "TopologyFile",
    "Where",
    "allowed",
    "explain",
    "shown",
    "where_of",
]

Where: TypeAlias = tuple[str | int, ...]
"""Place of a field: the keys and indexes that lead to it."""

_KEY: Final = "[key]"
"""How pydantic ends the place of a fault that is in the key itself."""
_TAGS: Final = {_KEY, TEXT, MAPPING, LIST, *FORMS}
"""What pydantic puts into the place of a fault that is not in the file."""


def _day(item: object) -> object:
    return date.fromisoformat(item) if isinstance(item, str) else item


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class CalendarForm(_Form):
    """A calendar."""

    zone: str
    """IANA name of the zone whose days the holidays are."""
    open: list[str] = Field(min_length=1)
    """When it is open: whenever one of these times is, each such as ``mon-fri 09:00-17:00 Europe/London``."""
    holidays: list[Annotated[date, BeforeValidator(_day)]] = []
    """Days on which it is closed."""


class ServiceForm(_Form):
    """A reactor that emits under an identity of its own instead of its callers'."""

    reactor: str
    """Its class, ``module:Class``."""
    as_: Literal["service"] = Field(alias="as")
    """What it is."""
    key: int = Field(ge=0, le=MAX_KID)
    """The kid of the key that signs for it; the worker gets the file by ``--service-key``."""
    grants: list[str] = Field(min_length=1)
    """What it may do, each ``Family.operation:/scope``."""


class JobsForm(_Form):
    """Jobs, and the identity under which they act."""

    key: int = Field(ge=0, le=MAX_KID)
    """The kid of the key that signs for them; the worker gets the file by ``--service-key``."""
    grants: list[str] = Field(min_length=1)
    """What they may do, each ``Family.operation:/scope``."""
    declared: list[str] = []
    """Jobs that are declared in Python, each ``module:name``."""
    made: dict[str, JobForm] = {}
    """By name, jobs that send an intent of the topology, or run the function of a declared one."""


_Reactor: TypeAlias = Annotated[Annotated[str, Tag(TEXT)] | Annotated[ServiceForm, Tag(MAPPING)], Discriminator(shape)]
_Requirement: TypeAlias = Annotated[
    Annotated[str, Tag(TEXT)] | Annotated[list[str], Field(min_length=1), Tag(LIST)], Discriminator(shape)
]


class TopologyFile(_Form):
    """What a topology file may say."""

    name: str
    """Name of the application: its consumer group, and the first part of its changelogs."""
    capabilities: dict[str, dict[str, list[str]]] = {}
    """Families of operations, each operation with those that it implies: of its family, or ``OtherCap.operation``."""
    calendars: dict[str, CalendarForm] = {}
    """Calendars that requirements, constraints and tokens may name."""
    reactors: list[_Reactor] = []
    """Reactor classes, each ``module:Class``, or the mapping of a service."""
    requires: dict[str, Annotated[list[_Requirement], Field(min_length=1)]] = {}
    """By an intent's name, what is required beside what the type and its handlers require; of a list in it, one is enough."""
    constraints: dict[str, Annotated[list[str], Field(min_length=1)]] = {}
    """By an intent's name, or ``*``, when it is handled, beside what the type and its handlers say."""
    namespace: str | None = None
    """First part of topic names; the topology's name if not given."""
    jobs: JobsForm | None = None
    """What is done at times."""
    internal: list[str] = []
    """Topics within the namespace that only this topology writes."""
    emits: list[str] = []
    """Intent types, each ``module:Class``, that reactors emit and none of them handles."""
    streams: dict[str, PipelineForm] = {}
    """By name, pipelines that are declared here."""
    parts: list[str] = []
    """Pipelines and other parts, each ``module:name``, whose reactors, topics, types and services are added."""
    sinks: list[str] = []
    """Consumers of what it writes to internal topics, each ``module:name`` of a :class:`~pf_stream.Sink`."""
    tables: list[str] = []
    """Tables that each worker reads whole, each ``module:name`` of a :class:`~pf_stream.GlobalTable`."""
    replies: list[str] = []
    """Patterns of topics that replies may go to, within the namespace unless they have a dot."""
    partitions: int = 4
    """Partitions of each topic that ``pf topics create`` makes."""
    version: int = 1
    """The topology's own version, which its changelogs keep and messages show."""
    retired: list[str] = []
    """Ids of reactors that it had before, whose state is kept."""
    guarantee: Guarantee = "effectively_once"
    """How micro-batches are committed: effectively_once, or transactional for readers that use read_committed."""
    store: Store = "memory"
    """Where workers keep states: in memory, or in rocksdb, on a disk of each worker's own."""
    standby: int = 0
    """How many further workers follow each lane, to take over where its own worker ended."""


_ALLOWED: Final = {
    "name": "a text such as flights",
    "capabilities": "families such as FileCap, each with its operations",
    "capabilities.*": "operations such as read, each with a list of those that it implies",
    "capabilities.*.*": "a list of operations that it implies, such as [] or [read]",
    "capabilities.*.*.*": "an operation such as read, or OtherCap.read",
    "calendars": "calendars such as office, each with zone, open and holidays",
    "calendars.*": "a mapping with zone, open and, if there are any, holidays",
    "calendars.*.zone": "an IANA name such as Europe/London",
    "calendars.*.open": "a list of times such as mon-fri 09:00-17:00 Europe/London",
    "calendars.*.holidays": "a list of days such as 2026-12-25",
    "reactors": "a list of module:Class",
    "reactors.*": "module:Class, or a mapping with reactor, as, key and grants",
    "reactors.*.reactor": "a text, module:Class",
    "reactors.*.as": "service",
    "reactors.*.key": f"the kid of the key that signs for it, 0 to {MAX_KID}",
    "reactors.*.grants": "a list of grants such as AirportCap.count:/**",
    "requires": "names of intents such as flights.departed, each with a list of requirements",
    "requires.*": "a list of requirements such as FlightCap.report:/{carrier}",
    "requires.*.*": "a text such as FlightCap.report:/{carrier}, or a list of such, of which one is enough",
    "requires.*.*.*": "a text such as FlightCap.report:/{carrier}",
    "constraints": "names of intents such as flights.departed, or '*', each with a list of constraints",
    "constraints.*": "a list of constraints such as only mon-fri 09:00-17:00 Europe/London",
    "constraints.*.*": "a text such as only mon-fri 09:00-17:00 Europe/London, or within 15m",
    "jobs": "a mapping with key, grants, declared and made",
    "jobs.key": f"the kid of the key that signs for them, 0 to {MAX_KID}",
    "jobs.grants": "a list of grants such as FlightCap.count:/**",
    "jobs.declared": "a list of module:name",
    "jobs.made": "names such as nightly, each with what that job does and when",
    "jobs.made.*": "a mapping with run or intent, and with every or cron",
    "jobs.made.*.*": "what an argument of pf_stream.temporal.job may be",
    "streams": "names of pipelines such as hourly, each with its ways",
    "streams.*": "a mapping with ways and, if they are needed, service and on_error",
    "streams.*.ways": "names such as flights, each with a list of stages",
    "streams.*.ways.*": "a list of stages, the first of which is from",
    "streams.*.ways.*.*": f"a stage, one of {', '.join(STAGES)}",
    "streams.*.ways.*.*.window": f"a mapping with one of {', '.join(WINDOWS)}",
    "streams.*.ways.*.*.*": "what an argument of that stage may be, see docs/streams.md",
    "streams.*.service": "a mapping with key and grants",
    "streams.*.service.key": f"the kid of the key that signs for it, 0 to {MAX_KID}",
    "streams.*.service.grants": "a list of grants such as FlightCap.report:/**",
    "streams.*.on_error": "a mapping with retry_later or retry_in_place",
    "namespace": "a text such as flights",
    "internal": "a list of topics within the namespace",
    "emits": "a list of module:Class",
    "parts": "a list of module:name",
    "sinks": "a list of module:name",
    "tables": "a list of module:name",
    "replies": "a list of topic patterns such as replies, or replies-*",
    "partitions": "a whole number, 1 or more",
    "version": "a whole number, 1 or more",
    "retired": "a list of reactor ids",
    "guarantee": "effectively_once or transactional",
    "store": "memory or rocksdb",
    "standby": "a whole number, 0 or more",
}
"""By place, in which ``*`` stands for any name or index; what is not there is what a list of the place above holds."""

_NAMES: Final = {
    "capabilities": "FileCap or read",
    "calendars": "office",
    "requires": "flights.departed",
    "constraints": "flights.departed",
    "streams": "hourly",
}
"""By field, names that its keys may have."""

_INNER: Final[Mapping[str | int, type[BaseModel]]] = {
    "calendars": CalendarForm,
    "reactors": ServiceForm,
    "jobs": JobsForm,
}
"""By field, the form of the mappings in it."""


def where_of(detail: ErrorDetails) -> Where:
    """The place of a fault in the file."""
    return tuple(part for part in detail["loc"] if part not in _TAGS)


def explain(detail: ErrorDetails) -> str:
    """What was found there, and what is allowed."""
    where = where_of(detail)
    field = where[0]
    if detail["type"] in {"extra_forbidden", "invalid_key"}:
        fields = (info.alias or name for name, info in _form_at(detail).model_fields.items())
        return f"there is no field {where[-1]!r}{nearest(str(where[-1]), fields)}"
    if detail["type"] == "union_tag_not_found" and isinstance(detail["input"], Mapping) and len(detail["input"]):
        known, what = (WINDOWS, "window") if where[-1] == "window" else (STAGES, "stage")
        said = next(iter(detail["input"]))
        return f"there is no {what} {said!r}{nearest(str(said), known)}"
    if detail["loc"][-1] == _KEY:
        return f"found {shown(detail['input'])}; allowed: a name such as {_NAMES[str(field)]}"
    if detail["type"] == "missing":
        return f"is missing; allowed: {allowed(where)}"
    return f"found {shown(detail['input'])}; allowed: {allowed(where)}"


def _form_at(detail: ErrorDetails) -> type[BaseModel]:
    """The form of the mapping that a field of that name is not in."""
    where = where_of(detail)
    if len(where) == 1:
        return TopologyFile
    if where[0] == "streams":
        above = next(str(part) for part in reversed(detail["loc"][:-1]) if part not in {TEXT, MAPPING, LIST})
        return PipelineForm if len(where) == 3 else FORMS.get(above) or INNER[above]
    return JobForm if where[:2] == ("jobs", "made") else _INNER[where[0]]


def allowed(where: Where) -> str:
    """What may stand at a place."""
    place = str(where[0])
    for part in where[1:]:
        named, any_ = f"{place}.{part}", f"{place}.*"
        if named not in _ALLOWED and any_ not in _ALLOWED:
            return _ALLOWED[place].removeprefix("a list of ")
        place = named if named in _ALLOWED else any_
    return _ALLOWED[place]


def shown(value: object) -> str:
    """What a person sees of a value in a file."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    kinds: dict[type, str] = {bool: "a truth value", int: "a number", float: "a fraction", str: "a text"}
    return next((f"{value!r}, {name}" for kind, name in kinds.items() if isinstance(value, kind)), repr(value))
