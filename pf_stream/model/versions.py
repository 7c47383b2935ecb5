"""Versions: how what was written in an older shape becomes the current one, one step for each version."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic_core import from_json, to_json

from pf_stream.errors import PFError

__all__ = ["Step", "StepError", "Steps", "read_steps", "upcast", "upgrade"]

Step = Callable[[dict[str, Any]], dict[str, Any]]
"""JSON object of one version to the JSON object of the next."""

F = TypeVar("F", bound=Step)

_MARK: Final = "__pf_from_version__"


def upgrade(*, from_version: int) -> Callable[[F], F]:
    """Mark a static method of a :class:`~pf_stream.State` as the step from one stored version to the next::

        class Aircraft(State, version=2):
            legs: int = 0
            miles: float = 0.0

            @upgrade(from_version=1)
            @staticmethod
            def _with_miles(old: dict[str, Any]) -> dict[str, Any]:
                return old | {"miles": old["legs"] * 700.0}

    A stored state goes through every step from its version to the class's, and is then validated as any other; it is
    written in the new version when it next changes. A step must depend on nothing but its argument, which it may change.
    """
    return _mark("upgrade", from_version)


def upcast(*, from_version: int) -> Callable[[F], F]:
    """Mark a static method of an :class:`~pf_stream.Intent` as the step from one version of its payload to the next.

    The topology then takes records of the older versions too, and handlers see the current one. As :func:`upgrade`.
    """
    return _mark("upcast", from_version)


def _mark(kind: str, from_version: int) -> Callable[[F], F]:
    def mark(function: F) -> F:
        setattr(function, _MARK, (kind, from_version))
        return function

    return mark


class StepError(PFError):
    """Raised when a step between two versions fails, or returns what is no JSON object."""

    code = "step_failed"

    def __init__(self, step: str, reason: str) -> None:
        self.step = step
        self.reason = reason
        super().__init__(f"{step} {reason}")


@dataclass(frozen=True, slots=True)
class Steps:
    """The way from older versions to the current one."""

    kind: str
    """``upgrade`` or ``upcast``."""
    version: int
    """The current version."""
    functions: tuple[Step, ...] = ()
    """One for each older version that can be read, the oldest first."""

    @property
    def oldest(self) -> int:
        """The oldest version that can be read."""
        return self.version - len(self.functions)

    def run(self, json: bytes, from_version: int) -> bytes:
        """A JSON object of *from_version*, one of :attr:`oldest` to :attr:`version`, as JSON of the current version.

        Raises:
            StepError: a step raised, or returned what is no JSON object.
            ValueError: *json* is no JSON object.
        """
        steps = self.functions[from_version - self.oldest :]
        if not steps:
            return json
        # pydantic's own JSON, as in what is read afterwards: whole numbers of any size, infinity as a text.
        value: Any = from_json(json)
        if not isinstance(value, dict):
            raise ValueError("it is no JSON object")
        for function in steps:
            name = f"{self.kind} {function.__qualname__}"
            try:
                value = function(value)
            except (Exception, SystemExit) as error:
                raise StepError(name, f"raised {type(error).__name__}") from error
            if not isinstance(value, dict):
                raise StepError(name, f"returned {type(value).__name__} instead of a dict")
        try:
            return to_json(value, inf_nan_mode="strings", bytes_mode="base64")
        except (ValueError, TypeError, RecursionError) as error:
            raise StepError(name, f"returned what has no JSON form: {error}") from error


def read_steps(kind: str, class_name: str, version: int, namespace: Mapping[str, object], faults: list[str]) -> Steps:
    """The steps that a class body defines; what is wrong with them is added to *faults*.

    They may begin at any version, since what nobody stores or sends any more need not be read, but end at the current one.
    """
    found: dict[int, tuple[str, Step]] = {}
    known = len(faults)
    for name, value in namespace.items():
        # In whichever order the two decorators stand.
        marked = getattr(value, _MARK, None) or getattr(getattr(value, "__func__", None), _MARK, None)
        if marked is None:
            continue
        marked_as, start = marked
        shown = f"@{kind}(from_version={start}) on {name!r}"
        function = value.__func__ if isinstance(value, staticmethod) else None
        if marked_as != kind:
            faults.append(f"{name!r}: states have @upgrade, intents have @upcast; write @{kind} here")
        elif function is None:
            faults.append(f"{shown}: write @staticmethod below it, since there is no instance of an older version")
        elif inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            faults.append(f"{shown} must be a plain function that returns a dict, not async or a generator")
        elif len(inspect.signature(function).parameters) != 1:
            faults.append(f"{shown} must take one parameter, the JSON object of version {start}")
        elif not isinstance(start, int) or start < 1:
            faults.append(f"{shown}: versions are whole numbers from 1")
        elif start >= version:
            faults.append(
                f"{shown}, but {class_name} is version {version}: a step leads to a later one, "
                f"so write version={start + 1}, or correct from_version"
            )
        elif start in found:
            faults.append(f"{shown} and {found[start][0]!r} start at the same version: keep one")
        else:
            found[start] = name, function
    if found and len(faults) == known:
        faults.extend(
            f"has a way from version {min(found)} on but no step from version {missing}: add @{kind}(from_version={missing})"
            for missing in range(min(found), version)
            if missing not in found
        )
    return Steps(kind, version, tuple(found[start][1] for start in sorted(found)))
