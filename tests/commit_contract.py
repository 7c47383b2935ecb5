"""What every committer must do, whatever it commits to. Run in memory by tests/unit and on a real Kafka by tests/kafka."""

import asyncio
from collections import Counter
from collections.abc import Collection, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

import orjson
import pytest

from pf_stream import PUBLIC, Context, Effects, Emit, Intent, Key, Reactor, State, Topology, on
from pf_stream.core import Authority, CommitUnit, GroupPlan, Lane, Limits, SourceRecord, changelog, plan
from pf_stream.kafka.errors import FencedError
from pf_stream.model.topology import Guarantee
from pf_stream.security import SigningKey, TrustRoots, Verifier

NOW_MS = 1_700_000_000_000


class Noted(Intent, name="noted", requires=PUBLIC):
    """Something to be counted."""

    key: Annotated[str, Key]


class Told(Intent, name="told", topic="told", requires=PUBLIC):
    """What leaves."""

    key: Annotated[str, Key]
    n: int


class Tally(State):
    """How many."""

    n: int = 0


class Tallies(Reactor[Tally], id="tallies"):
    """Counts, and tells each count."""

    @on
    def noted(self, intent: Noted, state: Tally, ctx: Context) -> Effects:
        state.n += 1
        return Emit(Told(key=intent.key, n=state.n))


def topology(namespace: str, guarantee: Guarantee) -> Topology:
    """One group of one lane; the outputs go to a topic that another topology reads."""
    return Topology("tally", [Tallies], namespace=namespace, emits=[Told], partitions=1, guarantee=guarantee)


@dataclass(frozen=True, slots=True)
class Seen:
    """What others can see of a lane."""

    n: int
    """State under the one key, 0 if there is none."""
    position: int
    """Next offset of the source topic, as stored."""
    told: list[int]
    """What the outputs say, in their order."""
    sources: Counter[str] = field(default_factory=Counter)
    """How often each ``pf-source`` was written."""

    @classmethod
    def of(
        cls,
        records: Iterable[tuple[bytes, bytes | None]],
        outputs: Collection[tuple[bytes | None, dict[str, bytes | None]]],
    ) -> "Seen":
        """From changelog records, and the values and headers of outputs."""
        last = dict(records)
        state = last.get(changelog.state_key(changelog.state_prefix("tallies"), b"k"))
        watermarks = [value for key, value in last.items() if key[1:2] == b"w" and value is not None]
        return cls(
            0 if state is None else orjson.loads(state[changelog.STATE_PREFIX.size :])["n"],
            changelog.WATERMARK_VALUE.unpack(watermarks[0])[0] if watermarks else 0,
            [orjson.loads(value or b"")["n"] for value, _ in outputs],
            Counter((headers["pf-source"] or b"").decode() for _, headers in outputs),
        )


class Life(Protocol):
    """One life of the lane: it has been acquired, and recovered up to its fence."""

    lane: Lane[Any]

    async def commit(self, unit: CommitUnit[Any]) -> None:
        """Returns when the unit is acknowledged."""

    async def sent(self) -> None:
        """Wait until the outputs of all that is committed are in their topic, marks not included."""

    async def end(self) -> None:
        """Crash: nothing is finished, and what was not sent by now is not sent by this life any more."""


class System(Protocol):
    """Where the lane lives."""

    guarantee: Guarantee

    async def open(self, *, sending: bool = True) -> Life:
        """Take the lane; without *sending* its outputs do not get out unless they are part of the commit."""

    async def seen(self) -> Seen:
        """What a reader sees that passes over what is not committed."""


def new_lane(plan_: GroupPlan, collect: Any = None) -> Lane[Any]:
    authority = Authority(Verifier(TrustRoots.of(SigningKey.generate(1)), plan_.topology.namespace))
    arguments = () if collect is None else (collect,)
    return Lane(plan_, 0, authority, Limits(), *arguments)


