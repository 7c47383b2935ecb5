"""A full buffer, whatever its strategy: other partitions go on, the group keeps the worker, and a drain ends in time."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, get_args

import orjson
import pytest

from pf_stream import PUBLIC, Buffer, Context, Delivered, Effects, Emit, Intent, Key, Reactor, Sink, State, Topology, on
from pf_stream.core.status import SinkState, SinkStatus
from pf_stream.model import Strategy
from tests.kafka._support import Client, ThreadWorker, in_thread, make_topics, name_in, wait_until

SESSION_S = 6.0
"""As short as a broker allows."""


class Came(Intent, name="pressure.came", requires=PUBLIC):
    """Something came."""

    name: Annotated[str, Key]


def kept(strategy: Strategy) -> type[Intent]:
    """What goes to the sink with that strategy."""

    class Kept(Intent, name=f"pressure.{strategy}", topic=strategy, requires=PUBLIC):
        name: Annotated[str, Key]

    return Kept


KEPT = {strategy: kept(strategy) for strategy in get_args(Strategy)}


class Nothing(State):
    """None."""


class Spread(Reactor[Nothing], id="spread"):
    """Passes on to every sink."""

    @on
    def came(self, intent: Came, state: Nothing, ctx: Context) -> Effects:
        return [Emit(kind.model_validate({"name": intent.name})) for kind in KEPT.values()]


class Consumer:
    """Takes its time in partition 0, and none elsewhere."""

    def __init__(self) -> None:
        self.got: Counter[int] = Counter()

    async def __call__(self, batch: Sequence[Delivered[Any]]) -> None:
        partition = batch[0].position[1]
        await asyncio.sleep(0 if partition else 1)
        self.got[partition] += len(batch)


def statuses(worker: ThreadWorker, partition: int) -> dict[str, SinkStatus]:
    def look() -> list[SinkStatus]:
        return worker.worker.lanes.sink_statuses

    return {one.sink: one for one in worker.call(look) if one.partition == partition}


def generation(worker: ThreadWorker) -> int:
    """Of the group: another one for each rebalance."""
    coordinator: Any = worker.worker._app.consumer._thread._ensure_consumer()._coordinator
    return int(coordinator.generation)


@pytest.mark.timeout(300)
def test_a_full_buffer_stops_nothing_else(bootstrap_servers: str, unique: str) -> None:
    consumers = {strategy: Consumer() for strategy in KEPT}
    topology = Topology(
        "pressure",
        [Spread],
        namespace=unique,
        internal=list(KEPT),
        emits=list(KEPT.values()),
        partitions=2,
        sinks=[
            Sink(
                strategy,
                of=kind,
                to=consumers[strategy],
                buffer=Buffer(records=10, strategy=strategy, rate=1_000, disk=2_000),
                batch=5,
            )
            for strategy, kind in KEPT.items()
        ],
    )
    make_topics(bootstrap_servers, topology)
    client = Client(bootstrap_servers, topology)
    slow, quick = name_in(0, topology), name_in(1, topology)
    headers = client.headers("pressure.came.v1", pf_context=None)

    def send(name: str, count: int) -> None:
        for _ in range(count):
            client.send(name, orjson.dumps({"name": name}), headers)
        client.flush()

    with in_thread(bootstrap_servers, topology, session_s=SESSION_S) as worker:
        before = generation(worker)
        send(slow, 1_000)

        def all_full() -> None:
            for one in statuses(worker, 0).values():
                dropping = one.sink in {"drop_oldest", "drop_newest"} and one.dropped
                assert dropping or one.state is SinkState.full, one

        wait_until(all_full, within=40)
        began = time.monotonic()
        sent = 0
        while time.monotonic() - began < 1.5 * SESSION_S:
            send(quick, 5)  # few enough for every buffer
            sent += 5
            wait_until(lambda wanted=sent: {one.got[1] for one in consumers.values()} == {wanted})  # type: ignore[misc]
        # It would have been put out of the group by now, had no heartbeat come.
        assert generation(worker) == before
        found = statuses(worker, 0)
        for one in found.values():
            dropping = one.sink in {"drop_oldest", "drop_newest"}
            assert one.dropped if dropping else one.lag, "and all that time it was behind"
            assert one.buffered <= 10 or one.sink == "buffer"
        assert found["buffer"].spilled_bytes < 4_000
        draining = time.monotonic()
    drained_s = time.monotonic() - draining
    assert drained_s < 10, "it waits for the batches in hand and no others"
