"""Capabilities: a family of operations, an operation of it, and the resources it may be used on.

::

    class FlightCap(Capability):
        report = operation()
        admin = operation(implies=report)

    FlightCap.report("/UA/**")              # a grant: report, on everything below /UA
    FlightCap.report("/{carrier}/{origin}") # a template: an intent's fields fill the segments

Operations are known by name, ``FlightCap.report``: that is what a token says. So a name has one meaning in a process, and
a family that is defined again must say the same. Where families are data and not code, :func:`define` makes them,
:func:`family` finds them and :func:`grant` reads what a class would write as a call.
"""

import enum
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType, MappingProxyType
from typing import Any, ClassVar, Final, cast

from pf_stream.errors import DefinitionError, PFError
from pf_stream.model._implication import circles, declare, implied, meaning_of
from pf_stream.model._names import nearest
from pf_stream.model.scope import BadScopeError, Scope
from pf_stream.model.when import BadWhenError, When

__all__ = [
    "PUBLIC",
    "BadGrantError",
    "Capability",
    "Field",
    "Grant",
    "HeldGrant",
    "Operation",
    "Public",
    "define",
    "family",
    "grant",
    "implied_by",
    "implies",
    "operation",
    "parse_grant",
]

_family_name: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*").fullmatch
_operation_name: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*").fullmatch
_full_name: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\.[A-Za-z][A-Za-z0-9_]*").fullmatch
_field: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(\.\.\.)?\}").fullmatch
_DURING: Final = " during "


class Public(enum.Enum):
    """The type of :data:`PUBLIC`."""

    PUBLIC = "public"

    def __repr__(self) -> str:
        return "PUBLIC"


PUBLIC: Final = Public.PUBLIC
"""``requires=PUBLIC``: anyone may, with a context or without."""


class BadGrantError(PFError):
    """Raised when the text of a grant is not ``Family.operation:/scope``."""

    code = "bad_grant"

    def __init__(self, text: str, fault: str) -> None:
        self.text = text
        super().__init__(f"grant {text!r}: {fault}; write it as 'FlightCap.report:/UA/**'")


class Operation:
    """Something that may be done, such as ``FlightCap.report``; made by :func:`operation`, named by its family."""

    __slots__ = ("_implied_by", "_implies", "_name")

    def __init__(self, implies: tuple["Operation", ...]) -> None:
        self._implies = implies
        self._name: str | None = None
        self._implied_by: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """``Family.operation``."""
        if self._name is None:
            raise DefinitionError("operation()", ["it has no name yet: assign it in the body of a Capability class"])
        return self._name

    @property
    def implied_by(self) -> frozenset[str]:
        """Names of all operations whose holder may do this, itself included; reflexive and transitive, across families.

        It grows when a later family implies this operation: read it when the topology is complete.
        """
        return self._implied_by

    @property
    def implies(self) -> tuple["Operation", ...]:
        """The operations that the declaration named, not what follows from them."""
        return self._implies

    def __call__(self, pattern: str) -> "Grant":
        """This operation on the resources of *pattern*: a scope, or a template such as ``/{carrier}/{path...}``.

        Raises:
            DefinitionError: the pattern is neither; the message says why.
        """
        return Grant(self, pattern)

    def __repr__(self) -> str:
        return f"<operation {self._name or '(without a family)'}>"


def operation(*, implies: Operation | Iterable[Operation] = ()) -> Operation:
    """Declare an operation in the body of a :class:`Capability`; who holds it holds what it *implies*, on the same scope."""
    # A name in place of the operation is a fault to tell with the family's others, not an iterable of letters.
    return Operation((implies,) if isinstance(implies, Operation | str) else tuple(implies))


