"""Classes that a pipeline needs and nobody writes: intent types, states and reactors, under stable names."""

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any

from pydantic import ConfigDict

from pf_stream.model import PUBLIC, Intent, Key, Reactor, Requirement, State, on
from pf_stream.model.failure import OnError

__all__ = ["intent_type", "reactor_type", "state_type"]

Handler = Callable[[Any, Any, Any, Any], Any]
"""A method: the reactor, the intent, the state and the context; returns effects."""


def intent_type(
    name: str, topic: str, fields: Mapping[str, Any], requires: Sequence[Requirement] = (), key: str = "key"
) -> type[Any]:
    """An intent type of the dotted *name* with a *key* and *fields*, given as name and type."""
    annotations = {key: Annotated[str, Key], **fields}
    made: type[Any] = types.new_class(
        _class_name(name),
        (Intent,),
        {"name": name, "topic": topic, "requires": tuple(requires) or PUBLIC},
        lambda body: body.update(
            __annotations__=annotations,
            __module__=__name__,
            __doc__=f"Made for the pipeline {name.partition('.')[0]}.",
            # No source says something of a field; to look for it takes long where the stack is deep and modules are many.
            model_config=ConfigDict(use_attribute_docstrings=False),
        ),
    )
    return made


def state_type(name: str, fields: Mapping[str, tuple[Any, Any]]) -> type[State]:
    """A state with *fields*, given as name, type and what makes the first value; ``None`` of a map."""
    made: type[State] = types.new_class(
        _class_name(name),
        (State,),
        {},
        lambda body: body.update(
            __annotations__={field_name: kind for field_name, (kind, _) in fields.items()},
            __module__=__name__,
            **{name_: field(default_factory=make) for name_, (_, make) in fields.items() if make is not None},
        ),
    )
    return made


def reactor_type(
    id_: str,
    state: type[State],
    handlers: Mapping[str, tuple[type[Intent], Handler]],
    *,
    on_error: OnError,
    event_time: bool,
    anonymous: bool,
    emits: Sequence[type[Intent]],
) -> type[Reactor[Any]]:
    """A reactor with *handlers*, given as the method's name, the intent type and the function."""
    methods = {}
    for name, (intent, function) in handlers.items():
        function.__name__ = name  # a function of its own in each, made for it
        function.__annotations__ = {"intent": intent, "state": state}
        methods[name] = on(function)
    made: type[Reactor[Any]] = types.new_class(
        _class_name(id_),
        (Reactor[state],),  # type: ignore[valid-type]
        {"id": id_, "on_error": on_error, "event_time": event_time, "anonymous": anonymous, "emits": emits},
        lambda body: body.update(__slots__=(), __module__=__name__, **methods),
    )
    return made


def _class_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.replace(".", "_").replace("-", "_").split("_"))
