"""The engine broken on purpose, one line at a time: the simulation must notice.

A mutant is the engine's own source with a line changed, so that nothing else differs. Where the line is not there any more
the mutant fails loudly, and has to be brought up to date with the engine.
"""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from typing import Final

import orjson
import pytest

from pf_stream.core import changelog
from pf_stream.core.entries import StoredMap
from pf_stream.core.lane import Lane
from pf_stream.core.source import Source
from pf_stream.core.store import Store
from pf_stream.core.timers import Timers
from pf_stream.core.upstreams import Upstreams
from pf_stream.core.watermark import Watermarks
from pf_stream.engine import depot, leased, replica
from pf_stream.engine.lanes import Lanes
from pf_stream.engine.leased import LeasedCommitter
from pf_stream.engine.replica import Replica
from pf_stream.engine.runner import LaneRunner
from pf_stream.engine.sender import OutputSender
from pf_stream.kafka.appender import Appender
from pf_stream.streams import _timed
from pf_stream.streams._joins import IntervalOperator
from tests.simulation import streams
from tests.simulation.boxes import Boxes
from tests.simulation.broker import Header
from tests.simulation.promise import BrokenError
from tests.simulation.world import Simulation

SEEDS: Final = range(200)

Break = Callable[[pytest.MonkeyPatch], None]


def rewrite(
    patch: pytest.MonkeyPatch, owner: type | ModuleType, name: str, *changes: tuple[str, str], **names: object
) -> None:
    """Change lines of a function; *names* are what the new lines use."""
    function = getattr(owner, name, None)
    assert function is not None, f"bring this mutant up to date: {owner.__name__} has no {name}"
    source = textwrap.dedent(inspect.getsource(function))
    for old, new in changes:
        assert source.count(old) == 1, f"bring this mutant up to date with {owner.__name__}.{name}: no {old!r}"
        source = source.replace(old, new)
    scope = {**function.__globals__, **names}
    exec(compile(source, f"<mutant of {name}>", "exec"), scope)  # noqa: S102
    patch.setattr(owner, name, scope[name])


APPEND = "    offset = await shared.changelog.submit(self, self._lane, self._lease.stamp(self._lane, batch))\n"
SEND = "    if outbox:\n        self._sender.send(unit.sequence, outbox)\n"
FENCE = "lease.fence = await appender.submit(lease, partition, lease.stamp(partition, builder.build()))"


def outputs_before_the_acknowledgement(patch: pytest.MonkeyPatch) -> None:
    rewrite(patch, LeasedCommitter, "commit", (SEND, ""), (APPEND, SEND + APPEND))


def offset_before_the_acknowledgement(patch: pytest.MonkeyPatch) -> None:
    hint = "    for topic, position in unit.positions.items():\n        shared.committed((topic, self._lane[1]), position)\n"
    rewrite(patch, LeasedCommitter, "commit", (hint, ""), (APPEND, hint + APPEND))


def memory_before_the_acknowledgement(patch: pytest.MonkeyPatch) -> None:
    """What is in memory counts as durable, although the append may not have been answered."""
    in_hand = "    self.in_hand = record_count(batch)\n" + APPEND + "    self.in_hand = 0\n"
    rewrite(patch, LeasedCommitter, "commit", (APPEND, in_hand))
    void = "    if not clean:\n        self.void()\n"
    kept = "    if not clean:\n        self._last_offset += getattr(self._committer, 'in_hand', 0)\n"
    rewrite(patch, LaneRunner, "close", (void, kept))


def no_fence(patch: pytest.MonkeyPatch) -> None:
    """``InitProducerId`` alone: until the new owner's first append, the old one's is taken."""
    end = "lease.fence = (await link.offsets([partition], end=True))[partition]"
    rewrite(patch, leased, "acquire", (FENCE, end))


def fence_by_readers(patch: pytest.MonkeyPatch) -> None:
    """The broker takes everything, and who reads the changelog passes over what came after a later fence."""
    rewrite(
        patch,
        leased,
        "acquire",
        ("transactional_id(partition)", 'f"{partition}-{worker_id}-{now_ms}"'),
    )
    rewrite(
        patch,
        replica,
        "recover",
        ("result.chunk.entries(position, fence)", "believed(changelog, position, min(fence, following))"),
        believed=believed,
    )


def believed(at: tuple[str, int], start: int, end: int) -> list[tuple[list[tuple[bytes, bytes | None]], int]]:
    """The records of a changelog whose writer's fence was the last one before them."""
    partition = Running.simulation.broker.partition(*at)
    assert partition is not None
    writer = -1
    records: list[tuple[bytes, bytes | None]] = []
    for batch in partition.log:
        header = Header.of(batch)
        for record in partition.records(header.base, header.base + header.last_delta + 1):
            if record.key == changelog.FENCE:
                writer = orjson.loads(record.value or b"")["producer_id"]
            if header.producer_id == writer and start <= record.offset < end:
                records.append((record.key or b"", record.value))
    return [(records, end)]


