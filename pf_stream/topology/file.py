"""Topology files: a topology written as YAML.

::

    name: flights
    capabilities:                # families for those who write none in Python: see pf_stream.model.family
      FlightCap:
        report: []
        admin: [report]          # what each operation implies; of another family: OtherCap.operation
    reactors:
      - flights:Fleet            # module:Class; modules are looked for in the file's folder first
    calendars:                   # what requirements and tokens may name
      office:
        zone: Europe/London
        open: [mon-fri 09:00-17:00 Europe/London]
        holidays: [2026-12-25, 2026-12-26]
    requires:                    # beside what types and handlers require
      flights.departed:
        - during calendar office
        - ["FlightCap.report:/{carrier}", FlightCap.admin:/]    # a list in the list: one of them is enough
    constraints:                 # when types are handled, beside what types and handlers say
      flights.departed: [never daily 02:00-04:00 UTC, within 24h]
    internal: [airports]
    replies: [replies]

The same words as :class:`pf_stream.Topology` takes, and families of capabilities, which are known before the modules are
imported; nothing else: trust belongs to the worker's configuration. Requirements are written as
:func:`pf_stream.model.requirement.parse_requirement` reads them, and constraints as
:func:`pf_stream.model.constraint.parse_constraint` does. A reactor that is a service (see :class:`pf_stream.model.Service`) is a
mapping::

    reactors:
      - reactor: flights:AirportBoard
        as: service
        key: 7                   # the kid of the key that signs for it
        grants: [AirportCap.count:/**]
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pf_stream.errors import ConfigurationError, DefinitionError, NotFoundError, PFError
from pf_stream.model import (
    Calendar,
    GlobalTable,
    Intent,
    Part,
    Reactor,
    Requirement,
    Service,
    Sink,
    Topology,
    When,
    any_of,
    grant,
)
from pf_stream.model._names import nearest
from pf_stream.model.capability import HeldGrant
from pf_stream.model.constraint import Constraint, parse_constraint
from pf_stream.model.requirement import parse_requirement
from pf_stream.model.when import calendar
from pf_stream.streams.declared import pipeline_of
from pf_stream.temporal import Job, jobs
from pf_stream.temporal.form import job_of
from pf_stream.topology._blame import ANYBODY, located
from pf_stream.topology._imports import ImportFaults, find, import_from, split
from pf_stream.topology.families import define_families
from pf_stream.topology.form import CalendarForm, ServiceForm, TopologyFile, Where, allowed, explain, shown, where_of

__all__ = ["Fault", "TopologyFile", "TopologyFileError", "read_topology_file"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in a topology file."""

    line: int
    """Line, from 1."""
    field: str
    """Path of the field, such as ``reactors[1]``; empty for the file as a whole."""
    text: str
    """What was found and what is allowed."""


class TopologyFileError(ConfigurationError):
    """Raised when a topology file is wrong; lists every fault that could be found."""

    code = "bad_topology_file"

    def __init__(self, path: Path, faults: Sequence[Fault]) -> None:
        self.path = path
        self.faults = tuple(faults)
        lines = [
            f"{path}:{fault.line}: {f'{fault.field}: ' if fault.field else ''}{fault.text}" for fault in self.faults
        ]
        if len(lines) == 1:
            super().__init__(lines[0])
        else:
            super().__init__(f"{len(lines)} faults\n" + "\n".join(lines))


