"""A topology with a sink, for worker processes: its consumer writes down what it gets, and how well it does is told by the
environment."""

import asyncio
import os
from collections.abc import Sequence

from pf_stream import Buffer, Delivered, Sink, Topology
from tests.kafka._support import Counts, Totalled

FILE = "DRAINING_FILE"
"""Where it writes: partition, offset, ``pf-source`` and name of each record."""
DELAY = "DRAINING_DELAY_S"
"""How long it takes for a batch."""


async def write_down(batch: Sequence[Delivered[Totalled]]) -> None:
    """Append lines to the file, and take time before and after it."""
    delay_s = float(os.environ.get(DELAY, "0"))
    await asyncio.sleep(delay_s / 2)
    lines = [f"{one.position[1]} {one.position[2]} {one.source} {one.intent.name}\n" for one in batch]
    with open(os.environ[FILE], "a") as file:  # noqa: ASYNC230, PTH123 - some lines
        file.write("".join(lines))
    await asyncio.sleep(delay_s / 2)


draining = Topology(
    "draining",
    [Counts],
    internal=["totals"],
    emits=[Totalled],
    partitions=2,
    sinks=[Sink("drain", of=Totalled, to=write_down, buffer=Buffer(records=200), batch=20)],
)