class Capability:
    """Base of capability families: a class whose public attributes are operations, each made by :func:`operation`.

    Raises:
        DefinitionError: when the subclass is made, with every fault of it.
    """

    __operations__: ClassVar[Mapping[str, Operation]] = MappingProxyType({})
    """The family's operations by their short names."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = {name: value for name, value in vars(cls).items() if isinstance(value, Operation)}
        faults = [*_shape_faults(cls), *_operation_faults(cls.__name__, own)]
        meaning = _meaning(cls.__name__, own)
        faults += _implication_faults(cls.__name__, meaning, complete=not faults)
        if faults:
            raise DefinitionError(f"capability family {cls.__module__}.{cls.__qualname__}", faults)
        cls.__operations__ = MappingProxyType(own)
        _declare(cls, meaning)

    def __init__(self) -> None:
        raise TypeError(f"a family of capabilities has no instances; write {type(self).__name__}.<operation>(scope)")


def _shape_faults(cls: type) -> Iterator[str]:
    if cls.__bases__ != (Capability,):
        yield (
            "derives from another family; derive from Capability alone, and say what follows from what with "
            "operation(implies=...)"
        )
    own = vars(cls)
    for name, value in own.items():
        if not name.startswith("_") and not isinstance(value, Operation):
            what = (
                "a function" if isinstance(value, FunctionType | classmethod | staticmethod | property) else repr(value)
            )
            yield f"{name} is {what}, not an operation; write {name} = operation(), or name it _{name}"
    for name in own.get("__annotations__", ()):
        if name not in own and not name.startswith("_"):
            yield f"{name} is only annotated; write {name} = operation()"


def _operation_faults(family: str, own: Mapping[str, Operation]) -> Iterator[str]:
    if _family_name(family) is None:
        yield f"the name {family!r} cannot be written into a token; use ASCII letters, digits and '_'"
    if not own:
        yield "has no operations; declare at least one, such as read"
    first: dict[int, str] = {}
    for short, op in own.items():
        if _operation_name(short) is None:
            yield (
                f"{short}: the name cannot be written into a token; begin with an ASCII letter, "
                "then letters, digits and '_'"
            )
        if op._name is not None:
            yield f"{short} is the operation {op._name}; write {short} = operation(implies={op._name})"
        elif id(op) in first:
            yield f"{short} and {first[id(op)]} are one operation; write {short} = operation()"
            continue
        first[id(op)] = short
    for short in first.values():
        declared: tuple[object, ...] = own[short].implies  # a type checker would have told, where one is used
        for other in declared:
            if not isinstance(other, Operation):
                yield f"{short} implies {other!r}, which is not an operation; name the operation itself"
            elif other._name is None and id(other) not in first:
                yield f"{short} implies an operation that belongs to no family; assign it in the body of one"


def _meaning(family: str, own: Mapping[str, Operation]) -> dict[str, frozenset[str]]:
    """The family's operations, each with what it implies, by full name; what has no name is a fault, told by others."""
    names = {id(one): f"{family}.{short}" for short, one in own.items()}

    def name_of(other: object) -> str | None:
        return names.get(id(other)) or (other._name if isinstance(other, Operation) else None)

    return {f"{family}.{short}": frozenset(filter(None, map(name_of, op.implies))) for short, op in own.items()}


def _implication_faults(family: str, meaning: Mapping[str, frozenset[str]], *, complete: bool) -> Iterator[str]:
    if complete and meaning_of(family) not in (None, meaning):
        yield (
            f"another family is called {family} and has other operations or implications; rename one: tokens know "
            "them by name"
        )
    for circle in circles(meaning):
        yield f"implication runs in a circle: {' -> '.join(circle)}; remove one step"


# Families by name, and operations by full name. Where a module was loaded more than once there are several of one name,
# which mean the same: any family will do, but each of the operations must learn what implies it.
_families: dict[str, type[Capability]] = {}
_known: dict[str, list[Operation]] = {}


def _declare(cls: type[Capability], meaning: Mapping[str, frozenset[str]]) -> None:
    declare(cls.__name__, meaning)
    _families[cls.__name__] = cls
    for short, op in cls.__operations__.items():
        op._name = f"{cls.__name__}.{short}"
        known = _known.setdefault(op._name, [])
        op._implied_by = known[0].implied_by if known else frozenset({op._name})
        known.append(op)
    for name in meaning:
        for weaker in implied(name):
            for op in _known[weaker]:
                op._implied_by |= {name}


def define(name: str, operations: Mapping[str, Sequence[str]]) -> type[Capability]:
    """The family that a class statement would make, from data::

        define("FileCap", {"read": [], "write": ["read"], "delete": ["AuditCap.note"], "admin": ["write", "delete"]})

    Each operation comes with those that it implies: ``write`` is one of this family, wherever it stands in it;
    ``AuditCap.note`` is one of a family that is known already.

    Raises:
        DefinitionError: with every fault.
    """
    own = {short: Operation(()) for short in operations}
    faults = []
    for short, references in operations.items():
        if isinstance(references, str):
            faults.append(f"{short} implies the text {references!r}; write a list: [{references!r}]")
            continue
        found = []
        for reference in references:
            try:
                found.append(_referred(reference, name, own))
            except DefinitionError as error:
                faults.append(f"{short} implies {reference!r}, but {error.subject} {error.faults[0]}")
        own[short]._implies = tuple(found)
    faults += _operation_faults(name, own)
    faults += _implication_faults(name, _meaning(name, own), complete=not faults)
    if faults:
        raise DefinitionError(f"capability family {name}", faults)
    return cast("type[Capability]", type(name, (Capability,), own))


