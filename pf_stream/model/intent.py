"""Intents: what somebody wants done, as a validated, immutable record."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from types import NoneType
from typing import Any, ClassVar, get_args

import orjson
from pydantic import BaseModel, ConfigDict

from pf_stream.errors import DefinitionError
from pf_stream.model._names import nearest
from pf_stream.model._periods import period_ms
from pf_stream.model.capability import PUBLIC, Public
from pf_stream.model.constraint import Constraint, read_constraints
from pf_stream.model.requirement import Requirement, read_requirements, requirement_faults
from pf_stream.model.versions import Steps, read_steps

__all__ = ["EventTime", "Intent", "IntentSpec", "Key"]

NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")
TOPIC = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,248}")


class _Key:
    """Marks the field, or fields, whose value is the record key: ``tailnum: Annotated[str, Key]``."""

    def __repr__(self) -> str:
        return "Key"


Key = _Key()
"""Annotation of an intent's key field. State lives where the key lives."""


class _EventTime:
    """Marks the field that says when it happened: ``scheduled: Annotated[datetime, EventTime]``."""

    def __repr__(self) -> str:
        return "EventTime"


EventTime = _EventTime()
"""Annotation of the field that is an intent's event time instead of ``ce_time``: a datetime with a zone, or a whole number of
milliseconds since the epoch. Where it is ``None`` or has no zone, ``ce_time`` is, and what a ``ce_time`` may not do it may not:
nobody is from the future."""


@dataclass(frozen=True, slots=True)
class IntentSpec:
    """What is known of an intent type once its class is made."""

    name: str
    """Dotted name without version, such as ``flights.departed``."""
    version: int
    """Version of the payload's shape, 1 or more."""
    requires: tuple[Requirement, ...]
    """Every one of these must hold; empty means ``PUBLIC``."""
    key_fields: tuple[str, ...]
    """Fields that form the record key, in the order of their declaration."""
    topic: str
    """Topic, relative to the topology's namespace unless it has a dot."""
    model: type["Intent"]
    """The class."""
    decode: Callable[[bytes], "Intent"]
    """JSON bytes to a validated intent; raises ``pydantic.ValidationError``."""
    encode: Callable[["Intent"], bytes]
    """Intent to its JSON bytes."""
    key_of: Callable[["Intent"], bytes]
    """The record key: UTF-8 of the one key field, or of the compact JSON array of several."""
    upcasts: Steps
    """The way from older versions of the payload to this one."""
    once_ms: int | None
    """For how long a second intent of the same key, subject and ``ce_id`` is dropped, in milliseconds; ``None``: it is not."""
    constraints: tuple[Constraint, ...] = ()
    """When it may be handled at all; empty: always."""
    event_time: str | None = None
    """The field that is its event time; ``None``: ``ce_time`` is."""
    time_of: Callable[["Intent"], int | None] | None = None
    """What that field says, milliseconds since the epoch; ``None`` for nothing."""

    type: str = field(init=False)
    """Value of the ``ce_type`` header: ``{name}.v{version}``."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", f"{self.name}.v{self.version}")

    @property
    def older_types(self) -> dict[str, int]:
        """Version by ``ce_type`` of what is taken beside :attr:`type` and upcast, the newest first."""
        return {f"{self.name}.v{version}": version for version in range(self.version - 1, self.upcasts.oldest - 1, -1)}


class Intent(BaseModel):
    """Base of all intents. A subclass names its type, its version, its key and what it requires::

        class FlightDeparted(Intent, name="flights.departed", version=1, requires=FlightCap.report("/{carrier}/{origin}")):
            tailnum: Annotated[str, Key]
            carrier: str
            origin: str
            delay: float | None = None

    Keyword arguments of the class statement:

    * ``name``: dotted lower-case name; with ``version`` it forms the record's ``ce_type``.
    * ``version``: raise it when the payload changes its shape, and say with :func:`~pf_stream.upcast` what an older
      payload means now. Default 1.
    * ``requires``: a grant or another requirement (``pf_stream.model.requirement``), a sequence of them that must all hold,
      or ``PUBLIC``. There is no default. Fields may fill a grant's scope, wildcards may not stand in it: an intent is about
      one resource.
    * ``topic``: where intents of this type travel, relative to the topology's namespace. Default ``intents``.
    * ``once``: for how long a second intent of the same key, subject and ``ce_id`` is dropped, such as ``"24h"`` (units
      s, m, h, d). For senders that send again when they do not know whether the first one arrived.
    * ``constraints``: one of :mod:`pf_stream.model.constraint`, or several: when it may be handled, and what becomes of it at
      other times.

    Raises :class:`DefinitionError` at the class statement, with every fault found.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        ser_json_inf_nan="strings",
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )

    __intent__: ClassVar[IntentSpec]

    def __init_subclass__(cls, **_: Any) -> None:
        """Class keywords are read in ``__pydantic_init_subclass__``, once the fields are known."""
        super().__init_subclass__()

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        name: str | None = None,
        version: int = 1,
        requires: Requirement | Sequence[Requirement] | Public | None = None,
        topic: str = "intents",
        once: str | None = None,
        constraints: Constraint | Sequence[Constraint] = (),
        **unknown: Any,
    ) -> None:
        faults: list[str] = []
        for keyword in unknown:
            known = ("name", "version", "requires", "topic", "once", "constraints")
            faults.append(f"unknown class keyword {keyword!r}{nearest(keyword, known)}")
        if name is None:
            faults.append(f'has no name: write class {cls.__name__}(Intent, name="domain.happened", ...)')
        elif not NAME.fullmatch(name):
            faults.append(f"name {name!r} must be dotted lower case, such as 'flights.departed'")
        if version < 1:
            faults.append(f"version {version} must be 1 or more")
        if not TOPIC.fullmatch(topic):
            faults.append(f"topic {topic!r} is not a Kafka topic name")
        upcasts = read_steps("upcast", cls.__name__, version, vars(cls), faults)
        once_ms = None if once is None else period_ms(once)
        if once is not None and once_ms is None:
            faults.append(f"once={once!r} must be a number and a unit, such as '30s', '10m', '24h' or '7d'")
        constrained = read_constraints(constraints)
        if constrained is None:
            faults.append(f"constraints={constraints!r} is no constraint: write only(...), never(...) or within(...)")
        required = _required(cls, requires, faults)
        keys = tuple(field for field, info in cls.model_fields.items() if any(m is Key for m in info.metadata))
        _check_keys(cls, keys, faults)
        times = tuple(field for field, info in cls.model_fields.items() if any(m is EventTime for m in info.metadata))
        _check_times(cls, times, faults)
        if not cls.__pydantic_complete__:
            faults.append(
                "a field's type is not known where the class is made: import it at run time, or define it before"
            )
        if faults:
            raise DefinitionError(f"intent {cls.__module__}.{cls.__qualname__}", faults)
        assert name is not None
        cls.__intent__ = IntentSpec(
            name=name,
            version=version,
            requires=required,
            key_fields=keys,
            topic=topic,
            model=cls,
            # The validator and serializer that pydantic made for the class, without its Python wrappers: these two
            # calls are most of what decoding an intent costs.
            decode=cls.__pydantic_validator__.validate_json,
            encode=cls.__pydantic_serializer__.to_json,
            key_of=_key_of(keys),
            upcasts=upcasts,
            once_ms=once_ms,
            constraints=constrained or (),
            event_time=times[0] if times else None,
            time_of=_time_of(times[0]) if times else None,
        )