def unordered_appends(patch: pytest.MonkeyPatch) -> None:
    """The latest first, and without numbers by which the broker would notice."""
    rewrite(patch, Appender, "submit", (".append(item)", ".insert(min(1, len(self._queues[partition])), item)"))
    rewrite(patch, OutputSender, "_submit", ("unnumbered = target in self._unnumbered", "unnumbered = True"))


def no_running_position(patch: pytest.MonkeyPatch) -> None:
    rewrite(patch, Lane, "step", ("        if record.offset < source.next:\n            continue\n", ""))


def acquire_again_when_fenced(patch: pytest.MonkeyPatch) -> None:
    rewrite(
        patch,
        Lanes,
        "_lost",
        (
            "self._rejoins.append(asyncio.get_running_loop().call_later(delay, self._rejoin))",
            "self._begin_to_open(runner.key)",
        ),
    )


def watermark_without_state(patch: pytest.MonkeyPatch) -> None:
    """Positions in a batch of their own, before the rest."""
    apart = (
        "    rest = replace(unit, entries=[entry for entry in unit.entries if entry[0][1:2] != b'w'])\n"
        "    first = replace(unit, entries=[entry for entry in unit.entries if entry[0][1:2] == b'w'])\n"
        "    if first.entries:\n"
        "        batch = encode_unit(first, (), shared.clock.now_ms())\n"
        "        await shared.changelog.submit(self, self._lane, self._lease.stamp(self._lane, batch))\n"
        "    batch = encode_unit(rest, records, shared.clock.now_ms())\n"
    )
    rewrite(patch, LeasedCommitter, "commit", (APPEND, apart + APPEND), replace=replace)


def dedupe_by_offset_alone(patch: pytest.MonkeyPatch) -> None:
    rewrite(patch, Source, "take", ("    if last is not None and mark <= last:\n        return False\n", ""))


def timer_removed_in_another_unit(patch: pytest.MonkeyPatch) -> None:
    """What a timer does is durable before the timer is gone."""
    late: dict[Timers, list[tuple[bytes, None]]] = {}
    rewrite(
        patch,
        Timers,
        "seal",
        ("entries: list[tuple[bytes, bytes | None]] = []", "entries = late.pop(self, [])"),
        (
            "        entries.append((key, raw))\n",
            "        (late.setdefault(self, []) if raw is None else entries).append((key, raw))\n",
        ),
        late=late,
    )


def objects_forgotten_in_use(patch: pytest.MonkeyPatch) -> None:
    """At an acknowledgement, also those that the open unit has changed."""
    rewrite(patch, Store, "age", ("self._idle, self.live = self.live, {}", "self.live = {}"))


def shelf_before_the_acknowledgement(patch: pytest.MonkeyPatch) -> None:
    early = "    self.lane.shelf.put(unit.entries, self.lane.shelf.position)\n"
    commit = "    committed = await committer.commit(unit)\n"
    rewrite(patch, LaneRunner, "_append", (commit, early + commit))


def outbox_left_off_the_shelf(patch: pytest.MonkeyPatch) -> None:
    rewrite(patch, LaneRunner, "_append", ("committed.last_offset + 1, committed.outbox", "committed.last_offset + 1"))


def old_shelf_believed(patch: pytest.MonkeyPatch) -> None:
    """What was deleted since then is gone from the changelog, and is on the shelf still."""
    rewrite(patch, depot, "doubt", ("not 0 <= age_ms < retention_ms", "False"))
    patch.setattr(replica, "doubt", depot.doubt)


def shelf_is_not_cleared(patch: pytest.MonkeyPatch) -> None:
    """It is said to be old, and filled over what it holds."""
    rewrite(patch, Replica, "open", ("await shelf.clear(topic_id)", "shelf._topic_id, shelf.note = topic_id, None"))


def shelf_complete_too_early(patch: pytest.MonkeyPatch) -> None:
    """Its position is that of the fence before what lies before the fence is read."""
    done = "    self._completed(before_ms)\n"
    read = "    count = await recover"
    rewrite(patch, Replica, "catch_up", (done, ""), (read, done + read))


def standby_thought_complete(patch: pytest.MonkeyPatch) -> None:
    """Who takes over does not read what was appended since the last look."""
    start = "start, self.position = self.position, fence"
    rewrite(patch, Replica, "catch_up", (start, "start, self.position = fence if self.position else 0, fence"))