def read_topology_file(path: Path) -> Topology:
    """The topology that the file describes; its reactors are imported.

    Raises:
        NotFoundError: there is no such file.
        TopologyFileError: with every fault of the file, of the modules it names and of what they define together.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = nearest(path.name, (other.name for other in path.parent.glob("*.y*ml"))) if path.parent.is_dir() else ""
        raise NotFoundError(f"there is no topology file {path}{near}") from None
    except OSError as error:
        raise ConfigurationError(f"topology file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise TopologyFileError(path, [Fault(1, "", f"it is not UTF-8: {error.reason}")]) from None
    return _Reading(path, _parse(path, text)).topology()


class _Constructor(RoundTripConstructor):
    """Leaves dates as they are written: the 30th of February is a fault of its field, not of the file."""


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", RoundTripConstructor.construct_yaml_str)


def _parse(path: Path, text: str) -> CommentedMap:
    yaml = YAML(typ="rt", pure=True)
    yaml.Constructor = _Constructor
    try:
        data = yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = "; ".join(part.strip() for part in (error.context, error.problem) if part)
        raise TopologyFileError(path, [Fault(mark.line + 1 if mark else 1, "", f"no YAML: {what}")]) from None
    except (YAMLError, ValueError) as error:  # the latter for a tag that lies, as in "!!int seven"
        raise TopologyFileError(path, [Fault(1, "", f"no YAML: {error}")]) from None
    if not isinstance(data, CommentedMap):
        fault = f"found {shown(data)}; allowed: a mapping with the fields {', '.join(TopologyFile.model_fields)}"
        raise TopologyFileError(path, [Fault(1, "", fault)])
    return data


class _Reading:
    """One pass over a file, that goes on after a fault as far as it makes sense."""

    def __init__(self, path: Path, data: CommentedMap) -> None:
        self._path = path
        self._folder = path.resolve().parent
        self._data = data
        self._faults: list[Fault] = []
        self._broken: set[str] = set()
        self._required: list[tuple[Where, str, Requirement]] = []

    def topology(self) -> Topology:
        broken: set[str | int] = set()
        try:
            file = TopologyFile.model_validate(self._data)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                self.add(where_of(detail), explain(detail))
                broken.add(detail["loc"][0])
            # Whatever else is wrong is worth knowing too: go on with what can be read.
            file = TopologyFile.model_validate(self._sound(broken))
        bringing = {"reactors", "parts", "jobs", "streams"}
        if not (broken & bringing or any(getattr(file, field) for field in bringing)):
            found = "found an empty list" if "reactors" in self._data else "is missing"
            self.add(("reactors",), f"{found}; allowed: {allowed(('reactors',))}")
            broken.add("reactors")
        # Without its families a module may fail for no fault of its own.
        families = list(define_families(file.capabilities))
        for where, text in families:
            self.add(("capabilities", *where), text)
        importable = not families and "capabilities" not in broken
        reactors = self._reactors(file) if importable and "reactors" not in broken else {}
        emits = self._each("emits", file.emits if importable else (), Intent)
        parts = self._each("parts", file.parts if importable else (), Part)
        sinks = self._each("sinks", file.sinks if importable else (), Sink)
        tables = self._each("tables", file.tables if importable else (), GlobalTable)
        streams = self._streams(file, [*reactors.values()], emits, parts) if importable else {}
        complete = not self._faults  # otherwise something may seem unknown because what defines it is
        fields: dict[str, Any] = {
            "namespace": file.namespace,
            "partitions": file.partitions,
            "guarantee": file.guarantee,
            "store": file.store,
            "standby": file.standby,
            "internal": file.internal,
            "emits": emits,
            "sinks": sinks if complete else (),
            "tables": tables if complete else (),
            "replies": file.replies,
            "version": file.version,
            "retired": file.retired,
            "calendars": self._calendars(file.calendars),
            "requires": self._requires(file.requires) if complete else {},
            "constraints": self._constraints(file.constraints) if complete else {},
            "services": self._services(file, reactors) if complete else {},
            "parts": [
                *parts,
                *streams.values(),
                *(self._jobs(file, [*reactors.values()], emits) if complete else ()),
            ],
        }
        try:
            topology = Topology(file.name, list(reactors.values()), **fields)
        except DefinitionError as error:
            places: list[Where] = [("parts", index) for index in range(len(parts))]
            places += [("streams", name) for name in streams]
            faults = located(error, file, list(reactors.values()), fields, places, self._required, complete=complete)
            for where, fault in faults:
                self.add(where, fault)
        else:
            if not self._faults:
                return topology
        raise TopologyFileError(self._path, sorted(self._faults, key=lambda fault: fault.line))

    def _sound(self, broken: set[str | int]) -> dict[str, Any]:
        given = {name: self._data[name] for name in TopologyFile.model_fields if name in self._data}
        return {"name": "unnamed"} | {k: v for k, v in given.items() if k not in broken}

    def named(self, where: Where, reference: str, base: type) -> Any:
        """What *reference* names; ``None`` if it cannot be had."""
        parts = split(reference)
        if parts is None:
            guess = reference.rpartition(".")
            hint = f"; did you mean {guess[0]}:{guess[2]}?" if split(f"{guess[0]}:{guess[2]}") else ""
            self.add(where, f"found {reference!r}; allowed: module:Class{hint}")
            return None
        module, name = parts
        if module in self._broken:
            return None  # said once
        try:
            imported = import_from(module, self._folder)
        except ImportFaults as error:
            self._broken.add(module)
            for fault in error.faults:
                self.add(where, fault)
            return None
        try:
            return find(imported, name, base)
        except ImportFaults as error:
            self.add(where, str(error))
            return None

    def _each(self, field: str, references: Sequence[str], base: type) -> list[Any]:
        """What *references* name in a field that is a list, without those that cannot be had."""
        named = (self.named((field, index), reference, base) for index, reference in enumerate(references))
        return [found for found in named if found is not None]

    def _reactors(self, file: TopologyFile) -> dict[int, Any]:
        """By its place in the list, each that can be had."""
        found = {}
        for index, item in enumerate(file.reactors):
            if isinstance(item, ServiceForm):
                found[index] = self.named(("reactors", index, "reactor"), item.reactor, Reactor)
            else:
                found[index] = self.named(("reactors", index), item, Reactor)
        return {index: reactor for index, reactor in found.items() if reactor is not None}

    def _services(self, file: TopologyFile, reactors: Mapping[int, Any]) -> dict[str, Service]:
        found = {}
        for index, item in enumerate(file.reactors):
            if isinstance(item, ServiceForm):
                grants = [
                    held
                    for place, text in enumerate(item.grants)
                    if (held := self._read(("reactors", index, "grants", place), _held, text))
                ]
                if grants:
                    found[reactors[index].__reactor__.id] = Service(item.key, grants)
        return found

    def _streams(
        self, file: TopologyFile, reactors: Sequence[Any], emits: Sequence[type[Intent]], parts: Sequence[Part]
    ) -> dict[str, Part]:
        """By name, each pipeline with which nothing is wrong."""
        handled = [
            handler.intent.model
            for reactor in (*reactors, *(one for part in parts for one in part.reactors))
            for handler in reactor.__reactor__.handlers
        ]
        types = [*handled, *emits, *(one for part in parts for one in part.emits)]
        intents = {kind.__intent__.name: kind for kind in types}
        found = {
            name: pipeline_of(name, form, _Names(self, ("streams", name), intents))
            for name, form in file.streams.items()
        }
        return {name: part for name, part in found.items() if part is not None}

    def _jobs(self, file: TopologyFile, reactors: Sequence[Any], emits: Sequence[type[Intent]]) -> list[Part]:
        """What the jobs of the file bring."""
        form = file.jobs
        if form is None:
            return []
        where: Where = ("jobs",)
        named = [self.named((*where, "declared", i), reference, Job) for i, reference in enumerate(form.declared)]
        declared = [one for one in named if one is not None]
        if len(declared) < len(named):
            return []  # what is made of them would seem unknown
        calendars = self._calendars(file.calendars)
        handled = (handler.intent.model for reactor in reactors for handler in reactor.__reactor__.handlers)
        types = list(dict.fromkeys((*handled, *emits)))
        runs = {one.name: one.run for one in declared}
        kinds = {kind.__intent__.type: kind for kind in types}
        made = [
            self._read((*where, "made", name), lambda name: job_of(name, form.made[name], runs, kinds, calendars), name)
            for name in form.made
        ]
        grants = [self._read((*where, "grants", index), _held, text) for index, text in enumerate(form.grants)]
        if self._faults:
            return []
        try:
            service = Service(form.key, [grant for grant in grants if grant is not None])
            every = [*declared, *(one for one in made if one is not None)]
            return [jobs(*every, service=service, emits=types, calendars=calendars)]
        except DefinitionError as error:
            for fault in error.faults:
                self.add(where, fault)
        return []

    def _calendars(self, forms: Mapping[str, CalendarForm]) -> dict[str, Calendar]:
        found = {}
        for name, form in forms.items():
            if self._read(("calendars", name), calendar, name) is None:
                continue
            open_ = [
                when
                for index, text in enumerate(form.open)
                if (when := self._read(("calendars", name, "open", index), _times, text))
            ]
            zoned = self._read(("calendars", name, "zone"), partial(Calendar, open_, holidays=form.holidays), form.zone)
            found[name] = zoned or Calendar(open_, "UTC")  # it is there, so that it is not said to be missing
        return found

    def _requires(self, texts: Mapping[str, Sequence[str | Sequence[str]]]) -> dict[str, list[Requirement]]:
        found: dict[str, list[Requirement]] = {}
        for name, items in texts.items():
            found[name] = []
            for index, item in enumerate(items):
                where: Where = ("requires", name, index)
                if isinstance(item, str):
                    requirement = self._requirement(where, name, item)
                else:
                    requirement = any_of(
                        *(self._requirement((*where, place), name, text) for place, text in enumerate(item))
                    )
                found[name].append(requirement)
        return found

    def _constraints(self, texts: Mapping[str, Sequence[str]]) -> dict[str, list[Constraint]]:
        found = {
            name: [self._read(("constraints", name, index), parse_constraint, text) for index, text in enumerate(items)]
            for name, items in texts.items()
        }
        return {name: read for name, items in found.items() if (read := [one for one in items if one is not None])}

    def _requirement(self, where: Where, name: str, text: str) -> Requirement:
        requirement = self._read(where, parse_requirement, text) or ANYBODY
        self._required.append((where, name, requirement))
        return requirement

    def _read(self, where: Where, read: Callable[[str], T], text: str) -> T | None:
        """What *read* makes of *text*; ``None`` if it makes nothing of it."""
        try:
            return read(text)
        except DefinitionError as error:
            for fault in error.faults:
                self.add(where, f"{error.subject}: {fault}")
        except PFError as error:
            self.add(where, str(error))
        return None

    def add(self, where: Where, text: str) -> None:
        field = ""
        for part in where:
            field += f"[{part}]" if isinstance(part, int) else f".{part}" if field else part
        self._faults.append(Fault(self._line(where), field, text))

    def _line(self, where: Where) -> int:
        """Line of a field, or of the nearest one above it that is in the file."""
        node: Any = self._data
        line = 0
        for part in where:
            if not isinstance(node, CommentedMap | CommentedSeq) or part not in (node.lc.data or {}):
                break
            line = node.lc.data[part][0]
            node = node[part]
        return line + 1


@dataclass(frozen=True, slots=True)
class _Names:
    """What a file knows that a pipeline in it names."""

    reading: _Reading
    """The file."""
    where: Where
    """The place of the pipeline."""
    intents: Mapping[str, type[Intent]]
    """By name, the intent types of the topology."""

    def named(self, where: Where, reference: str, base: type) -> Any:
        return self.reading.named((*self.where, *where), reference, base)

    def fault(self, where: Where, text: str) -> None:
        self.reading.add((*self.where, *where), text)


def _held(text: str) -> HeldGrant:
    return HeldGrant.of(grant(text))


def _times(text: str) -> When:
    when = When.parse(text)
    Calendar([when], "UTC")  # which may not take it
    return when
