"""Pipelines of a topology file: the stages that a form names, one after another, as Python says them."""

from collections.abc import Callable, Mapping
from dataclasses import make_dataclass
from operator import attrgetter
from typing import Any, Final, NoReturn, Protocol, TypeAlias, TypeVar, cast

from pf_stream.errors import DefinitionError
from pf_stream.model import GlobalTable, Intent, Part, RetryInPlace, RetryLater, Service, grant
from pf_stream.model._names import nearest
from pf_stream.model.capability import HeldGrant
from pf_stream.streams import windows
from pf_stream.streams._aggregate_forms import aggregate_of
from pf_stream.streams._fields import NoFieldError, is_of, key_at, said, type_at
from pf_stream.streams._nodes import item_of, type_of
from pf_stream.streams.form import (
    AggregateForm,
    AsOfForm,
    BranchForm,
    ByKeyForm,
    DebounceForm,
    DedupeForm,
    EarlyForm,
    EmitForm,
    EnrichForm,
    FilterForm,
    FlatMapForm,
    FromForm,
    JoinForm,
    KeyByForm,
    LookupForm,
    MapForm,
    PipelineForm,
    Place,
    SampleForm,
    TableForm,
    ThrottleForm,
    ThroughForm,
    WindowForm,
)
from pf_stream.streams.pipeline import pipeline
from pf_stream.streams.stream import End, Keyed, Stream, Table, WindowedStream, stream
from pf_stream.streams.transform import Transform
from pf_stream.streams.windows import Emission

__all__ = ["Names", "pipeline_of"]

F = TypeVar("F")
T = TypeVar("T")


class Names(Protocol):
    """What a topology file knows that a pipeline in it names."""

    @property
    def intents(self) -> Mapping[str, type[Intent]]:
        """The intent types of the topology, by name."""
        ...

    def named(self, where: Place, reference: str, base: Any) -> Any:
        """What *reference*, ``module:name``, is; ``None`` if that cannot be had, which is noted as a fault."""
        ...

    def fault(self, where: Place, text: str) -> None:
        """Note what is wrong there."""
        ...


def pipeline_of(name: str, form: PipelineForm, names: Names) -> Part | None:
    """The pipeline that *form* describes; ``None`` if something is wrong with it, all of which is told to *names*."""
    return _Pipeline(name, form, names).part()


class _StopError(Exception):
    """Raised when nothing can be said of what follows on a way."""


Reached: TypeAlias = Stream[Any] | Keyed[Any] | Table[Any] | WindowedStream[Any]

_KINDS: Final[Mapping[type[Any], tuple[str, str]]] = {
    Stream: ("values", "put it before key_by, or behind a stage that brings values"),
    Keyed: ("values under a key", "put key_by or by_key before it"),
    WindowedStream: ("values in windows", "put window before it"),
    Table: ("a table", "let that way end with table"),
}
"""By class, what a stage takes, and what to do where it is not there."""


