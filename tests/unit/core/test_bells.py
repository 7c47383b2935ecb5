"""A bell is a timer as any other: set in the short way, it is byte for byte what a Schedule would have made."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import pytest

from pf_stream import (
    PUBLIC,
    Capability,
    Context,
    Effects,
    Intent,
    Key,
    Reactor,
    Schedule,
    Service,
    State,
    Topology,
    on,
    operation,
)
from pf_stream.core import Limits
from pf_stream.core.records import Header
from pf_stream.model.effect import Bell, Ring
from pf_stream.testing import Driver

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class ChimeCap(Capability):
    """Who may ring."""

    ring = operation()


class Go(Intent, name="bells.go", requires=ChimeCap.ring("/{key}")):
    """Set the bell, in one way or the other."""

    key: Annotated[str, Key]
    short: bool
    after_s: int = 60


class Rang(Intent, name="bells.rang", requires=PUBLIC):
    """It rang."""

    key: Annotated[str, Key]


class Rung(State):
    """How it is set."""

    short: bool = False
    times: int = 0


def reactor(clock: Literal["wall", "event"], *, anonymous: bool) -> type[Reactor[Rung]]:
    bell = Bell(Rang, "bell", clock)

    def due(state: Rung, key: str, at: datetime) -> Effects:
        state.times += 1
        if state.times > 3:
            return None
        if state.short:
            return Ring(bell, key, round(at.timestamp() * 1000))
        return Schedule(Rang(key=key), at=at, name="bell", clock=clock)

    class Bells(Reactor[Rung], id="bells", anonymous=anonymous):
        """Rings three times."""

        @on
        def go(self, intent: Go, state: Rung, ctx: Context) -> Effects:
            state.short = intent.short
            return due(state, intent.key, ctx.now + timedelta(seconds=intent.after_s))

        @on
        def rang(self, intent: Rang, state: Rung, ctx: Context) -> Effects:
            return due(state, intent.key, ctx.now + timedelta(seconds=60))

    return Bells


def written(
    short: bool, clock: Literal["wall", "event"], anonymous: bool, service: Service | None, headers: Sequence[Header]
) -> list[tuple[bytes, bytes | None]]:
    """The changelog's records of timers, without the callers' tokens, which are signed anew each time."""
    services = {} if service is None else {"bells": service}
    topology = Topology("bells", [reactor(clock, anonymous=anonymous)], services=services)
    driver = Driver(topology, seed=1, partitions=1, now=NOW)
    token = driver.context(ChimeCap.ring("/**"), lifetime_s=86_400)
    driver.send(Go(key='k"\u00e4', short=short), token, time=NOW, headers=headers)
    for number in range(1, 5):
        driver.advance(60)
        if clock == "event":
            later = NOW + timedelta(minutes=number)
            driver.send(Go(key="other", short=short, after_s=86_400), token, time=later)
    assert driver.dead_letters() == []
    (log,) = driver._changelogs.values()
    found = [(key, value) for key, value in log.records if key.startswith(b"\x01t")]
    return [(key, None if value is None else value.replace(token.encode(), b"")) for key, value in found]


@pytest.mark.parametrize("clock", ["wall", "event"])
@pytest.mark.parametrize("headers", [[], [("traceparent", TRACE), ("tracestate", b"a=b")]])
@pytest.mark.parametrize(
    ("anonymous", "service"), [(True, None), (True, Service(7, ["ChimeCap.ring:/**"])), (False, None)]
)
def test_it_is_what_a_schedule_makes(
    clock: Literal["wall", "event"], headers: list[Header], anonymous: bool, service: Service | None
) -> None:
    short, long = (written(one, clock, anonymous, service, headers) for one in (True, False))
    assert short == long
    rung = [(key, value) for key, value in short if b"other" not in key]
    assert [value is None for _, value in rung] == [False, False, False, True]
    assert len({value for _, value in rung}) == 4


def test_it_may_not_be_set_for_longer_than_any_timer() -> None:
    driver = Driver(Topology("bells", [reactor("wall", anonymous=True)]), limits=Limits(timer_ms=60_000), now=NOW)
    token = driver.context(ChimeCap.ring("/**"))
    driver.send(Go(key="k", short=True, after_s=60), token)
    driver.send(Go(key="k", short=True, after_s=61), token)
    assert [letter.code for letter in driver.dead_letters()] == ["bad_effect"]


def test_its_intent_may_be_as_long_as_any() -> None:
    driver = Driver(Topology("bells", [reactor("wall", anonymous=True)]), limits=Limits(output_bytes=20), now=NOW)
    token = driver.context(ChimeCap.ring("/**"))
    driver.send(Go(key="k" * 10, short=True), token)
    driver.send(Go(key="k" * 11, short=True), token)
    assert [letter.code for letter in driver.dead_letters()] == ["bad_effect"]
