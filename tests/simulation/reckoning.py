"""What streams must come to, in plain Python, from what was sent and nothing else.

Where nothing may be late each result is known to the last number. Where somebody falls silent and is waited for no more it is
a matter of milliseconds what of theirs is late; then whatever is in no result must be among what was late, and each is in one
place.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from tests.simulation.promise import broken, same

__all__ = ["NOBODY", "Result", "Sent", "Windows"]

NOBODY = -1
"""In place of the number of a partner that is not there."""


class Sent(NamedTuple):
    """An intent that was sent and not refused."""

    kind: str
    """``saw``, ``heard`` or ``book``."""
    partition: int
    """By which it came."""
    who: str
    """Its key."""
    room: str
    """The key behind an internal topic."""
    number: int
    """Equal numbers are repetitions of one intent."""
    time_ms: int
    """When it happened."""
    act: str = ""
    """What is done, of a ``book``."""


class Result(NamedTuple):
    """What a stage told."""

    key: str
    start_ms: int
    end_ms: int
    kind: str
    numbers: tuple[int, ...]


Span = tuple[str, int, int]
"""A window: its key, when it begins, and when it ends."""


class Windows(NamedTuple):
    """A kind of windows."""

    of: Callable[[Sequence[Sent]], Mapping[tuple[int, int], Sequence[int]]]
    """All windows of one key, and the numbers in them."""
    own: Callable[[int, tuple[int, int]], bool]
    """Whether a value of that time is late if it is not in that window, which is the last to close of those that it is in."""

    def expected(self, sent: Iterable[Sent]) -> dict[Span, Counter[int]]:
        """By window, what must be in it."""
        return {
            (room, *span): Counter(numbers)
            for room, values in by_room(sent).items()
            for span, numbers in self.of(values).items()
        }

    def check(
        self, name: str, sent: Sequence[Sent], results: Sequence[Result], late: Counter[int], *, strict: bool
    ) -> None:
        """Compare; *strict* if nothing may be late."""
        found = told(name, results)
        expected = self.expected(sent)
        if strict:
            same("wrong outputs", f"windows of {name}", found, expected)
            same("wrong outputs", f"what is late for {name}", late, Counter())
            return
        times = {one.number: one.time_ms for one in sent}
        taken = Counter(late)
        for (key, start_ms, end_ms), numbers in found.items():
            self.check_one(name, sent, (key, start_ms, end_ms), numbers, expected)
            taken += Counter(
                {number: n for number, n in numbers.items() if self.own(times[number], (start_ms, end_ms))}
            )
        same("wrong outputs", f"windows of {name} and what is late", taken, Counter(one.number for one in sent))

    def check_one(
        self, name: str, sent: Sequence[Sent], span: Span, numbers: Counter[int], expected: Mapping[Span, Counter[int]]
    ) -> None:
        """See that nothing is in a window that does not belong there."""
        if not numbers <= expected.get(span, Counter()):
            broken("wrong outputs", f"{name}: {span} has {numbers}, of {expected.get(span)}")


class Sessions(Windows):
    """Sessions: what is late may be what would have made one of two."""

    def check_one(
        self, name: str, sent: Sequence[Sent], span: Span, numbers: Counter[int], expected: Mapping[Span, Counter[int]]
    ) -> None:
        inside = [one for one in sent if one.number in numbers and one.room == span[0]]
        if list(self.of(inside)) != [span[1:]]:
            broken("wrong outputs", f"{name}: {span} has {numbers}, which are {list(self.of(inside))}")


def by_room(sent: Iterable[Sent]) -> dict[str, list[Sent]]:
    """Who came to each room, in the order in which they were sent."""
    rooms: dict[str, list[Sent]] = {}
    for one in sent:
        rooms.setdefault(one.room, []).append(one)
    return rooms


def told(name: str, results: Sequence[Result]) -> dict[Span, Counter[int]]:
    """What each window ended at: one final result; early ones before it, corrections behind it."""
    found: dict[Span, Counter[int]] = {}
    early: list[tuple[Span, Counter[int]]] = []
    retracted: set[Span] = set()
    for one in results:
        span, numbers = one[:3], Counter(one.numbers)
        match one.kind:
            case "early" if span not in found:
                early.append((span, numbers))
            case "final" if span not in found:
                found[span] = numbers
            case "retraction" if found.get(span) == numbers and span not in retracted:
                retracted.add(span)
            case "update" if span in retracted:
                retracted.remove(span)
                found[span] = numbers
            case _:
                broken("wrong outputs", f"{name} told {one} when it had told {found.get(span)} of that window")
    for span, numbers in early:
        if not numbers <= found.get(span, Counter()):
            broken("wrong outputs", f"{name} told {numbers} of {span} early, and {found.get(span)} in the end")
    same("wrong outputs", f"what {name} took back and did not replace", retracted, set())
    return found


# -- kinds of windows ----------------------------------------------------------------------------------------------------


def hopping(size_ms: int, every_ms: int) -> Windows:
    """Windows that begin at multiples of *every_ms*; with the size they are tumbling ones."""

    def of(values: Sequence[Sent]) -> dict[tuple[int, int], list[int]]:
        found: dict[tuple[int, int], list[int]] = {}
        for one in values:
            newest = one.time_ms // every_ms * every_ms
            for start in range(newest, one.time_ms - size_ms, -every_ms):
                found.setdefault((start, start + size_ms), []).append(one.number)
        return found

    return Windows(of, lambda time_ms, span: span[0] == time_ms // every_ms * every_ms)


def sliding(size_ms: int) -> Windows:
    """For each time at which there is a value, those of the time before."""

    def of(values: Sequence[Sent]) -> dict[tuple[int, int], list[int]]:
        return {
            (end - size_ms, end): [one.number for one in values if end - size_ms <= one.time_ms < end]
            for end in {one.time_ms + 1 for one in values}
        }

    return Windows(of, lambda time_ms, span: span[1] == time_ms + 1)


def sessions(gap_ms: int) -> Windows:
    """Values that follow each other within less than a gap."""

    def of(values: Sequence[Sent]) -> dict[tuple[int, int], list[int]]:
        found: dict[tuple[int, int], list[int]] = {}
        run: list[Sent] = []
        for one in [*sorted(values, key=lambda value: value.time_ms), None]:
            if run and (one is None or one.time_ms - run[-1].time_ms >= gap_ms):
                found[run[0].time_ms, run[-1].time_ms + gap_ms] = [each.number for each in run]
                run = []
            if one is not None:
                run.append(one)
        return found

    return Sessions(of, lambda time_ms, span: True)


# -- what goes by the order of arrival -----------------------------------------------------------------------------------


def check_counted(
    size: int, sent: Sequence[Sent], results: Sequence[Result], rest: Mapping[str, Sequence[int]]
) -> None:
    """So many each; what came by one partition in its order. *rest* is what the states hold by room."""
    for room, values in by_room(sent).items():
        windows = [one.numbers for one in results if one.key == room]
        if any(len(one) != size for one in windows) or len(rest.get(room, ())) >= size:
            broken("wrong outputs", f"counted in {room}: {windows} and {rest.get(room)}")
        check_arrival(f"counted in {room}", [*(n for one in windows for n in one), *rest.get(room, ())], values)


def check_global(sent: Sequence[Sent], results: Sequence[Result]) -> None:
    """Each result goes on where the one before it ended, and the last one has all."""
    for room, values in by_room(sent).items():
        before: tuple[int, ...] = ()
        for one in results:
            if one.key == room:
                if one.numbers[: len(before)] != before or one.kind != "early" or len(one.numbers) <= len(before):
                    broken("wrong outputs", f"all in {room}: {one} behind {before}")
                before = one.numbers
        check_arrival(f"all in {room}", before, values)


def check_arrival(what: str, numbers: Sequence[int], sent: Sequence[Sent]) -> None:
    """All are there, and those of each partition in the order in which they were sent."""
    same("wrong outputs", what, Counter(numbers), Counter(one.number for one in sent))
    for partition in {one.partition for one in sent}:
        wanted = [one.number for one in sent if one.partition == partition]
        same("wrong order", what, [number for number in numbers if number in set(wanted)], wanted)


# -- joins ---------------------------------------------------------------------------------------------------------------


def check_join(before_ms: int, after_ms: int, sent: Sequence[Sent], results: Sequence[Result], *, strict: bool) -> None:
    """Each pair, and each one without a partner."""
    expected: Counter[tuple[str, tuple[int, ...]]] = Counter()
    for room, values in by_room(sent).items():
        sides = [[one for one in values if one.kind == kind] for kind in ("saw", "heard")]
        partners: set[Sent] = set()
        for left in sides[0]:
            for right in sides[1]:
                if -before_ms <= right.time_ms - left.time_ms <= after_ms:
                    expected[room, (left.number, right.number)] += 1
                    partners |= {left, right}
        alone = [one for one in values if one not in partners]
        for one in alone:
            expected[room, (one.number, NOBODY) if one.kind == "saw" else (NOBODY, one.number)] += 1
    found = Counter((one.key, one.numbers) for one in results)
    if strict:
        same("wrong outputs", "pairs", found, expected)
        return
    pairs = Counter({one: n for one, n in found.items() if NOBODY not in one[1]})
    if not pairs <= expected:
        broken("wrong outputs", f"pairs {pairs - expected}, which are none")
    alone_most = Counter(one.number for one in sent)
    if not Counter(max(numbers) for (_, numbers) in (found - pairs).elements()) <= alone_most:
        broken("wrong outputs", f"{found - pairs} are alone, of {alone_most}")


def check_as_of(tolerance_ms: int, sent: Sequence[Sent], results: Sequence[Result], *, strict: bool) -> None:
    """Each left one with the latest right one that had happened by then."""
    lefts = {one.number: one for one in sent if one.kind == "saw"}
    rights = [one for one in sent if one.kind == "heard"]
    found = Counter(one.numbers[0] for one in results)
    expected = Counter(one.number for one in sent if one.kind == "saw")
    if (strict and found != expected) or not found <= expected:
        broken("wrong outputs", f"as of: {found} instead of {expected}")
    for key, _, _, _, (left, right) in results:
        at_ms = lefts[left].time_ms
        known = {
            one.number: one.time_ms
            for one in rights
            if one.room == key and at_ms - tolerance_ms <= one.time_ms <= at_ms
        }
        latest = {number for number, time_ms in known.items() if time_ms == max(known.values())} or {NOBODY}
        if right not in (latest if strict else {*known, NOBODY}):
            broken("wrong outputs", f"as of {left}: {right} instead of {latest}")


def rows_of(sent: Sequence[Sent], gone: Callable[[int], bool], *, tables: bool) -> list[tuple[str, tuple[int, ...]]]:
    """By key, what comes of a table of what was heard, in the order of the log: with each that was seen its row; if *tables*, both
    rows whenever one of them changes."""
    told: list[tuple[str, tuple[int, ...]]] = []
    rows: dict[tuple[str, str], int] = {}
    for one in sent:
        at = one.who, one.kind
        if one.kind == "heard" and gone(one.number):
            rows.pop(at, None)
        else:
            rows[at] = one.number
        pair = tuple(rows.get((one.who, kind), NOBODY) for kind in ("saw", "heard"))
        if (tables and pair != (NOBODY, NOBODY)) or (not tables and one.kind == "saw"):
            told.append((one.who, pair))
    return told
