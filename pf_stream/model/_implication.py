"""What this process's operations imply, by name: one graph for all families.

Names, not objects, because that is what tokens hold, and because a module that is loaded twice makes its objects twice.
"""

from collections.abc import Iterable, Iterator, Mapping

__all__ = ["circles", "declare", "implied", "meaning_of", "way"]

Meaning = Mapping[str, frozenset[str]]
"""A family's operations, each with the operations that its declaration implies, by full name."""

_families: dict[str, Meaning] = {}


def meaning_of(family: str) -> Meaning | None:
    """What *family* was declared to mean, or None."""
    return _families.get(family)


def declare(family: str, meaning: Meaning) -> None:
    """Make *family* known."""
    _families[family] = meaning


def implied(name: str, extra: Meaning | None = None) -> set[str]:
    """All that follows from *name* in one step or more, as if *extra* were declared too."""
    reached: set[str] = set()
    todo = [*_steps(name, extra)]
    while todo:
        step = todo.pop()
        if step not in reached:
            reached.add(step)
            todo.extend(_steps(step, extra))
    return reached


def way(start: str, goal: str) -> tuple[str, ...]:
    """The names from *start* to *goal*, by the fewest steps and of several ways the first by name; empty if there is none."""
    ways: list[tuple[str, ...]] = [(start,)]
    seen = {start}
    for before in ways:  # it grows while it is read: breadth first
        if before[-1] == goal:
            return before
        steps = sorted(_steps(before[-1], None) - seen)
        seen.update(steps)
        ways.extend((*before, step) for step in steps)
    return ()


def circles(meaning: Meaning) -> Iterator[list[str]]:
    """The circles that declaring *meaning* would close, each as the names on it and the first one again."""
    told: set[str] = set()
    for start in meaning:
        if start in told or start not in implied(start, meaning):
            continue
        path = [start]
        while len(path) == 1 or path[-1] != start:
            path.append(_step_towards(start, _steps(path[-1], meaning), meaning))
        told.update(path)
        yield path


def _step_towards(goal: str, steps: Iterable[str], extra: Meaning) -> str:
    return goal if goal in steps else min(step for step in steps if goal in implied(step, extra))


def _steps(name: str, extra: Meaning | None) -> frozenset[str]:
    if extra is not None and name in extra:
        return extra[name]
    return _families.get(name.partition(".")[0], {}).get(name, frozenset())
