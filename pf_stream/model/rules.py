"""Rules: conditions of one's own on who may have an intent handled, known by name.

::

    @rule("files.own_folder")
    def own_folder(intent: WriteFile, caller: Caller) -> bool | str:
        return intent.path.startswith(f"/home/{caller.subject}/") or "it is somebody else's folder"

    class WriteFile(Intent, name="files.write", requires=[FileCap.write("/{path...}"), own_folder]): ...

A topology file names it as ``rule files.own_folder``. A rule is a plain function of its two arguments: what it decides, it
decides again when the intent is read again.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from pf_stream.errors import DefinitionError
from pf_stream.model._names import nearest
from pf_stream.model.callers import Caller

__all__ = ["Rule", "find_rule", "rule"]

RuleFunction: TypeAlias = Callable[[Any, Caller], bool | str]

_name: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*").fullmatch
_known: dict[str, "Rule"] = {}


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A named condition; made by :func:`rule`. Call it as the function that it was made of."""

    name: str
    """Dotted, lower case; one name has one meaning in a process."""
    function: RuleFunction
    """``True`` lets the intent pass, ``False`` or a text, which is the reason, denies it, and so does whatever it raises."""

    def __call__(self, intent: Any, caller: Caller) -> bool | str:
        return self.function(intent, caller)

    def __str__(self) -> str:
        return f"rule {self.name}"


def rule(name: str) -> Callable[[RuleFunction], Rule]:
    """Make a function a rule of that name.

    Raises:
        DefinitionError: the name is none, or another function has it.
    """
    if not _name(name):
        raise DefinitionError(f"rule {name!r}", ["the name must be dotted lower case, such as 'files.own_folder'"])

    def register(function: RuleFunction) -> Rule:
        known = _known.get(name)
        # A module may be loaded twice; then the function is another object and the same function.
        if known is not None and _where(known.function) != _where(function):
            raise DefinitionError(f"rule {name!r}", [f"{_where(known.function)} has that name; choose another"])
        _known[name] = Rule(name, function)
        return _known[name]

    return register


def find_rule(name: str) -> Rule:
    """The rule of that name.

    Raises:
        DefinitionError: there is none; the message has the nearest name.
    """
    known = _known.get(name)
    if known is None:
        raise DefinitionError(f"rule {name!r}", [f"there is none; is its module imported?{nearest(name, _known)}"])
    return known


def _where(function: RuleFunction) -> str:
    return f"{function.__module__}:{function.__qualname__}"