def _required(
    cls: type[Intent], requires: Requirement | Sequence[Requirement] | Public | None, faults: list[str]
) -> tuple[Requirement, ...]:
    if requires is PUBLIC:
        return ()
    if requires is None:
        faults.append(
            "declares no requirement: add requires=SomeCap.operation('/scope') or, if anybody may send it, requires=PUBLIC"
        )
        return ()
    required = read_requirements(requires)
    if required is None:
        faults.append(f"requires={requires!r} is no capability: write SomeCap.operation('/scope') or PUBLIC")
        return ()
    for requirement in required:
        faults.extend(requirement_faults(requirement, cls.model_fields))
    return required


def _check_keys(cls: type[Intent], keys: tuple[str, ...], faults: list[str]) -> None:
    if not keys:
        first = next(iter(cls.model_fields), "id")
        faults.append(f"has no key: mark the field that state is kept by, such as {first}: Annotated[str, Key]")
    for key in keys:
        annotation = cls.model_fields[key].annotation
        if annotation not in (str, int):
            shown = getattr(annotation, "__name__", None) if not get_args(annotation) else annotation
            faults.append(f"key field {key!r} must be a str or an int, not {shown}")


def _check_times(cls: type[Intent], times: tuple[str, ...], faults: list[str]) -> None:
    if len(times) > 1:
        faults.append(f"has several event times, {', '.join(times)}: mark one of them")
    for name in times:
        annotation = cls.model_fields[name].annotation
        kinds = set(get_args(annotation) or (annotation,)) - {NoneType}
        if not kinds or not kinds <= {datetime, int}:
            shown = getattr(annotation, "__name__", None) if not get_args(annotation) else annotation
            faults.append(
                f"event time {name!r} must be a datetime, or an int of milliseconds since the epoch, not {shown}"
            )


def _time_of(field: str) -> Callable[[Intent], int | None]:
    get = attrgetter(field)

    def time_ms(intent: Intent) -> int | None:
        value: datetime | int | None = get(intent)
        if not isinstance(value, datetime):
            return value
        return None if value.tzinfo is None else round(value.timestamp() * 1000)

    return time_ms


def _key_of(fields: tuple[str, ...]) -> Callable[[Intent], bytes]:
    get = attrgetter(*fields)
    if len(fields) == 1:
        return lambda intent: str(get(intent)).encode()
    # An array, because no separator is safe: ("a/b", "c") and ("a", "b/c") are different keys.
    return lambda intent: orjson.dumps([str(value) for value in get(intent)])