# -- streams and time --------------------------------------------------------------------------------------------------


def clock_not_stored(patch: pytest.MonkeyPatch) -> None:
    stored = "        entries.append((changelog.EVENT_CLOCK, changelog.EVENT_CLOCK_VALUE.pack(self.event_ms)))\n"
    rewrite(patch, Timers, "seal", (stored, ""))


def clock_not_recovered(patch: pytest.MonkeyPatch) -> None:
    rewrite(patch, Timers, "restore_clock", ("self._sealed_event_ms = event_ms", "self._sealed_event_ms = None"))


def clock_is_the_maximum(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Upstreams, "low_ms", property(lambda self: self._latest_ms))


def nobody_is_ever_idle(patch: pytest.MonkeyPatch) -> None:
    rewrite(patch, Upstreams, "rest", ("upstream.idle = self.stale = True", "pass"))


def idle_at_once(patch: pytest.MonkeyPatch) -> None:
    rewrite(patch, Upstreams, "rest", ("read_ms - upstream.heard_ms >= self._idle_ms", "True"))


def watermark_records_dropped(patch: pytest.MonkeyPatch) -> None:
    """Lanes hear of clocks only by what goes to them."""
    rewrite(patch, Lane, "step", ("handling.hear(delivery)", "pass"))


def results_told_behind_the_clock(patch: pytest.MonkeyPatch) -> None:
    """What a timer causes says the clock that made it due, and not the moment before."""
    rewrite(patch, Watermarks, "header", ("min(time_ms, timer.due_ms - 1)", "time_ms"))


def entry_not_undone(patch: pytest.MonkeyPatch) -> None:
    rewrite(patch, StoredMap, "undo", ("slot.value = _GONE if slot.raw is None else _UNREAD", "pass"))


def no_tombstone_for_an_entry(patch: pytest.MonkeyPatch) -> None:
    kept = "if slots[key].raw not in (raw, None)"
    rewrite(patch, StoredMap, "seal", ("if slots[key].raw != raw", kept))


def no_tombstones_for_what_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    rewrite(patch, Store, "seal_maps", ("records += [(name, None) for name, _ in stored if name not in known]", "pass"))


def closes_without_waiting(patch: pytest.MonkeyPatch) -> None:
    """A window closes at its end, whatever may come out of order."""
    rewrite(patch, _timed._Windows, "__init__", ("window.bound_ms + (stage.lag_ms if self.event else 0)", "0"))


def only_the_first_window_closes(patch: pytest.MonkeyPatch) -> None:
    rewrite(patch, _timed._Windows, "close", ("self.wait(due_ms, state, flow)", "pass"))


def closed_windows_stay(patch: pytest.MonkeyPatch) -> None:
    rewrite(patch, _timed._Windows, "close", ("flow.forget()", "pass"))


def window_gone_before_its_grace(patch: pytest.MonkeyPatch) -> None:
    rewrite(
        patch, _timed._Windows, "close", ("end <= state.done and end + self.keep_ms <= reached", "end <= state.done")
    )


def sessions_do_not_merge(patch: pytest.MonkeyPatch) -> None:
    rewrite(patch, _timed._Sessions, "add_one", ("made = self.merge(made, other)", "made = other"))


def gone_before_there_is_a_clock(patch: pytest.MonkeyPatch) -> None:
    """While the clock says nothing a value's own time stands in for it, by which nobody may be let go."""
    rewrite(patch, IntervalOperator, "build", (" and flow.context.watermark_ms is not None:", ":"))


@dataclass
class _Running:
    """The simulation that runs, for mutants that must look into the model."""

    simulation: Simulation


Running = _Running(None)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Mutant:
    """A way to break the engine."""

    change: Break
    """Breaks it."""
    caught_by: frozenset[str]
    """Promises that are seen to be broken."""
    misfortunes: tuple[str, ...] = ()
    """What must happen for it to matter, where that is rare; all kinds if empty."""
    kinds: tuple[str, ...] = ()
    """Of streams, for what is caught by them; else by boxes."""
    first: int = 0
    """Seed with which the search begins. It is the first of all that notices it, or was when a search from 0 last said so."""