class _Pipeline:
    def __init__(self, name: str, form: PipelineForm, names: Names) -> None:
        self.name = name
        self.form = form
        self.names = names
        self.ends: list[End] = []
        self.reached: dict[str, Reached | None] = {}
        """By way, and name of a branch, how far it leads; ``None`` if that cannot be said."""
        self.used: set[str] = set()
        self.broken = False
        self._under_way: list[str] = []
        self._branches = {
            branch: way
            for way, stages in form.ways.items()
            for stage in stages
            if isinstance(stage, BranchForm)
            for branch in (*stage.branch, *([] if stage.rest is None else [stage.rest]))
        }
        """By name of a branch, the way that it leaves."""

    def part(self) -> Part | None:
        for way in self.form.ways:
            self.way(("ways", way), way)
        # Where something is wrong, what would have named a way may not have been read.
        unused = [] if self.broken else [name for name in self.reached if name not in self.used]
        for name in unused:
            if self.reached[name] is not None:
                where = ("ways", self._branches.get(name, name))
                self.fault(where, f"{name!r} leads nowhere: let it end in emit, or name it in another way")
        for name in self._branches.keys() & self.form.ways.keys():
            self.fault(
                ("ways", name), f"a branch of {self._branches[name]!r} is called {name!r} too: give it another name"
            )
        service = self._service()
        on_error = self._on_error()
        if self.broken:
            return None
        return self.read((), lambda: pipeline(self.name, *self.ends, service=service, on_error=on_error))

    def way(self, where: Place, name: str) -> Reached | None:
        """How far a way leads, or a branch of one; ``None`` if that cannot be said."""
        way = self._branches.get(name, name)
        if way in self._under_way:
            self.fault(where, f"goes round: {' > '.join([*self._under_way, way])}")
            raise _StopError
        if way not in self.reached:
            self._under_way.append(way)
            self.reached[way] = None
            _Way(self, way).go()
            self._under_way.pop()
        return self.reached.get(name)

    def is_way(self, name: str) -> bool:
        return name in self.form.ways or name in self._branches

    def ways(self) -> list[str]:
        return [*self.form.ways, *self._branches]

    def fault(self, where: Place, text: str) -> None:
        self.broken = True
        self.names.fault(where, text)

    def read(self, where: Place, make: Callable[[], T]) -> T | None:
        """What *make* makes; ``None`` if it says that something is wrong."""
        try:
            return make()
        except DefinitionError as error:
            for text in error.faults:
                self.fault(where, text)
        return None

    def _service(self) -> Service | None:
        form = self.form.service
        if form is None:
            return None
        held = [self._held(("service", "grants", index), text) for index, text in enumerate(form.grants)]
        return (
            None if None in held else self.read(("service",), lambda: Service(form.key, cast("list[HeldGrant]", held)))
        )

    def _held(self, where: Place, text: str) -> HeldGrant | None:
        try:
            return HeldGrant.of(grant(text))
        except DefinitionError as error:
            for fault in error.faults:
                self.fault(where, f"{error.subject}: {fault}")
        return None

    def _on_error(self) -> RetryLater | RetryInPlace | None:
        form = self.form.on_error
        if form is None:
            return None
        where: Place = ("on_error",)
        if form.retry_later is not None and form.retry_in_place is None:
            later = form.retry_later
            return self.read((*where, "retry_later"), lambda: RetryLater(**later.model_dump()))
        if form.retry_in_place is not None and form.retry_later is None:
            in_place = form.retry_in_place
            return self.read((*where, "retry_in_place"), lambda: RetryInPlace(**in_place.model_dump()))
        self.fault(where, "say one of retry_later and retry_in_place, or leave it out")
        return None


