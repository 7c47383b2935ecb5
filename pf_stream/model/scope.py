"""Scopes: which resources a capability is about.

A resource is a concrete path, ``/UA/EWR``. A scope is a pattern over such paths::

    /UA/EWR     that resource and no other
    /UA/*       "*" stands for exactly one segment: /UA/EWR, not /UA, not /UA/EWR/1
    /UA/**      "**", only at the end, stands for the folder itself and all below: /UA, /UA/EWR, /UA/EWR/1
    /**         everything, "/" included

Nothing else does prefix magic: ``/UA`` says nothing about ``/UA/EWR`` or ``/UAX``. What could be read in two ways (``..``, an empty
segment, percent-encoding, text that is not in Unicode's normal form C) is refused, never normalised: a path that one
reader normalises and the next does not is how checks are walked around.

As sets of resources, scopes are closed under intersection, and :meth:`Scope.includes` and :meth:`Scope.intersect` are exact.
"""

import re
import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar, Final

from pf_stream.errors import PFError

__all__ = ["BadScopeError", "Scope", "bad_segment", "check_resource"]

# Control characters, line and paragraph separators, characters that turn the reading order, and those that print as nothing
# (Unicode's Default_Ignorable_Code_Point): two resources that look alike in an audit record must not differ in these.
_UNSEEN: Final = (
    r"\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    r"\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# What may stand in one segment. "*" and "?" are pattern characters here or elsewhere, braces are template characters,
# "%" may be an encoding of any of them.
_SEGMENT: Final = rf"(?!\.{{1,2}}(?:/|\Z))[^/*?{{}}%{_UNSEEN}]+"
_full_segment: Final = re.compile(_SEGMENT).fullmatch
_full_resource: Final = re.compile(rf"/|(?:/{_SEGMENT})+").fullmatch
_full_plain: Final = re.compile(r"(?:/[A-Za-z0-9_:-][A-Za-z0-9_:. -]*)+").fullmatch
_find_unseen: Final = re.compile(f"[{_UNSEEN}]").search

# The characters that mean something in a regular expression, in Rust's dialect and in Python's; the others that do
# ("*", "?", "{", "}") cannot occur in a literal segment.
_regex_special: Final = re.compile(r"[\\.+()|\[\]^$]")
_regex_escaped: Final = re.compile(r"\\([\\.+()|\[\]^$])")

_ONE_REGEX: Final = "[^/]+"
_REST_REGEX: Final = "(/[^/]+)*"
_ANY_REGEX: Final = "^/([^/]+(/[^/]+)*)?$"


class BadScopeError(PFError):
    """Raised when the text of a scope is not one of the four forms."""

    code = "bad_scope"

    def __init__(self, text: str, fault: str) -> None:
        self.text = text
        self.fault = fault
        super().__init__(f"scope {text!r}: {fault}")


def bad_segment(value: str) -> bool:
    """Whether *value*, from an intent's field, may not fill one segment of a resource.

    Refused are "", ".", "..", and whatever contains ``/ * ? { } %``, a control or invisible character, or is not in
    normal form C: all that :func:`check_resource` would refuse in ``"/" + value``, and "/" and "" too.
    """
    return _full_segment(value) is None or not (value.isascii() or unicodedata.is_normalized("NFC", value))


def check_resource(path: str) -> str | None:
    """None if *path* is a resource (``/``, or ``/`` before each of one or more segments), else what is wrong with it."""
    # Most have only letters, digits and such; the first question is the quicker one.
    if _full_plain(path) is not None:
        return None
    if _full_resource(path) is not None and (path.isascii() or unicodedata.is_normalized("NFC", path)):
        return None
    if not path.startswith("/"):
        return "it does not start with '/'"
    for segment in path[1:].split("/"):
        fault = _segment_fault(segment)
        if fault is not None:
            return fault
    return "it is not in Unicode's normal form C"


def _segment_fault(segment: str) -> str | None:
    if not segment:
        return "it has an empty segment ('//' or a '/' at the end)"
    if segment in {".", ".."}:
        return f"it has the segment '{segment}'"
    for char in "*?{}":
        if char in segment:
            return f"it has a '{char}'"
    if "%" in segment:
        return "it has a '%' (percent-encoding is not decoded)"
    unseen = _find_unseen(segment)
    if unseen is not None:
        return f"it has the control or invisible character U+{ord(unseen[0]):04X}"
    if not unicodedata.is_normalized("NFC", segment):
        return "it is not in Unicode's normal form C"
    return None


@dataclass(frozen=True, slots=True)
class Scope:
    """A set of resources, written as one pattern; made by :meth:`parse`."""

    segments: tuple[str, ...]
    """The segments before a final ``**``; ``*`` stands for any one."""
    below: bool
    """Whether the pattern ends in ``**``."""
    _folder: str | None = field(init=False, repr=False, compare=False)
    # The segments as the start of a path, "/UA/EWR/", unless one of them is "*": then comparing is enough.

    ANY: ClassVar["Scope"]
    """``/**``: every resource."""

    def __post_init__(self) -> None:
        folder = None if "*" in self.segments else "/".join(("", *self.segments, ""))
        object.__setattr__(self, "_folder", folder)

    @classmethod
    def parse(cls, text: str) -> "Scope":
        """The scope that *text* writes.

        Raises:
            BadScopeError: it is none of the four forms; the message says why.
        """
        return _kept_parse(text) if len(text) <= _LONGEST_KEPT else _parse(text)

    @property
    def is_exact(self) -> bool:
        """Whether it is one resource."""
        return not self.below and "*" not in self.segments

    def covers(self, resource: str) -> bool:
        """Whether *resource*, a path that passed :func:`check_resource`, is in this set."""
        if not self.segments:
            return self.below or resource == "/"
        if self._folder is not None:
            path = resource + "/"
            return path.startswith(self._folder) if self.below else path == self._folder
        if resource == "/":
            return False
        have = resource[1:].split("/")
        want = self.segments
        if len(have) < len(want) or (len(have) > len(want) and not self.below):
            return False
        return all(one in ("*", other) for one, other in zip(want, have, strict=False))

    def includes(self, other: "Scope") -> bool:
        """Whether every resource of *other* is one of this."""
        if self.below:
            if len(other.segments) < len(self.segments):
                return False
        elif other.below or len(other.segments) != len(self.segments):
            return False
        return all(one in ("*", two) for one, two in zip(self.segments, other.segments, strict=False))

    def intersect(self, other: "Scope") -> "Scope | None":
        """The scope of exactly the resources that are in both, or None where there is none."""
        short, long = (self, other) if len(self.segments) <= len(other.segments) else (other, self)
        if len(short.segments) < len(long.segments) and not short.below:
            return None
        met: list[str] = []
        for one, two in zip(short.segments, long.segments, strict=False):
            if one not in ("*", two) and two != "*":
                return None
            met.append(two if one == "*" else one)
        met.extend(long.segments[len(met) :])
        both_end_alike = len(short.segments) == len(long.segments)
        return Scope(tuple(met), long.below and (short.below or not both_end_alike))

    def to_regex(self) -> str:
        """The same set as an anchored regular expression, for Biscuit's ``matches`` (Rust's regex) and for Python's ``fullmatch``."""
        if self == Scope.ANY:
            return _ANY_REGEX
        if not self.segments:
            return "^/$"
        inner = "".join(
            "/" + (_ONE_REGEX if segment == "*" else _regex_special.sub(r"\\\g<0>", segment))
            for segment in self.segments
        )
        return f"^{inner}{_REST_REGEX if self.below else ''}$"

    @classmethod
    def from_regex(cls, text: str) -> "Scope | None":
        """The scope whose :meth:`to_regex` is *text*, or None if there is none."""
        return _kept_from_regex(text) if len(text) <= _LONGEST_KEPT else _from_regex(text)

    def __str__(self) -> str:
        parts = [*self.segments, "**"] if self.below else self.segments
        return "/" + "/".join(parts)


def _from_regex(text: str) -> Scope | None:
    if text == _ANY_REGEX:
        return Scope.ANY
    body = text.removeprefix("^").removesuffix("$")
    plain = body.removesuffix(_REST_REGEX)
    pattern = plain.replace("/" + _ONE_REGEX, "/*") + ("/**" if plain != body else "")
    try:
        scope = Scope.parse(_regex_escaped.sub(r"\1", pattern))
    except BadScopeError:
        return None
    # Undoing is only a guess; that doing it again gives the same text is the proof.
    return scope if scope.to_regex() == text else None


def _parse(text: str) -> Scope:
    if not text.startswith("/"):
        raise BadScopeError(text, "it does not start with '/'; write an absolute pattern such as '/reports/**'")
    if text == "/":
        return Scope((), below=False)
    segments = text[1:].split("/")
    below = segments[-1] == "**"
    if below:
        segments.pop()
    for segment in segments:
        if segment == "*":
            continue
        if segment == "**":
            raise BadScopeError(text, "'**' may stand only at the end")
        if "*" in segment:
            raise BadScopeError(text, f"'*' stands for a whole segment, not for a part of {segment!r}")
        fault = _segment_fault(segment)
        if fault is not None:
            raise BadScopeError(text, fault)
    return Scope(tuple(segments), below)


_LONGEST_KEPT: Final = 128
"""In characters. What is kept is bounded: 4096 texts of this length, whoever chose them."""
_kept_parse: Final = lru_cache(maxsize=4096)(_parse)
_kept_from_regex: Final = lru_cache(maxsize=4096)(_from_regex)

Scope.ANY = Scope((), below=True)
