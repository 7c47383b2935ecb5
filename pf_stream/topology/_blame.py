"""Which field of a file a fault belongs to that its topology has.

The model has the rules, and knows nothing of files. So it is asked again, about one field at a time: what is wrong then, is wrong
with that field.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pf_stream.errors import DefinitionError
from pf_stream.model import Requirement, Topology, caller
from pf_stream.model.constraint import within
from pf_stream.topology.form import TopologyFile, Where

__all__ = ["ANYBODY", "located"]

ANYBODY: Final = caller(authenticated_within="1s")
"""A requirement with which nothing is wrong, to ask whether something is with the intent that it is for."""


class _Trial(NamedTuple):
    where: Where
    """The field."""
    fields: dict[str, Any]
    """It, and what it is said in terms of, as the model takes them."""
    name: str = "unnamed"


def located(
    error: DefinitionError,
    file: TopologyFile,
    reactors: Sequence[Any],
    fields: Mapping[str, Any],
    places: Sequence[Where],
    required: Sequence[tuple[Where, str, Requirement]],
    *,
    complete: bool,
) -> Iterator[tuple[Where, str]]:
    """Each fault of *error* with its field, and what is found on the way.

    *fields* are what the model was given, and *places* those of its first parts; the last part may be that of the jobs.
    *required* are the requirements by their place, with the type that each is for. Where the fields are not *complete*,
    something may seem unknown because what defines it is: then only those are asked about that name nothing else.
    """
    sound = {"namespace": "unnamed", "calendars": fields["calendars"], "parts": fields["parts"]}
    base = _faults_of("unnamed", reactors, **sound)
    of_reactors = _faults_of("unnamed", reactors, **(sound | {"parts": ()}))
    trials = _trials_alone(file, fields)
    if complete:
        trials += _trials_together(fields, places, required)
    seen = set(base)
    for trial in trials:
        for fault in _faults_of(trial.name, reactors, **(sound | trial.fields)):
            if fault not in seen:
                seen.add(fault)
                yield trial.where, fault
    # The namespace is the name if it is not given; then what is wrong with it is said of the name.
    seen.update(_faults_of("unnamed", reactors, namespace=file.name))
    if complete:
        for fault in base:
            yield ("reactors",) if fault in of_reactors else ("parts",) if file.parts else ("streams",), fault
        for fault in error.faults:
            if fault not in seen:  # of several fields together
                yield (), fault


def _trials_alone(file: TopologyFile, fields: Mapping[str, Any]) -> list[_Trial]:
    single = ("namespace", "partitions", "version", "standby")
    return [_Trial(("name",), {}, file.name), *(_Trial((field,), {field: fields[field]}) for field in single)]


def _trials_together(
    fields: Mapping[str, Any], places: Sequence[Where], required: Sequence[tuple[Where, str, Requirement]]
) -> Iterator[_Trial]:
    """Those of fields that name what others define."""
    emits = {"emits": fields["emits"], "parts": fields["parts"]}
    inner = emits | {"internal": fields["internal"]}
    for index, item in enumerate(fields["emits"]):
        yield _Trial(("emits", index), {"emits": [item]})
    for place, item in zip((*places, ("jobs",)), fields["parts"], strict=False):
        yield _Trial(place, {"parts": [item]})
    yield _Trial(("emits",), emits)
    for field in ("internal", "replies", "retired"):
        for index, item in enumerate(fields[field]):
            yield _Trial((field, index), emits | {field: [item]})
    for index, item in enumerate(fields["sinks"]):
        yield _Trial(("sinks", index), inner | {"sinks": [item]})
    yield _Trial(("tables",), {"tables": fields["tables"]})
    for name in fields["requires"]:
        yield _Trial(("requires", name), emits | {"requires": {name: ANYBODY}})
    for where, name, requirement in required:
        yield _Trial(where, emits | {"requires": {name: requirement}})
    for name, constraints in fields["constraints"].items():
        yield _Trial(("constraints", name), inner | {"constraints": {name: within("1s")}})
        for index, one in enumerate(constraints):
            yield _Trial(("constraints", name, index), inner | {"constraints": {name: one}})
        yield _Trial(("constraints", name), inner | {"constraints": {name: constraints}})


def _faults_of(name: str, reactors: Sequence[Any], **fields: Any) -> tuple[str, ...]:
    try:
        Topology(name, reactors, **fields)
    except DefinitionError as error:
        return error.faults
    return ()
