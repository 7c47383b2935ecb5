"""Topology files: a topology written as YAML.

::

    name: flights
    capabilities:                # families for those who write none in Python: see pf_stream.model.family
      FlightCap:
        report: []
        admin: [report]          # what each operation implies; of another family: OtherCap.operation
    reactors:
      - flights:Fleet            # module:Class; modules are looked for in the file's folder first
    internal: [airports]
    replies: [replies]

The same words as :class:`pf_stream.Topology` takes, and families of capabilities, which are known before the modules are
imported; nothing else: trust belongs to the worker's configuration.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pf_stream.errors import ConfigurationError, DefinitionError, NotFoundError
from pf_stream.model import Intent, Reactor, Topology, define
from pf_stream.model._names import nearest
from pf_stream.model.topology import Guarantee
from pf_stream.topology._imports import ImportFaults, find, import_from, split

__all__ = ["Fault", "TopologyFile", "TopologyFileError", "read_topology_file"]

Where = tuple[str | int, ...]


class TopologyFile(BaseModel):
    """What a topology file may say."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    name: str
    """Name of the application: its consumer group, and the first part of its changelogs."""
    capabilities: dict[str, dict[str, list[str]]] = {}
    """Families of operations, each operation with those that it implies: of its family, or ``OtherCap.operation``."""
    reactors: list[str] = Field(min_length=1)
    """Reactor classes, each ``module:Class``."""
    namespace: str | None = None
    """First part of topic names; the topology's name if not given."""
    internal: list[str] = []
    """Topics within the namespace that only this topology writes."""
    emits: list[str] = []
    """Intent types, each ``module:Class``, that reactors emit and none of them handles."""
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


_ALLOWED = {
    "name": "a text such as flights",
    "capabilities": "families such as FileCap, each with its operations",
    "reactors": "a list of module:Class",
    "namespace": "a text such as flights",
    "internal": "a list of topics within the namespace",
    "emits": "a list of module:Class",
    "replies": "a list of topic patterns such as replies, or replies-*",
    "partitions": "a whole number, 1 or more",
    "version": "a whole number, 1 or more",
    "retired": "a list of reactor ids",
    "guarantee": "effectively_once or transactional",
}

_KEY = "[key]"
"""How pydantic ends the place of a fault that is in the key itself."""

_ALLOWED_IN_CAPABILITIES = {
    2: "operations such as read, each with a list of those that it implies",
    3: "a list of operations that it implies, such as [] or [read]",
    4: "an operation such as read, or OtherCap.read",
}
"""By the depth at which it stands."""


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