def begin(lane: Lane[Any], records: Iterable[tuple[bytes, bytes | None]]) -> None:
    """Recover a lane from its changelog."""
    lane.restore(records)
    for topic, position in lane.begin("contract").items():
        lane.start_at(topic, position or 0, bytes(16))


def the_plan(namespace: str, guarantee: Guarantee) -> GroupPlan:
    (group,) = plan(topology(namespace, guarantee), 1)
    return group


def note(lane: Lane[Any], times: int) -> CommitUnit[Any]:
    """A unit of *times* more intents."""
    topic = f"{lane.plan.topology.namespace}.intents"
    start = lane.positions[topic]
    headers = (("ce_specversion", b"1.0"), ("ce_type", b"noted.v1"), ("ce_source", b"/t"), ("ce_id", b"1"))
    records = [SourceRecord(start + at, NOW_MS, b"k", b'{"key": "k"}', headers, 1) for at in range(times)]
    lane.step(topic, records, NOW_MS)
    assert lane.refused.total() == 0
    unit = lane.seal()
    assert isinstance(unit, CommitUnit)
    return unit


class CommitContract:
    """Subclasses have a fixture ``system``."""

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run(work)

    def test_a_commit_shows_state_outputs_and_position(self, system: System) -> None:
        async def work() -> None:
            life = await system.open()
            await life.commit(note(life.lane, 2))
            await life.commit(note(life.lane, 1))
            await life.sent()
            seen = await system.seen()
            assert (seen.n, seen.position, seen.told) == (3, 3, [1, 2, 3])
            assert set(seen.sources.values()) == {1}
            await life.end()

        self.run(work())

    def test_a_crash_before_the_commit_leaves_nothing(self, system: System) -> None:
        async def work() -> None:
            life = await system.open()
            await life.commit(note(life.lane, 1))
            await life.sent()
            note(life.lane, 5)
            await life.end()
            life = await system.open()
            await life.sent()
            seen = await system.seen()
            assert (seen.n, seen.position, set(seen.told)) == (1, 1, {1})
            assert life.lane.positions[f"{life.lane.plan.topology.namespace}.intents"] == 1
            await life.end()

        self.run(work())

    def test_what_was_committed_and_not_sent_is_sent_by_the_next_life(self, system: System) -> None:
        """In its order, before anything new; and it can be told by its ``pf-source`` if it was sent before."""

        async def work() -> None:
            life = await system.open(sending=False)
            await life.commit(note(life.lane, 2))
            await life.end()
            life = await system.open()
            await life.commit(note(life.lane, 1))
            await life.sent()
            seen = await system.seen()
            assert (seen.n, seen.position, seen.told) == (3, 3, [1, 2, 3])
            await life.end()
            # Again: nobody has marked them as sent.
            life = await system.open()
            await life.sent()
            seen = await system.seen()
            assert set(seen.sources) == {"contract:1:0", "contract:1:1", "contract:2:0"}
            assert set(seen.sources.values()) == ({1} if system.guarantee == "transactional" else {2})
            await life.end()

        self.run(work())

    def test_what_is_marked_is_not_sent_again(self, system: System) -> None:
        async def work() -> None:
            life = await system.open()
            await life.commit(note(life.lane, 2))
            await life.sent()
            mark = life.lane.seal()
            assert isinstance(mark, CommitUnit)
            await life.commit(mark)
            await life.end()
            life = await system.open()
            await life.sent()
            assert (await system.seen()).told == [1, 2]
            await life.end()

        self.run(work())

    def test_an_older_life_can_commit_no_more(self, system: System) -> None:
        async def work() -> None:
            older = await system.open()
            await older.commit(note(older.lane, 1))
            await older.sent()
            newer = await system.open()
            with pytest.raises(FencedError):
                await older.commit(note(older.lane, 1))
            await older.end()
            await newer.commit(note(newer.lane, 3))
            await newer.sent()
            seen = await system.seen()
            assert (seen.n, seen.position) == (4, 4)
            assert set(seen.told) == {1, 2, 3, 4}
            await newer.end()

        self.run(work())
