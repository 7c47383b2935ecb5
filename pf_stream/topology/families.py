"""Families of capabilities as topology files write them."""

from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from pf_stream.errors import DefinitionError
from pf_stream.model import define
from pf_stream.topology.form import Where

__all__ = ["define_families"]


def define_families(families: Mapping[str, Mapping[str, Sequence[str]]]) -> Iterator[tuple[Where, str]]:
    """Make them known, in an order in which each finds those that it needs; where among them something is wrong, and what."""
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
        yield (), f"families imply operations of each other: {circle}; remove one step, or make them one family"
        return
    broken = {name for name in order if _faults(name, families[name])}
    for name in broken:
        for fault in _faults(name, families[name]):  # again: the nearest name may be that of a later one
            where, reference = _place(fault, families[name])
            if _family(reference) not in broken - {name}:  # otherwise it follows from what is said of that one
                yield (name, *where), fault


def _family(reference: str) -> str:
    return reference.rpartition(".")[0]


def _faults(name: str, operations: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    try:
        define(name, operations)
    except DefinitionError as error:
        return error.faults
    return ()


def _place(fault: str, operations: Mapping[str, Sequence[str]]) -> tuple[Where, str]:
    """Where in a family a fault of it is, and the reference that is at fault, if it is one."""
    for short, references in operations.items():
        if fault.startswith(f"{short}: "):
            return (short,), ""
        for index, reference in enumerate(references):
            if fault.startswith(f"{short} implies {reference!r}, "):
                return (short, index), reference
    return (), ""