def _referred(reference: str, name: str, own: Mapping[str, Operation]) -> Operation:
    of, dot, short = reference.rpartition(".")
    if not dot or of == name:
        return _find(name, short, own)
    return _find(of, short, family(of).__operations__)


def _find(of: str, short: str, operations: Mapping[str, Operation]) -> Operation:
    if short not in operations:
        raise DefinitionError(f"operation '{of}.{short}'", [f"is not known{nearest(short, operations)}"])
    return operations[short]


def family(name: str) -> type[Capability]:
    """The family of that name, from a class statement or :func:`define`.

    Raises:
        DefinitionError: this process knows none; names the nearest one.
    """
    if name not in _families:
        raise DefinitionError(f"capability family {name!r}", [f"is not known{nearest(name, _families)}"])
    return _families[name]


def implied_by(name: str) -> frozenset[str]:
    """:attr:`Operation.implied_by` of the operation called *name*; of one that this process does not know, itself alone."""
    known = _known.get(name)
    return known[0].implied_by if known else frozenset({name})


@dataclass(frozen=True, slots=True)
class Field:
    """A place in a template that one field of the intent fills."""

    name: str
    """The intent's field."""
    path: bool
    """Whether it takes a path of one or more segments (``{name...}``) instead of exactly one."""


@dataclass(frozen=True, slots=True, eq=False)
class Grant:
    """An operation on a set of resources; as a requirement also on the resource that an intent's fields name.

    Equal to another if both name the same operation and pattern.

    Raises:
        DefinitionError: the pattern is neither a scope nor a template.
    """

    operation: Operation
    """What may be done."""
    pattern: str
    """On which resources: a scope, or a template with ``{field}`` or a final ``{field...}`` as segments."""
    _segments: tuple[str | Field, ...] = field(init=False, repr=False)
    _widest: Scope = field(init=False, repr=False)

    def __post_init__(self) -> None:
        name = self.operation.name
        segments: list[str | Field] = []
        texts = self.pattern.removeprefix("/").split("/") if self.pattern != "/" else []
        faults = []
        for index, text in enumerate(texts):
            hole = _field(text)
            if hole is None:
                if "{" in text or "}" in text:
                    faults.append(
                        f"{text!r}: a field fills a whole segment; write '{{field}}', or '{{field...}}' at the end"
                    )
                if _DURING in f"{text} ":
                    faults.append(f"{text!r} says 'during', and a requirement has no limit in time")
                segments.append(text)
                continue
            segments.append(Field(hole[1], path=hole[2] is not None))
            if hole[2] and index < len(texts) - 1:
                faults.append(f"{text!r} takes a path and may stand only at the end")
        widened = "/".join(["", *(_widen(segment) for segment in segments)]) or "/"
        if not faults:
            try:
                scope = Scope.parse(widened if self.pattern.startswith("/") else self.pattern)
            except BadScopeError as error:
                faults.append(error.fault)
        if faults:
            raise DefinitionError(f"{name}({self.pattern!r})", faults)
        object.__setattr__(self, "_segments", tuple(segments))
        object.__setattr__(self, "_widest", scope)

    @property
    def is_template(self) -> bool:
        """Whether fields of an intent must fill it before it names resources."""
        return any(isinstance(segment, Field) for segment in self._segments)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the template's fields, in order; empty for a scope."""
        return tuple(segment.name for segment in self._segments if isinstance(segment, Field))

    @property
    def scope(self) -> Scope:
        """The resources.

        Raises:
            DefinitionError: it is a template.
        """
        if self.is_template:
            raise DefinitionError(str(self), ["it is a template and has no scope until fields fill it; see widest()"])
        return self._widest

    def segments(self) -> tuple[str | Field, ...]:
        """The pattern's segments: text (``*`` and ``**`` too), or a field; empty for ``/``."""
        return self._segments

    def widest(self) -> "Grant":
        """The least grant without fields that includes whatever fields may make of this: ``/*`` for each, ``**`` for a path."""
        return Grant(self.operation, str(self._widest)) if self.is_template else self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Grant):
            return NotImplemented
        return self.operation.name == other.operation.name and self.pattern == other.pattern

    def __hash__(self) -> int:
        return hash((self.operation.name, self.pattern))

    def __str__(self) -> str:
        return f"{self.operation.name}({self.pattern})"


