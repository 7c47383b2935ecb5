"""Requirements: what the context of an intent must grant, or say, before a handler runs.

A grant is one, and so is what is made of grants and of the following::

    requires=[FileCap.write("/{path...}"), during("mon-fri 09:00-17:00 Europe/London")]     # a sequence: all of them
    requires=any_of(FileCap.admin("/"), all_of(FileCap.write("/{path...}"), caller(subject="{owner}")))
    requires=computed(lambda intent: FileCap.write(f"/{intent.folder}/{intent.name}"), within=FileCap.write("/**"))
    requires=own_folder                                                                     # a named rule, see @rule

An intent type requires something, a handler may require more, and a topology more still; all of it must hold.

Topology files, and programs that take requirements as data, write one of them as text (:func:`parse_requirement`)::

    FileCap.write:/{path...}                              a grant: Family.operation:/scope, or a template
    during mon-fri 09:00-17:00 Europe/London              times, see ``pf_stream.model.when``
    rule files.own_folder                                 a named rule
    caller subject={owner}                                what the token must say of who asks: "and" between several of
    caller tenant=acme and session={session}                subject=X, tenant=X, session=X, attribute NAME=X,
    caller attribute role=pilot and authenticated within 15m  authenticated within PERIOD; X is one word, or {field}
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from pf_stream.errors import DefinitionError
from pf_stream.model._names import nearest
from pf_stream.model._periods import period_ms
from pf_stream.model.capability import Grant, grant
from pf_stream.model.rules import Rule, find_rule
from pf_stream.model.when import BadWhenError, When

__all__ = [
    "AllOf",
    "AnyOf",
    "CallerIs",
    "Computed",
    "During",
    "Leaf",
    "Requirement",
    "all_of",
    "any_of",
    "caller",
    "computed",
    "during",
    "fields_of",
    "filled_by",
    "grants_of",
    "leaves",
    "parse_requirement",
    "read_requirements",
    "requirement_faults",
]

_field: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}").fullmatch
_clause: Final = re.compile(r"(subject=|tenant=|session=|attribute [^\s=]+=|authenticated within )(\S+)").fullmatch


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every one of several requirements; made by :func:`all_of`."""

    requirements: tuple["Requirement", ...]
    """In the order in which they are decided."""

    def __str__(self) -> str:
        return "(" + " and ".join(map(str, self.requirements)) + ")"


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One of several requirements; made by :func:`any_of`."""

    requirements: tuple["Requirement", ...]
    """In the order in which they are decided."""

    def __str__(self) -> str:
        return "(" + " or ".join(map(str, self.requirements)) + ")"


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """The grants that a function of the intent says; made by :func:`computed`."""

    function: Callable[[Any], Grant | Sequence[Grant]]
    """Takes the intent; every grant that it returns is required."""
    within: tuple[Grant, ...]
    """What it may return at most, so that the context of an emitted intent can be narrowed before there is one."""

    def __str__(self) -> str:
        name = getattr(self.function, "__name__", "function").strip("<>")
        return f"{name}(intent) within {' or '.join(map(str, self.within))}"


@dataclass(frozen=True, slots=True)
class CallerIs:
    """What the token must say of who asks; made by :func:`caller`."""

    said: Mapping[str, str]
    """Text, or ``{field}`` of the intent, by what it must equal: ``subject``, ``tenant``, ``session``, ``attribute:NAME``."""
    authenticated_within_ms: int | None
    """How long ago the subject may have proven who they are, in milliseconds; ``None`` if that does not matter."""

    def __str__(self) -> str:
        parts = [f"caller's {name.removeprefix('attribute:')} is {value}" for name, value in self.said.items()]
        if self.authenticated_within_ms is not None:
            parts.append(f"caller authenticated within {self.authenticated_within_ms // 1000} s")
        return " and ".join(parts)

    def __hash__(self) -> int:
        return hash((frozenset(self.said.items()), self.authenticated_within_ms))


@dataclass(frozen=True, slots=True)
class During:
    """When an intent may be handled; made by :func:`during`."""

    when: When
    """The times; judged at the time at which the token is."""

    def __str__(self) -> str:
        return f"during {self.when}"


Leaf: TypeAlias = Grant | Computed | CallerIs | During | Rule
Requirement: TypeAlias = Leaf | AllOf | AnyOf


def all_of(*requirements: Requirement) -> AllOf:
    """Require every one of *requirements*; raises :class:`DefinitionError` if there is none."""
    return AllOf(_several("all_of", requirements))


def any_of(*requirements: Requirement) -> AnyOf:
    """Require one of *requirements*, tried in this order; raises :class:`DefinitionError` if there is none."""
    return AnyOf(_several("any_of", requirements))


def _several(what: str, requirements: tuple[Requirement, ...]) -> tuple[Requirement, ...]:
    strangers = [one for one in requirements if not _is_requirement(one)]
    if strangers or not requirements:
        raise DefinitionError(f"{what}(...)", [_no_requirement(one) for one in strangers] or ["names no requirement"])
    return requirements


def computed(function: Callable[[Any], Grant | Sequence[Grant]], *, within: Grant | Sequence[Grant]) -> Computed:
    """Require what *function* says of the intent: a grant on one resource, or several that are all required.

    It is called for each intent, must be a plain function of it, and what it returns must lie *within*; if it raises or
    says anything else, the intent is refused.

    Raises:
        DefinitionError: *within* names no grant, or a template.
    """
    bounds = (within,) if isinstance(within, Grant) else tuple(within)
    given: tuple[object, ...] = bounds
    faults = [_no_requirement(one) for one in given if not isinstance(one, Grant)]
    if not faults:
        faults = [f"{one} is a template; name the widest scope, {one.widest()}" for one in bounds if one.is_template]
    if faults or not bounds:
        raise DefinitionError("computed(...)", faults or ["within names no grant"])
    return Computed(function, bounds)


def caller(
    *,
    subject: str | None = None,
    tenant: str | None = None,
    session: str | None = None,
    attributes: Mapping[str, str] | None = None,
    authenticated_within: str | None = None,
) -> CallerIs:
    """Require that the token says this of who asks: each text equals, and ``{field}`` stands for the intent's field.

    ``authenticated_within="15m"`` (units s, m, h, d) wants a subject that has proven who they are no longer ago.

    Raises:
        DefinitionError: nothing is asked, or the time is none.
    """
    named = {"subject": subject, "tenant": tenant, "session": session}
    said = {name: value for name, value in named.items() if value is not None}
    said |= {f"attribute:{name}": value for name, value in (attributes or {}).items()}
    within_ms = None if authenticated_within is None else period_ms(authenticated_within)
    if authenticated_within is not None and within_ms is None:
        fault = f"authenticated_within={authenticated_within!r} must be a number and a unit, such as '15m' or '1h'"
        raise DefinitionError("caller(...)", [fault])
    if not said and within_ms is None:
        raise DefinitionError("caller(...)", ["asks nothing: name a subject, tenant, session, attribute or time"])
    # It would be compared as it stands, and nobody's name has braces.
    holed = [name for name, value in said.items() if filled_by(value) is None and ("{" in value or "}" in value)]
    if holed:
        faults = [f"{name} {said[name]!r}: a field fills all of it; write '{{field}}'" for name in holed]
        raise DefinitionError("caller(...)", faults)
    return CallerIs(MappingProxyType(said), within_ms)


def during(when: When | str) -> During:
    """Require that it is now a time of *when*, as ``mon-fri 09:00-17:00 Europe/London``; see ``pf_stream.model.when``.

    Raises:
        DefinitionError: the text says no times.
    """
    if isinstance(when, When):
        return During(when)
    try:
        return During(When.parse(when))
    except BadWhenError as error:
        raise DefinitionError("during(...)", [str(error)]) from None


def parse_requirement(text: str) -> Requirement:
    """The requirement that *text* writes, in one of the forms above. Operations and rules must be known by now.

    Raises:
        DefinitionError: it has none of the forms, or names what is not known; the message has the nearest name.
        BadGrantError: it is neither times, rule nor caller, and no grant.
    """
    word, _, rest = text.partition(" ")
    read = _FORMS.get(word)
    if read is not None:
        return read(rest)
    if rest and ":" not in word:  # a scope may have a space
        fault = (
            f"{word!r} begins no requirement{nearest(word, _FORMS)}; a grant is written as 'FlightCap.report:/UA/**'"
        )
        raise DefinitionError(f"requirement {text!r}", [fault])
    return grant(text)


def _parse_caller(text: str) -> CallerIs:
    said: dict[str, str] = {}
    faults = []
    for clause in text.split(" and ") if text else ():
        match = _clause(clause)
        if match is None:
            faults.append(
                f"{clause!r} is none of subject=X, tenant=X, session=X, attribute NAME=X and authenticated within 15m, "
                f"where X is one word, or '{{field}}'"
            )
            continue
        name = match[1].rstrip("= ")
        if name in said:
            faults.append(f"{name} is said twice; keep one")
        said[name] = match[2]
    if faults:
        raise DefinitionError(f"requirement 'caller {text}'", faults)
    return caller(
        subject=said.get("subject"),
        tenant=said.get("tenant"),
        session=said.get("session"),
        attributes={
            name.removeprefix("attribute "): value for name, value in said.items() if name.startswith("attribute ")
        },
        authenticated_within=said.get("authenticated within"),
    )


_FORMS: Final[Mapping[str, Callable[[str], Requirement]]] = {
    "during": during,
    "rule": find_rule,
    "caller": _parse_caller,
}
"""By the word with which they begin, the texts of what is no grant."""


def leaves(requirement: Requirement) -> Iterator[Leaf]:
    """The parts of *requirement* that are not made of others."""
    if isinstance(requirement, AllOf | AnyOf):
        for one in requirement.requirements:
            yield from leaves(one)
    else:
        yield requirement


def grants_of(requirement: Requirement) -> Iterator[Grant]:
    """Every grant that may be asked for *requirement*; of what is computed, what it may be at most."""
    for leaf in leaves(requirement):
        if isinstance(leaf, Grant):
            yield leaf
        elif isinstance(leaf, Computed):
            yield from leaf.within


def fields_of(requirement: Requirement) -> Iterator[str]:
    """The intent's fields that are read to decide *requirement*, beside those that functions read."""
    for leaf in leaves(requirement):
        if isinstance(leaf, Grant):
            yield from leaf.fields
        elif isinstance(leaf, CallerIs):
            yield from filter(None, map(filled_by, leaf.said.values()))