def _parse(path: Path, text: str) -> CommentedMap:
    try:
        data = YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = "; ".join(part.strip() for part in (error.context, error.problem) if part)
        raise TopologyFileError(path, [Fault(mark.line + 1 if mark else 1, "", f"no YAML: {what}")]) from None
    except YAMLError as error:
        raise TopologyFileError(path, [Fault(1, "", f"no YAML: {error}")]) from None
    if not isinstance(data, CommentedMap):
        fault = f"found {_shown(data)}; allowed: a mapping with the fields {', '.join(TopologyFile.model_fields)}"
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

    def topology(self) -> Topology:
        broken: set[str | int] = set()
        try:
            file = TopologyFile.model_validate(self._data)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                self._add(detail["loc"], _explain(detail))
                broken.add(detail["loc"][0])
            # Whatever else is wrong is worth knowing too: go on with what can be read.
            file = TopologyFile.model_construct(**self._sound(broken))
        # Without its families a module may fail for no fault of its own.
        importable = self._define(file.capabilities) and "capabilities" not in broken
        reactors = list(self._named("reactors", file.reactors, Reactor)) if importable else []
        emits = list(self._named("emits", file.emits, Intent)) if importable else []
        complete = not self._faults
        fields: dict[str, Any] = {
            "namespace": file.namespace,
            "partitions": file.partitions,
            "guarantee": file.guarantee,
            "internal": file.internal,
            "emits": emits,
            "replies": file.replies,
            "version": file.version,
            "retired": file.retired,
        }
        try:
            topology = Topology(file.name, reactors, **fields)
        except DefinitionError as error:
            self._locate(error, file, reactors, fields, complete=complete)
        else:
            if complete:
                return topology
        raise TopologyFileError(self._path, sorted(self._faults, key=lambda fault: fault.line))

    def _sound(self, broken: set[str | int]) -> dict[str, Any]:
        given = {name: self._data[name] for name in TopologyFile.model_fields if name in self._data}
        return {"name": "unnamed", "reactors": []} | {k: v for k, v in given.items() if k not in broken}

    def _define(self, families: Mapping[str, Mapping[str, Sequence[str]]]) -> bool:
        """Make the file's families known, in an order in which each finds those that it needs; whether all are."""
        needs = {
            name: [
                of
                for references in operations.values()
                for of in map(_family, references)
                if of in families.keys() - {name}
            ]
            for name, operations in families.items()
        }
        try:
            order = list(TopologicalSorter(needs).static_order())
        except CycleError as error:
            circle = " -> ".join(reversed(error.args[1]))
            self._add(
                ("capabilities",),
                f"families imply operations of each other: {circle}; remove one step, or make them one family",
            )
            return False
        broken = [name for name in order if _define_faults(name, families[name])]
        for name in broken:
            for fault in _define_faults(name, families[name]):  # again: the nearest name may be that of a later one
                where, reference = _place(fault, families[name])
                if _family(reference) not in set(broken) - {name}:  # otherwise it follows from what is said of that one
                    self._add(("capabilities", name, *where), fault)
        return not broken

    def _named(self, field: str, references: Sequence[str], base: type) -> Iterator[Any]:
        for index, reference in enumerate(references):
            parts = split(reference)
            if parts is None:
                guess = reference.rpartition(".")
                hint = f"; did you mean {guess[0]}:{guess[2]}?" if split(f"{guess[0]}:{guess[2]}") else ""
                self._add((field, index), f"found {reference!r}; allowed: module:Class{hint}")
                continue
            module, name = parts
            if module in self._broken:
                continue  # said once
            try:
                imported = import_from(module, self._folder)
            except ImportFaults as error:
                self._broken.add(module)
                for fault in error.faults:
                    self._add((field, index), fault)
                continue
            try:
                yield find(imported, name, base)
            except ImportFaults as error:
                self._add((field, index), str(error))

    def _locate(
        self,
        error: DefinitionError,
        file: TopologyFile,
        reactors: list[Any],
        fields: dict[str, Any],
        *,
        complete: bool,
    ) -> None:
        """Find the field of each fault by asking the model, which has the rules, about one field at a time."""
        base = _faults_of("unnamed", reactors)
        trials: list[tuple[Where, str, dict[str, Any]]] = [(("name",), file.name, {})]
        trials += [((field,), "unnamed", {field: fields[field]}) for field in ("namespace", "partitions", "version")]
        if complete:  # otherwise a topic may seem unknown because its reactor is
            trials += [
                ((field, index), "unnamed", {field: [item]})
                for field in ("internal", "emits", "replies", "retired")
                for index, item in enumerate(fields[field])
            ]
        # The namespace is the name if it is not given; then what is wrong with it is said of the name.
        seen = {*base, *_faults_of("unnamed", reactors, namespace=file.name)}
        for where, name, arguments in trials:
            for fault in _faults_of(name, reactors, **{"namespace": "unnamed", **arguments}):
                if fault not in base:
                    seen.add(fault)
                    self._add(where, fault)
        if complete:
            for fault in base:
                self._add(("reactors",), fault)
            for fault in error.faults:
                if fault not in seen:  # of several fields together
                    self._add((), fault)

    def _add(self, where: Where, text: str) -> None:
        field = ""
        for part in where:
            if part == _KEY:
                break
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


def _family(reference: str) -> str:
    return reference.rpartition(".")[0]


def _place(fault: str, operations: Mapping[str, Sequence[str]]) -> tuple[Where, str]:
    """Where in a family a fault of it is, and the reference that is at fault, if it is one."""
    for short, references in operations.items():
        if fault.startswith(f"{short}: "):
            return (short,), ""
        for index, reference in enumerate(references):
            if fault.startswith(f"{short} implies {reference!r}, "):
                return (short, index), reference
    return (), ""


def _define_faults(name: str, operations: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    try:
        define(name, operations)
    except DefinitionError as error:
        return error.faults
    return ()


def _faults_of(name: str, reactors: list[Any], **fields: Any) -> tuple[str, ...]:
    try:
        Topology(name, reactors, **fields)
    except DefinitionError as error:
        return error.faults
    return ()


def _explain(detail: ErrorDetails) -> str:
    field = cast("str", detail["loc"][0])
    if detail["type"] == "extra_forbidden":
        return f"there is no field {field!r}{nearest(field, TopologyFile.model_fields)}"
    allowed = _ALLOWED[field]
    if detail["type"] == "missing":
        return f"is missing; allowed: {allowed}"
    if detail["loc"][-1] == _KEY:
        return f"found {_shown(detail['input'])}; allowed: a name such as FileCap or read"
    if field == "capabilities":
        allowed = _ALLOWED_IN_CAPABILITIES.get(len(detail["loc"]), allowed)
    elif len(detail["loc"]) > 1:
        allowed = allowed.removeprefix("a list of ")
    return f"found {_shown(detail['input'])}; allowed: {allowed}"


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, CommentedMap):
        return "a mapping"
    if isinstance(value, CommentedSeq):
        return "a list" if value else "an empty list"
    kinds: dict[type, str] = {bool: "a truth value", int: "a number", float: "a fraction", str: "a text"}
    return next((f"{value!r}, {name}" for kind, name in kinds.items() if isinstance(value, kind)), repr(value))