MUTANTS: Final = [
    Mutant(outputs_before_the_acknowledgement, frozenset({"uncommitted output"})),
    Mutant(offset_before_the_acknowledgement, frozenset({"uncommitted position"})),
    Mutant(
        memory_before_the_acknowledgement,
        frozenset({"uncommitted read", "stuck", "wrong outputs", "wrong state"}),
        ("cut",),
        first=27,
    ),
    Mutant(no_fence, frozenset({"wrong outputs", "wrong state"}), ("freeze",), first=14),
    Mutant(fence_by_readers, frozenset({"wrong state", "wrong outputs", "stuck"}), first=6),
    Mutant(unordered_appends, frozenset({"wrong outputs", "wrong state"})),
    Mutant(no_running_position, frozenset({"uncommitted position", "wrong state", "wrong outputs", "stuck"})),
    Mutant(acquire_again_when_fenced, frozenset({"unassigned lease"}), ("freeze",), first=6),
    Mutant(watermark_without_state, frozenset({"wrong state", "wrong outputs"}), ("kill",), first=6),
    Mutant(timer_removed_in_another_unit, frozenset({"wrong state", "wrong outputs"}), ("kill",), first=13),
    Mutant(dedupe_by_offset_alone, frozenset({"wrong state", "wrong outputs"}), ("kill",), first=13),
    Mutant(objects_forgotten_in_use, frozenset({"wrong state", "wrong outputs"})),
    Mutant(shelf_before_the_acknowledgement, frozenset({"uncommitted read", "wrong shelf", "wrong state"})),
    Mutant(outbox_left_off_the_shelf, frozenset({"wrong outputs", "wrong shelf"}), ("kill",), first=21),
    Mutant(
        old_shelf_believed,
        frozenset({"wrong shelf", "wrong state", "wrong outputs", "stuck"}),
        ("kill", "compact"),
        first=4,
    ),
    Mutant(
        shelf_is_not_cleared,
        frozenset({"wrong shelf", "wrong state", "wrong outputs", "stuck"}),
        ("kill", "compact"),
        first=4,
    ),
    Mutant(standby_thought_complete, frozenset({"wrong state", "wrong outputs", "stuck", "changed repeat"}), first=40),
    Mutant(
        shelf_complete_too_early,
        frozenset({"wrong shelf", "wrong state", "wrong outputs", "stuck", "changed repeat"}),
        ("kill",),
        first=40,
    ),
    Mutant(clock_not_stored, frozenset({"stuck"}), kinds=("tumbling",)),
    Mutant(clock_not_recovered, frozenset({"clock"}), ("kill",), kinds=("alarms", "session")),
    Mutant(clock_is_the_maximum, frozenset({"clock"}), kinds=("tumbling",)),
    Mutant(nobody_is_ever_idle, frozenset({"stuck"}), kinds=("tumbling",), first=3),
    Mutant(idle_at_once, frozenset({"clock"}), kinds=("tumbling",)),
    Mutant(watermark_records_dropped, frozenset({"stuck"}), kinds=("tumbling",)),
    Mutant(results_told_behind_the_clock, frozenset({"wrong outputs"}), kinds=("chained",), first=4),
    Mutant(entry_not_undone, frozenset({"wrong state", "wrong outputs"}), kinds=("ledgers",)),
    Mutant(no_tombstone_for_an_entry, frozenset({"wrong state", "wrong outputs"}), kinds=("ledgers",)),
    Mutant(no_tombstones_for_what_is_forgotten, frozenset({"wrong state", "wrong outputs"}), kinds=("ledgers",)),
    Mutant(closes_without_waiting, frozenset({"wrong outputs"}), kinds=("tumbling",)),
    Mutant(only_the_first_window_closes, frozenset({"wrong outputs", "stuck"}), kinds=("hopping",)),
    Mutant(closed_windows_stay, frozenset({"wrong state"}), kinds=("sliding",)),
    Mutant(window_gone_before_its_grace, frozenset({"wrong outputs"}), kinds=("graced",), first=30),
    Mutant(sessions_do_not_merge, frozenset({"wrong outputs"}), kinds=("session",)),
    Mutant(gone_before_there_is_a_clock, frozenset({"wrong outputs"}), kinds=("joined",)),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.change.__name__.replace("_", "-"))
def test_it_is_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the engine as it is keeps its promises under the very seed that shows that the mutant does not."""
    streams.made.cache_clear()  # pipelines that were compiled have the methods that there were then
    with monkeypatch.context() as patch:
        mutant.change(patch)
        for seed in SEEDS[mutant.first :]:
            caught = broken(seed, mutant)
            if caught is not None:
                break
    streams.made.cache_clear()
    assert caught is not None, f"{len(SEEDS) - mutant.first} seeds have not noticed it"
    assert caught.kind in mutant.caught_by, str(caught)
    assert broken(seed, mutant) is None


def broken(seed: int, mutant: Mutant) -> BrokenError | None:
    """What was noticed under a seed."""
    workload = partial(streams.Streams, kinds=mutant.kinds) if mutant.kinds else Boxes
    Running.simulation = Simulation(seed, mutant.misfortunes, [workload])
    try:
        Running.simulation.run()
    except BrokenError as error:
        return error
    return None