def filled_by(text: str) -> str | None:
    """The intent's field that stands for *text* of :class:`CallerIs`, ``{field}``; ``None`` if it stands for itself."""
    hole = _field(text)
    return None if hole is None else hole[1]


def read_requirements(given: object) -> tuple[Requirement, ...] | None:
    """*given*, a requirement or a sequence of them, as a tuple; ``None`` if it is something else, or empty."""
    several: tuple[Any, ...] = tuple(given) if isinstance(given, list | tuple) else (given,)
    return several if several and all(map(_is_requirement, several)) else None


def requirement_faults(requirement: Requirement, fields: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with *requirement* of an intent type with these *fields* (of pydantic)."""
    for leaf in leaves(requirement):
        for name in fields_of(leaf):
            info = fields.get(name)
            if info is None:
                yield f"requires {leaf}, but has no field {name!r}{nearest(name, fields)}"
            elif info.annotation is not str:
                yield f"requires {leaf}, so field {name!r} must be a str, not {info.annotation}"
        if isinstance(leaf, Grant):
            for wildcard, hole in (("*", "{field}"), ("**", "{field...}")):
                if wildcard in leaf.segments():
                    yield (
                        f"requires {leaf}, but an intent is about one resource and nothing fills {wildcard!r}: write a field "
                        f"of the intent in its place, such as {hole}, or name one resource"
                    )


def _is_requirement(value: object) -> bool:
    return isinstance(value, Grant | Computed | CallerIs | During | Rule | AllOf | AnyOf)


def _no_requirement(value: object) -> str:
    return f"{value!r} is no requirement: write SomeCap.operation('/scope'), any_of(...), computed(...) or caller(...)"
