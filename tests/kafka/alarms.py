"""A topology of timers, failures and ends, for the tests on a real Kafka; run as a program it is a worker of it."""

import asyncio
import dataclasses
import os
import sys
from typing import Annotated

from pf_stream import (
    PUBLIC,
    Cancel,
    Context,
    Effects,
    Emit,
    Intent,
    Key,
    Reactor,
    RetryInPlace,
    Schedule,
    State,
    Topology,
    on,
)
from pf_stream.core import Limits
from pf_stream.engine import Worker, WorkerSettings
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.security import SigningKey, TrustRoots


class SetAlarm(Intent, name="alarms.set", requires=PUBLIC):
    """Sets an alarm, or cancels one."""

    alarm: Annotated[str, Key]
    after: float
    name: str | None = None
    cancel: str | None = None


class Ring(Intent, name="alarms.ring", requires=PUBLIC):
    """An alarm."""

    alarm: Annotated[str, Key]
    text: str


class Rung(Intent, name="alarms.rung", topic="rings", requires=PUBLIC):
    """What an alarm causes."""

    alarm: Annotated[str, Key]
    text: str
    late_ms: int


class Push(Intent, name="alarms.push", requires=PUBLIC):
    """Fails while its door is closed."""

    alarm: Annotated[str, Key]
    door: str
    text: str


class End(Intent, name="alarms.end", requires=PUBLIC):
    """Takes the whole process with it."""

    alarm: Annotated[str, Key]


class Alarm(State):
    """One alarm."""

    log: list[str] = dataclasses.field(default_factory=list)


class Alarms(Reactor[Alarm], id="alarms"):
    """Sets them."""

    @on
    def set_alarm(self, intent: SetAlarm, state: Alarm, ctx: Context) -> Effects:
        state.log.append(f"set {intent.name}")
        if intent.cancel is not None:
            return Cancel(intent.cancel)
        ring = Ring(alarm=intent.alarm, text=intent.name or "")
        return Schedule(ring, after=intent.after, name=intent.name)

    @on
    def ring(self, intent: Ring, state: Alarm, ctx: Context) -> Effects:
        assert ctx.due_ms is not None
        state.log.append(f"ring {intent.text}")
        return Emit(Rung(alarm=intent.alarm, text=intent.text, late_ms=ctx.now_ms - ctx.due_ms))

    @on(on_error=RetryInPlace(attempts=1000, backoff_s=0.1, max_backoff_s=0.1))
    def push(self, intent: Push, state: Alarm, ctx: Context) -> None:
        if os.path.exists(intent.door):  # noqa: PTH110 - what a handler must not do: but things break
            raise ConnectionError("closed")
        state.log.append(f"push {intent.text}")

    @on
    def end(self, intent: End, state: Alarm, ctx: Context) -> None:
        os._exit(9)


class Rings(Reactor[Alarm], id="rings"):
    """Hears them: a repeat would be heard twice."""

    @on
    def rung(self, intent: Rung, state: Alarm, ctx: Context) -> None:
        state.log.append(f"{intent.text} {'early' if intent.late_ms < 0 else 'in time'}")


alarms = Topology("alarms", [Alarms, Rings], internal=["rings"], partitions=2)


async def work(servers: str, namespace: str) -> None:
    """A worker that gives up an intent sooner than others do."""
    settings = WorkerSettings(ConnectionSettings(servers), TrustRoots.of(SigningKey.generate(1)), "w0")
    worker = await Worker.start(alarms.within(namespace), settings, Limits(poison_attempts=1))
    await worker.ready()
    print("ready", flush=True)  # noqa: T201 - to whoever started it
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2]))