def _widen(segment: str | Field) -> str:
    if isinstance(segment, Field):
        return "**" if segment.path else "*"
    return segment


@dataclass(frozen=True, slots=True)
class HeldGrant:
    """A grant as tokens hold it: the operation by name, which need not be one that this process knows."""

    operation: str
    """``Family.operation``."""
    scope: Scope
    """On which resources."""
    during: When | None = None
    """When; None for always."""

    def __post_init__(self) -> None:
        if _full_name(self.operation) is None:
            raise BadGrantError(str(self), f"{self.operation!r} is not the name of an operation")
        if any(_DURING in f"{segment} " for segment in self.scope.segments):
            raise BadGrantError(str(self), "its scope says 'during', which would read as a limit in time")

    @classmethod
    def of(cls, grant: "Grant | HeldGrant") -> "HeldGrant":
        """*grant* by name.

        Raises:
            DefinitionError: it is a template.
        """
        return grant if isinstance(grant, HeldGrant) else cls(grant.operation.name, grant.scope)

    def __str__(self) -> str:
        limit = "" if self.during is None else f"{_DURING}{self.during}"
        return f"{self.operation}:{self.scope}{limit}"


def grant(text: str) -> Grant:
    """The grant of a known operation that ``Family.operation:/scope`` writes; a template too: ``FileCap.read:/{path...}``.

    Raises:
        BadGrantError: the text has another form.
        DefinitionError: the operation is not known, or the pattern is neither scope nor template; the message says why.
    """
    name, pattern = _name_and_pattern(text)
    of, _, short = name.partition(".")
    return _find(of, short, family(of).__operations__)(pattern)


def parse_grant(text: str) -> HeldGrant:
    """The grant that ``Family.operation:/scope`` writes, or ``Family.operation:/scope during mon-fri 09:00-17:00 UTC``.

    The operation's name is not looked up.

    Raises:
        BadGrantError: the text has another form; the message says what is wrong with it.
    """
    name, rest = _name_and_pattern(text)
    pattern, during, when = rest.partition(_DURING)
    try:
        return HeldGrant(name, Scope.parse(pattern), When.parse(when) if during else None)
    except BadScopeError as error:
        raise BadGrantError(text, f"in the scope {pattern!r}, {error.fault}") from None
    except BadWhenError as error:
        raise BadGrantError(text, f"after 'during', {error.fault}") from None


def _name_and_pattern(text: str) -> tuple[str, str]:
    name, colon, pattern = text.partition(":")
    if not colon:
        raise BadGrantError(text, "there is no ':' between operation and scope")
    if _full_name(name) is None:
        raise BadGrantError(text, f"{name!r} is not the name of an operation, which is 'Family.operation'")
    return name, pattern


def implies(held: Grant | HeldGrant, required: Grant | HeldGrant) -> bool:
    """Whether who holds *held* satisfies *required*. Total: every pair has an answer, and none raises.

    ============================================  =====================================================  ======
    operations                                    scopes                                                 answer
    ============================================  =====================================================  ======
    same, or the held one implies the required    held includes required                                 yes
    same, or the held one implies the required    held overlaps required, or is disjoint from it         no
    the required one implies the held             any                                                    no
    neither implies the other                     any                                                    no
    different, and one is not known here          any                                                    no
    any                                           held is a template (nobody can hold one)               no
    yes by the above                              held is limited in time: required has all its parts    by the above
    yes by the above                              required is a template: its :meth:`Grant.widest`       by the above
    ============================================  =====================================================  ======

    Reflexive for scopes and transitive. Implication is in :func:`implied_by`; it keeps scope, so ``admin("/a")`` says
    nothing about ``/b``. A limit in time is compared by its :attr:`When.parts`, which are words: the same times in other words
    do not count. It is by name, so a grant and what a token holds of it answer alike.
    """
    if isinstance(held, Grant) and held.is_template:
        return False
    have, want = HeldGrant.of(held), HeldGrant.of(required.widest() if isinstance(required, Grant) else required)
    if have.during is not None and (want.during is None or not have.during.parts <= want.during.parts):
        return False
    return have.operation in implied_by(want.operation) and have.scope.includes(want.scope)