class _Way:
    """One way through a pipeline, gone once."""

    def __init__(self, of: _Pipeline, name: str) -> None:
        self.of = of
        self.name = name
        self.where: Place = ("ways", name)
        self.at: Reached | None = None
        """How far it has come."""
        self.window: tuple[str, Keyed[Any] | None] = ("", None)
        """Name of the last window, and the values in it."""

    def go(self) -> None:
        try:
            for index, form in enumerate(self.of.form.ways[self.name]):
                self.where = ("ways", self.name, index)
                if (index == 0) != isinstance(form, FromForm):
                    self.stop((), "a way begins with from, and has no other: a mapping such as from: flights.departed")
                if index and self.at is None:
                    self.stop((), "comes behind the end of the way: take it out")
                self._stage(form)
        except _StopError:
            self.of.broken = True
        except DefinitionError as error:
            for text in error.faults:
                self.of.fault(self.where, text)
        else:
            if self.at is None:
                self.of.reached.pop(self.name)
            else:
                self.of.reached[self.name] = self.at

    # -- what stages need ----------------------------------------------------------------------------------------------

    @property
    def is_broken(self) -> bool:
        return self.of.broken

    def stop(self, place: Place, text: str) -> NoReturn:
        self.of.fault((*self.where, *place), text)
        raise _StopError

    def take(self, kind: type[F], stage: str) -> F:
        """What there is, which must be of that kind."""
        if not isinstance(self.at, kind):
            takes, fix = _KINDS[kind]
            there = next((said for known, (said, _) in _KINDS.items() if isinstance(self.at, known)), "nothing")
            self.stop((stage,), f"{stage} takes {takes}, and here are {there}: {fix}")
        return self.at

    def other(self, stage: str, name: str, *kinds: type[Any]) -> Any:
        """How far another way leads, which must be something of that kind."""
        if not self.of.is_way(name):
            self.stop((stage,), f"there is no way {name!r}{nearest(name, self.of.ways())}")
        self.of.used.add(name)
        found = self.of.way((*self.where, stage), name)
        if found is None:
            if name not in self.of.reached and not self.of.broken:
                self.stop((stage,), f"the way {name!r} ends in emit or branch: name one that does not")
            raise _StopError  # said where that way is
        if not isinstance(found, kinds):
            takes, fix = _KINDS[kinds[0]]
            self.stop((stage,), f"takes {takes}, which the way {name!r} does not lead to: {fix}")
        return found

    def named(self, place: Place, reference: str, base: Any) -> Any:
        found = self.of.names.named((*self.where, *place), reference, base)
        if found is None:
            self.of.broken = True
        return found

    def function(self, place: Place, reference: str) -> Any:
        """The function *reference*; one that does nothing if there is none, so that what follows can be read."""
        return self.named(place, reference, Callable) or _nothing

    def kind(self, place: Place, reference: str | None) -> Any:
        return None if reference is None else self.named(place, reference, type)

    def field(self, place: Place, path: str) -> Any:
        """Type of what is at *path* of the values; ``None`` if it is not known."""
        values = self.window[1] if isinstance(self.at, WindowedStream) else self.at
        assert isinstance(values, Stream | Keyed)  # what else is on a way has no field
        try:
            return type_at(type_of(values.node), path)
        except NoFieldError as error:
            self.of.fault((*self.where, *place), f"{error}; a function is written module:name")
            return None

    def of_value(self, place: Place, text: str, types: tuple[type[Any], ...] = ()) -> tuple[Any, Any]:
        """The function that *text* names, or that tells the field; and the type of what it returns, if it is known."""
        if ":" in text:
            function = self.function(place, text)
            return function, None
        kind = self.field(place, text)
        if types and not is_of(kind, types):
            wanted = " or ".join(sorted(one.__name__ for one in types))
            self.of.fault(
                (*self.where, *place),
                f"{text} is {said(kind)}, and this takes {wanted}: give module:name of a function",
            )
        return attrgetter(text), kind

    def key(self, place: Place, text: str) -> Callable[[Any], str]:
        function, _ = self.of_value(place, text, () if ":" in text else (str, int))
        return cast("Callable[[Any], str]", function if ":" in text else key_at(text))

    def intent(self, place: Place, name: str) -> type[Intent]:
        if ":" in name:
            found = self.named(place, name, Intent)
        else:
            known = self.of.names.intents
            found = known.get(name)
            if found is None:
                near = nearest(name, [*known, *(self.of.ways() if place[0] == "from" else ())])
                self.stop(place, f"the topology has no intent {name!r}{near}; any other is written module:Class")
        if found is None:
            raise _StopError
        return cast("type[Intent]", found)

    # -- the stages ----------------------------------------------------------------------------------------------------

    def _stage(self, form: Any) -> None:
        at: Any
        match form:
            case FromForm():
                names = [form.from_] if isinstance(form.from_, str) else form.from_
                listed = not isinstance(form.from_, str)
                streams = [self._source(("from", i) if listed else ("from",), name) for i, name in enumerate(names)]
                self.at = streams[0].merge(*streams[1:]) if len(streams) > 1 else streams[0]
            case MapForm():
                at = self.take(Stream, "map")
                function, kind = self.of_value(("map",), form.map)
                self.at = at.map(function, self.kind(("returns",), form.returns) or kind)
            case FilterForm():
                at = self.take(Stream, "filter")
                self.at = at.filter(self.of_value(("filter",), form.filter)[0])
            case FlatMapForm():
                at = self.take(Stream, "flat_map")
                function, kind = self.of_value(("flat_map",), form.flat_map)
                self.at = at.flat_map(function, self.kind(("returns",), form.returns) or item_of(kind))
            case ThroughForm():
                at = self.take(Stream, "through")
                found = self.named(("through",), form.through, Transform)
                if found is None:
                    raise _StopError
                self.at = at.through(
                    found() if isinstance(found, type) else found, self.kind(("returns",), form.returns)
                )
            case BranchForm():
                at = self.take(Stream, "branch")
                conditions = [self.of_value(("branch", name), text)[0] for name, text in form.branch.items()]
                branches = at.branch(*conditions)
                for name, one in zip((*form.branch, form.rest), branches, strict=True):
                    if name is not None:
                        self.of.reached[name] = one
                self.at = None
            case KeyByForm():
                at = self.take(Stream, "key_by")
                self.at = at.key_by(self.key(("key_by",), form.key_by))
            case ByKeyForm():
                self.at = self.take(Stream, "by_key").by_key()
            case TableForm():
                at = self.take(Keyed, "table")
                remove = None if form.table.remove is None else self.of_value(("table", "remove"), form.table.remove)[0]
                self.at = at.table(remove=remove)
            case WindowForm():
                at = self.take(Keyed, "window")
                self.window = form.name, at
                self.at = at.window(form.window.window(self.function), late=form.late, name=form.name)
            case AggregateForm():
                self._aggregate(form)
            case JoinForm():
                self._join(form)
            case AsOfForm():
                at, other = self.take(Keyed, "as_of"), self.other("as_of", form.as_of, Keyed)
                self.at = at.as_of(
                    other,
                    self.function(("make",), form.make),
                    tolerance=form.tolerance,
                    bound=form.bound,
                    late=form.late,
                    how=form.how,
                    returns=self.kind(("returns",), form.returns),
                    name=form.name,
                )
            case LookupForm():
                at, other = self.take(Keyed, "lookup"), self.other("lookup", form.lookup, Table)
                self.at = at.lookup(
                    other,
                    self.function(("make",), form.make),
                    how=form.how,
                    returns=self.kind(("returns",), form.returns),
                    name=form.name,
                )
            case EnrichForm():
                self._enrich(form)
            case DedupeForm():
                at = self.take(Keyed, "dedupe")
                self.at = at.dedupe(self.key(("dedupe",), form.dedupe), within=form.within, name=form.name)
            case ThrottleForm():
                self.at = self.take(Keyed, "throttle").throttle(form.throttle, per=form.per, name=form.name)
            case DebounceForm():
                self.at = self.take(Keyed, "debounce").debounce(form.debounce, name=form.name)
            case SampleForm():
                self.at = self.take(Keyed, "sample").sample(form.sample, name=form.name)
            case EmitForm():
                self._emit(form)

    def _source(self, place: Place, name: str) -> Stream[Any]:
        if not self.of.is_way(name):
            return stream(self.intent(place, name))
        self.of.used.add(name)
        return cast("Stream[Any]", self.other("from", name, Stream))

    def _enrich(self, form: EnrichForm) -> None:
        at = self.take(Stream, "enrich")
        source = form.enrich
        if isinstance(source, str):
            table = self.named(("enrich",), source, GlobalTable)
        else:
            of = self.kind(("enrich", "of"), source.of)
            table = None if of is None else GlobalTable(source.topic, of, source.most_bytes, source.on_bad)
        if table is None:
            raise _StopError
        self.at = at.enrich(
            table,
            self.function(("make",), form.make),
            by=self.key(("by",), form.by),
            how=form.how,
            returns=self.kind(("returns",), form.returns),
        )

    def _join(self, form: JoinForm) -> None:
        if isinstance(self.at, Table):
            for name in ("before", "after", "bound", "late"):
                if getattr(form, name) is not None:
                    self.stop((name,), "rows of tables are joined as they are: leave it out, or take table away")
            other = self.other("join", form.join, Table)
            times: dict[str, str] = {}
        else:
            self.take(Keyed, "join")
            other = self.other("join", form.join, Keyed)
            times = {
                name: said for name in ("before", "after", "bound", "late") if (said := getattr(form, name)) is not None
            }
        make, returns = self.function(("make",), form.make), self.kind(("returns",), form.returns)
        named = {} if form.name is None else {"name": form.name}
        self.at = cast("Any", self.at).join(other, make, how=form.how, returns=returns, **times, **named)

    def _emit(self, form: EmitForm) -> None:
        at = self.take(Stream, "emit")
        make: Any
        make = self.named(("emit",), form.emit, Callable) if ":" in form.emit else self.intent(("emit",), form.emit)
        if make is None:
            raise _StopError
        is_type = isinstance(make, type) and issubclass(make, Intent)
        if form.fields is not None:
            if not is_type:
                self.stop(
                    ("fields",), "is for an intent, and emit names a function, which makes one itself: leave it out"
                )
            make = self._made_of(make, form.fields)
            is_type = False
        if is_type and form.intents:
            self.stop(("intents",), "is for a function, and emit names an intent: leave it out")
        intents = [self.intent(("intents", index), name) for index, name in enumerate(form.intents)]
        self.of.ends.append(at.emit(make, *intents))
        self.at = None

    def _made_of(self, intent: type[Intent], paths: Mapping[str, str]) -> Callable[[Any], Intent]:
        """What makes an intent of the fields of a value."""
        fields = intent.model_fields
        for name, path in paths.items():
            if name not in fields:
                self.of.fault(
                    (*self.where, "fields", name),
                    f"{intent.__intent__.name} has no field {name!r}{nearest(name, fields)}",
                )
            self.field(("fields", name), path)
        missing = [name for name, info in fields.items() if info.is_required() and name not in paths]
        if missing:
            self.stop(("fields",), f"{intent.__intent__.name} needs {', '.join(missing)} too")
        getters = {name: attrgetter(path) for name, path in paths.items()}

        def make(value: Any) -> Intent:
            return intent(**{name: get(value) for name, get in getters.items()})

        make.__annotations__["return"] = intent
        return make

    # -- aggregates ----------------------------------------------------------------------------------------------------

    def _aggregate(self, form: AggregateForm) -> None:
        at = self.take(WindowedStream, "aggregate")
        emission = self._emission(form)
        # left out where nothing is said, since windows that time does not end take none
        told: dict[str, Any] = {} if emission is None else {"emit": emission}
        place: Place = ("aggregate",)
        if isinstance(form.aggregate, str):
            if form.into is not None:
                self.stop(("into",), "is for several aggregates by name: leave it out, or give the aggregate a name")
            self.at = at.aggregate(aggregate_of(self, place, form.aggregate)[0], **told)
            return
        found = {name: aggregate_of(self, (*place, name), said) for name, said in form.aggregate.items()}
        if form.into is not None:
            make = self.function(("into",), form.into)
        else:
            make = _record(f"{self.of.name}_{self.window[0]}", {name: kind for name, (_, kind) in found.items()})
        named: dict[str, Any] = {name: one for name, (one, _) in found.items()}
        self.at = at.aggregate(make, **told, **named)

    def _emission(self, form: AggregateForm) -> Emission | None:
        match form.emission:
            case "on_update":
                return windows.on_update()
            case "on_close":
                return None
            case EarlyForm(early=told):
                return windows.early(every=told.every, records=told.records)


def _nothing(*_: Any, **__: Any) -> None:
    """In place of a function that is not there."""


def _record(name: str, kinds: Mapping[str, Any]) -> Any:
    """What several aggregates make if the file does not say what."""
    class_name = "".join(part.capitalize() for part in name.split("_"))
    fields = [(field, Any if kind is None else kind) for field, kind in kinds.items()]
    made = make_dataclass(class_name, fields, frozen=True, slots=True)
    # A function says nothing of the type: it is not known, and so not to be stored.
    return (lambda **results: made(**results)) if None in kinds.values() else made  # noqa: PLW0108
