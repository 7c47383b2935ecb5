"""A topology of a job that runs every second; run as a program it is a worker of it."""

import asyncio
import dataclasses
import sys
from typing import Annotated

from biscuit_auth import KeyPair, PrivateKey

from pf_stream import Capability, Context, Effects, Emit, Intent, Key, Reactor, Service, State, Topology, on, operation
from pf_stream.engine import Worker, WorkerSettings
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.security import SigningKey, TrustRoots
from pf_stream.temporal import JobRun, job, jobs

SERVICE_KEY = SigningKey(7, KeyPair.from_private_key(PrivateKey(f"ed25519-private/{'07' * 32}")))


class BellCap(Capability):
    """What may be done with bells: ``/{bell}``."""

    strike = operation()


class Strike(Intent, name="bell.strike", topic="strikes", requires=BellCap.strike("/{bell}")):
    """What the job has done."""

    bell: Annotated[str, Key]
    nominal_ms: int
    late_ms: int


class Struck(State):
    """For which times, and how late the earliest was."""

    nominal_ms: list[int] = dataclasses.field(default_factory=list)
    earliest_ms: int = 0


class Bell(Reactor[Struck], id="bell"):
    """Hears it: a repeat would be heard twice."""

    @on
    def strike(self, intent: Strike, state: Struck, ctx: Context) -> Effects:
        state.nominal_ms.append(intent.nominal_ms)
        state.earliest_ms = min(state.earliest_ms, intent.late_ms)
        return None


@job(every="1s", misfire="all")
def clock(run: JobRun) -> Effects:
    nominal_ms = round(run.nominal.timestamp() * 1000)
    return Emit(Strike(bell="b", nominal_ms=nominal_ms, late_ms=run.ctx.now_ms - nominal_ms))


clockwork = Topology(
    "clockwork",
    [Bell],
    internal=["strikes"],
    partitions=2,
    parts=[jobs(clock, service=Service(7, ["BellCap.strike:/*"]))],
)


async def work(servers: str, namespace: str, name: str) -> None:
    """A worker that signs for the job."""
    settings = WorkerSettings(
        ConnectionSettings(servers), TrustRoots.of(SERVICE_KEY), name, service_keys=(SERVICE_KEY,)
    )
    worker = await Worker.start(clockwork.within(namespace), settings)
    await worker.ready()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:]))
