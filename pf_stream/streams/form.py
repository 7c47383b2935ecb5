"""Pipelines as data: what a topology file says of one.

What becomes of it is in :mod:`pf_stream.streams.declared`; here is nothing of what stages do.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, JsonValue, Tag

from pf_stream.model.service import MAX_KID
from pf_stream.model.table import MOST_BYTES, BadRow
from pf_stream.streams import windows
from pf_stream.streams._joins import How
from pf_stream.streams.windows import Clock, Window

__all__ = [
    "FORMS",
    "INNER",
    "LIST",
    "MAPPING",
    "STAGES",
    "TEXT",
    "WINDOWS",
    "PipelineForm",
    "Place",
    "shape",
]

Place: TypeAlias = tuple[str | int, ...]
"""Of a field within what is said of a pipeline: the keys and indexes that lead to it."""
Resolve: TypeAlias = Callable[[Place, str], Any]
"""What finds a function by its reference, ``module:name``, that stands at a place of a stage."""


TEXT, MAPPING, LIST = "<text>", "<mapping>", "<list>"
"""What pydantic puts into the place of a fault behind an item that may have several forms: the one that it has."""


def shape(item: object) -> str:
    """Which of them *item* has."""
    return MAPPING if isinstance(item, Mapping) else LIST if isinstance(item, list) else TEXT


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


# -- windows ---------------------------------------------------------------------------------------------------------------


class TumblingForm(_Form):
    """As :func:`pf_stream.streams.tumbling`."""

    tumbling: str
    offset: str = "0s"
    clock: Clock = "event"
    bound: str = "0s"
    grace: str = "0s"

    def window(self, _: Resolve) -> Window:
        return windows.tumbling(self.tumbling, offset=self.offset, clock=self.clock, bound=self.bound, grace=self.grace)


class HoppingForm(_Form):
    """As :func:`pf_stream.streams.hopping`."""

    hopping: str
    every: str
    offset: str = "0s"
    clock: Clock = "event"
    bound: str = "0s"
    grace: str = "0s"

    def window(self, _: Resolve) -> Window:
        return windows.hopping(
            self.hopping,
            every=self.every,
            offset=self.offset,
            clock=self.clock,
            bound=self.bound,
            grace=self.grace,
        )


class SlidingForm(_Form):
    """As :func:`pf_stream.streams.sliding`."""

    sliding: str
    clock: Clock = "event"
    bound: str = "0s"

    def window(self, _: Resolve) -> Window:
        return windows.sliding(self.sliding, clock=self.clock, bound=self.bound)


class SessionForm(_Form):
    """As :func:`pf_stream.streams.session`."""

    session: str
    clock: Clock = "event"
    bound: str = "0s"

    def window(self, _: Resolve) -> Window:
        return windows.session(self.session, clock=self.clock, bound=self.bound)


class CountedForm(_Form):
    """As :func:`pf_stream.streams.counted`."""

    counted: int

    def window(self, _: Resolve) -> Window:
        return windows.counted(self.counted)


class TriggerForm(_Form):
    """What makes a global window tell its result."""

    records: int | None = None
    every: str | None = None
    when: str | None = None
    purge: bool = False


class GlobalForm(_Form):
    """As :func:`pf_stream.streams.global_window`."""

    global_: TriggerForm = Field(alias="global")

    def window(self, resolve: Resolve) -> Window:
        trigger = self.global_
        when = None if trigger.when is None else resolve(("window", "global", "when"), trigger.when)
        return windows.global_window(records=trigger.records, every=trigger.every, when=when, purge=trigger.purge)


# -- stages ----------------------------------------------------------------------------------------------------------------


class FromForm(_Form):
    """Where a way begins: intents by name or as ``module:Class``, or another way; several are merged."""

    from_: Annotated[
        Annotated[str, Tag(TEXT)] | Annotated[list[str], Field(min_length=1), Tag(LIST)], Discriminator(shape)
    ] = Field(alias="from")


class MapForm(_Form):
    """A field, or ``module:name`` of a function."""

    map: str
    returns: str | None = None


class FilterForm(_Form):
    """A field, or ``module:name`` of a function."""

    filter: str


class FlatMapForm(_Form):
    """A field, or ``module:name`` of a function."""

    flat_map: str
    returns: str | None = None


class ThroughForm(_Form):
    """``module:name`` of a transform, or of its class."""

    through: str
    returns: str | None = None


class BranchForm(_Form):
    """The end of a way, and the ways on, each by its name with its condition."""

    branch: dict[str, str] = Field(min_length=1)
    rest: str | None = None


class KeyByForm(_Form):
    """A field, or ``module:name`` of a function."""

    key_by: str


class _Nothing(_Form):
    pass


class ByKeyForm(_Form):
    """Values stay under the key of their intent."""

    by_key: _Nothing


class _Rows(_Form):
    remove: str | None = None


class TableForm(_Form):
    """The end of a way whose values are rows, to be looked up or joined."""

    table: _Rows


class EmissionForm(_Form):
    """As :func:`pf_stream.streams.early`."""

    every: str | None = None
    records: int | None = None


class EarlyForm(_Form):
    """Results on the way."""

    early: EmissionForm


_WINDOW_FORMS: Final[Mapping[str, type[_Form]]] = {
    "tumbling": TumblingForm,
    "hopping": HoppingForm,
    "sliding": SlidingForm,
    "session": SessionForm,
    "counted": CountedForm,
    "global": GlobalForm,
}


def _one_of(known: Mapping[str, type[_Form]]) -> Callable[[object], str | None]:
    def choose(item: object) -> str | None:
        keys = item if isinstance(item, Mapping) else ()
        return next((f"<{name}>" for name in known if name in keys), None)

    return choose


_WindowForm: TypeAlias = Annotated[
    Annotated[TumblingForm, Tag("<tumbling>")]
    | Annotated[HoppingForm, Tag("<hopping>")]
    | Annotated[SlidingForm, Tag("<sliding>")]
    | Annotated[SessionForm, Tag("<session>")]
    | Annotated[CountedForm, Tag("<counted>")]
    | Annotated[GlobalForm, Tag("<global>")],
    Discriminator(_one_of(_WINDOW_FORMS)),
]


class WindowForm(_Form):
    """How the values of a key are cut."""

    window: _WindowForm
    late: str | None = None
    name: str = "window"


class AggregateForm(_Form):
    """What becomes of the values of a window: one aggregate, or several by name."""

    aggregate: Annotated[
        Annotated[str, Tag(TEXT)] | Annotated[dict[str, JsonValue], Tag(MAPPING)], Discriminator(shape)
    ]
    into: str | None = None
    emission: Annotated[
        Annotated[Literal["on_close", "on_update"], Tag(TEXT)] | Annotated[EarlyForm, Tag(MAPPING)],
        Discriminator(shape),
    ] = "on_close"


class JoinForm(_Form):
    """As :meth:`pf_stream.streams.Keyed.join` and :meth:`pf_stream.streams.Table.join`, with another way."""

    join: str
    make: str
    before: str | None = None
    after: str | None = None
    bound: str | None = None
    late: str | None = None
    how: How = "inner"
    returns: str | None = None
    name: str | None = None


class AsOfForm(_Form):
    """As :meth:`pf_stream.streams.Keyed.as_of`, with another way."""

    as_of: str
    make: str
    tolerance: str | None = None
    bound: str = "0s"
    late: str | None = None
    how: Literal["inner", "left"] = "inner"
    returns: str | None = None
    name: str = "as_of"


class LookupForm(_Form):
    """As :meth:`pf_stream.streams.Keyed.lookup`, in another way."""

    lookup: str
    make: str
    how: Literal["inner", "left"] = "inner"
    returns: str | None = None
    name: str = "lookup"


class TableSourceForm(_Form):
    """As :class:`pf_stream.GlobalTable`."""

    topic: str
    of: str
    most_bytes: int = MOST_BYTES
    on_bad: BadRow = "skip"


class EnrichForm(_Form):
    """As :meth:`pf_stream.streams.Stream.enrich`: with a table that is declared in Python, ``module:name``, or here."""

    enrich: Annotated[
        Annotated[str, Tag(TEXT)] | Annotated[TableSourceForm, Tag(MAPPING)],
        Discriminator(shape),
    ]
    by: str
    make: str
    how: Literal["inner", "left"] = "inner"
    returns: str | None = None


class DedupeForm(_Form):
    """A field, or ``module:name`` of a function: what is the same in a repetition."""

    dedupe: str
    within: str
    name: str = "dedupe"


class ThrottleForm(_Form):
    """As :meth:`pf_stream.streams.Keyed.throttle`."""

    throttle: int
    per: str
    name: str = "throttle"


class DebounceForm(_Form):
    """As :meth:`pf_stream.streams.Keyed.debounce`."""

    debounce: str
    name: str = "debounce"


class SampleForm(_Form):
    """As :meth:`pf_stream.streams.Keyed.sample`."""

    sample: str
    name: str = "sample"


class EmitForm(_Form):
    """The end of a way: an intent by name or as ``module:Class``, or ``module:name`` of a function that makes it."""

    emit: str
    fields: dict[str, str] | None = None
    intents: list[str] = []


_STAGE_FORMS: Final[Mapping[str, type[_Form]]] = {
    "from": FromForm,
    "map": MapForm,
    "filter": FilterForm,
    "flat_map": FlatMapForm,
    "through": ThroughForm,
    "branch": BranchForm,
    "key_by": KeyByForm,
    "by_key": ByKeyForm,
    "table": TableForm,
    "window": WindowForm,
    "aggregate": AggregateForm,
    "join": JoinForm,
    "as_of": AsOfForm,
    "lookup": LookupForm,
    "enrich": EnrichForm,
    "dedupe": DedupeForm,
    "throttle": ThrottleForm,
    "debounce": DebounceForm,
    "sample": SampleForm,
    "emit": EmitForm,
}


def _spelled_out(item: object) -> object:
    """A stage of which nothing more is to be said may be its name alone."""
    return {item: {}} if isinstance(item, str) else item


StageForm: TypeAlias = Annotated[
    Annotated[FromForm, Tag("<from>")]
    | Annotated[MapForm, Tag("<map>")]
    | Annotated[FilterForm, Tag("<filter>")]
    | Annotated[FlatMapForm, Tag("<flat_map>")]
    | Annotated[ThroughForm, Tag("<through>")]
    | Annotated[BranchForm, Tag("<branch>")]
    | Annotated[KeyByForm, Tag("<key_by>")]
    | Annotated[ByKeyForm, Tag("<by_key>")]
    | Annotated[TableForm, Tag("<table>")]
    | Annotated[WindowForm, Tag("<window>")]
    | Annotated[AggregateForm, Tag("<aggregate>")]
    | Annotated[JoinForm, Tag("<join>")]
    | Annotated[AsOfForm, Tag("<as_of>")]
    | Annotated[LookupForm, Tag("<lookup>")]
    | Annotated[EnrichForm, Tag("<enrich>")]
    | Annotated[DedupeForm, Tag("<dedupe>")]
    | Annotated[ThrottleForm, Tag("<throttle>")]
    | Annotated[DebounceForm, Tag("<debounce>")]
    | Annotated[SampleForm, Tag("<sample>")]
    | Annotated[EmitForm, Tag("<emit>")],
    Discriminator(_one_of(_STAGE_FORMS)),
    BeforeValidator(_spelled_out),
]


class RetryForm(_Form):
    """As :class:`pf_stream.RetryLater` has it."""

    attempts: int = 5
    backoff_s: float = 1.0
    max_backoff_s: float = 60.0


class OnErrorForm(_Form):
    """What becomes of an intent at which a stage raises; one of them."""

    retry_later: RetryForm | None = None
    retry_in_place: RetryForm | None = None


class PipelineServiceForm(_Form):
    """The identity under which goes what follows from many callers."""

    key: int = Field(ge=0, le=MAX_KID)
    """The kid of the key that signs for it; the worker gets the file by ``--service-key``."""
    grants: list[str] = Field(min_length=1)
    """What it may do, each ``Family.operation:/scope``."""


class PipelineForm(_Form):
    """What is said of a pipeline."""

    ways: dict[str, Annotated[list[StageForm], Field(min_length=1)]] = Field(min_length=1)
    """By name, each a list of stages that begins with ``from``."""
    service: PipelineServiceForm | None = None
    """Under which identity goes what follows from many callers."""
    on_error: OnErrorForm | None = None
    """What becomes of an intent at which a stage raises; a dead letter if not given."""


FORMS: Final[Mapping[str, type[BaseModel]]] = {
    f"<{name}>": form for forms in (_STAGE_FORMS, _WINDOW_FORMS) for name, form in forms.items()
}
"""By what pydantic puts into the place of a fault in a stage or a window, the form of that."""
INNER: Final[Mapping[str, type[BaseModel]]] = {
    "service": PipelineServiceForm,
    "on_error": OnErrorForm,
    "retry_later": RetryForm,
    "retry_in_place": RetryForm,
    "table": _Rows,
    "global": TriggerForm,
    "emission": EarlyForm,
    "early": EmissionForm,
    "enrich": TableSourceForm,
}
"""By field, the forms of the other mappings."""
STAGES: Final = tuple(_STAGE_FORMS)
"""Names of the stages."""
WINDOWS: Final = tuple(_WINDOW_FORMS)
"""Names of the windows."""
