"""What handlers ask for, as records: what timers say, to the byte."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import pytest

from pf_stream import (
    PUBLIC,
    Capability,
    Context,
    Effects,
    Emit,
    EventTime,
    Intent,
    Key,
    Reactor,
    Schedule,
    State,
    Topology,
    on,
    operation,
)
from pf_stream.core import Authority, CommitUnit, Lane, Limits, SourceRecord, plan
from pf_stream.core.timers import Timer, decode_timer, encode_timer
from pf_stream.security import SigningKey, TrustRoots, Verifier, mint

NOW_MS = 1_767_225_600_000
SIGNER = SigningKey.generate(1)
ROOTS = TrustRoots.of(SIGNER)
SOON = datetime(2026, 1, 1, 0, 5, tzinfo=UTC)
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class RowCap(Capability):
    """What may be rung: ``/{bell}``."""

    ring = operation()


class Row(Intent, name="row.row", requires=PUBLIC):
    """Sets many timers."""

    bell: Annotated[str, Key]
    bells: list[str]


class Ring(Intent, name="row.ring", requires=RowCap.ring("/{bell}")):
    """It is time; who sets the next ones may do so."""

    bell: Annotated[str, Key]
    number: int


class Dated(Intent, name="row.dated", requires=PUBLIC):
    """Says itself when it happened."""

    bell: Annotated[str, Key]
    at: Annotated[datetime, EventTime]


class Rung(State):
    """Nothing."""


class Rows(Reactor[Rung], id="rows"):
    """Sets timers of all kinds, in turns."""

    @on
    def row(self, intent: Row, state: Rung, ctx: Context) -> Effects:
        effects: list[Any] = [Emit(Dated(bell=intent.bell, at=SOON))]
        for number, bell in enumerate(intent.bells):
            ring = Ring(bell=bell, number=number)
            effects += [
                Schedule(ring, after=number, name=f"{number}"),
                Schedule(Dated(bell=bell, at=SOON + timedelta(hours=number)), after=timedelta(seconds=number)),
                Schedule(ring, at=SOON, clock="event", id=f"given {number}"),
                Schedule(ring, after=0.0005, deadline=SOON),
                Schedule(ring, after=5, time=SOON),
            ]
        return effects

    @on
    def ring(self, intent: Ring, state: Rung, ctx: Context) -> Effects:
        return [Schedule(intent, after=number) for number in range(1, 5)]

    @on
    def dated(self, intent: Dated, state: Rung, ctx: Context) -> None:
        pass


class Bench:
    """A lane of that, alone."""

    def __init__(self) -> None:
        (group,) = plan(Topology("row", [Rows]), 2)
        self.lane: Lane = Lane(group, 1, Authority(Verifier(ROOTS, "row")), Limits())
        for topic in self.lane.begin("life"):
            self.lane.start_at(topic, 7, bytes(16))
        self.token = mint(
            SIGNER,
            subject="ann",
            audience="row",
            capabilities=[RowCap.ring("/**")],
            now_ms=NOW_MS,
            lifetime_s=600,
        ).encode()

    def set(self, intent: Intent, *more: tuple[str, bytes]) -> list[tuple[bytes, Timer]]:
        """Timers that *intent* sets, with their keys, in their order."""
        spec = intent.__intent__
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_type", spec.type.encode()),
            ("ce_source", b"/client"),
            ("ce_id", b"c"),
            ("ce_time", b"2025-12-31T23:00:00Z"),
            ("content-type", b"application/json"),
            ("pf-context", self.token),
            *more,
        ]
        record = SourceRecord(7, NOW_MS, spec.key_of(intent), spec.encode(intent), headers)
        assert self.lane.step("row.intents", iter([record]), NOW_MS)
        return self.timers()

    def timers(self) -> list[tuple[bytes, Timer]]:
        unit = self.lane.seal()
        assert isinstance(unit, CommitUnit)
        assert not unit.refused
        self.lane.acknowledged()
        written = [(key[2:], value) for key, value in unit.entries if key[:2] == b"\x01t" and value is not None]
        timers = [(key, decode_timer(value)) for key, value in written]
        assert [encode_timer(timer) for _, timer in timers] == [value for _, value in written]
        return timers


def said(kind: bytes, number: int, time: bytes = b"2025-12-31T23:00:00Z") -> dict[str, bytes]:
    return {
        "ce_specversion": b"1.0",
        "ce_type": kind,
        "ce_source": b"/row/rows",
        "ce_id": b"row.intents:1:7:%d" % number,
        "ce_time": time,
        "content-type": b"application/json",
        "pf-hops": b"1",
    }


@pytest.mark.parametrize("traced", [False, True])
def test_timers_of_one_intent_say_what_each_would_say_alone(traced: bool) -> None:
    bench = Bench()
    trace = {"traceparent": TRACE, "tracestate": b"x=1"} if traced else {}
    timers = bench.set(Row(bell="d", bells=["d", "f", "d", "a"]), *trace.items())
    token = {"pf-context": bench.token}
    made = {"traceparent": b"00-e42e27c8ef3d11dc91579dd75d8b9c00-862956afc21f3ce9-00"}
    expected = []
    for number, bell in enumerate((b"d", b"f", b"d", b"a")):
        kind, value = b"row.ring.v1", b'{"bell":"%b","number":%d}' % (bell, number)
        first = 1 + 5 * number
        ids = [b"row.intents:1:7:%d" % (first + index) for index in range(5)]
        dated = b'{"bell":"%b","at":"2026-01-01T%02d:05:00Z"}' % (bell, number)
        happened = b"2026-01-01T%02d:05:00.000+00:00" % number
        soon = b"2026-01-01T00:05:00.000+00:00"
        given = {"ce_id": b"given %d" % number}
        for name, due_ms, told, headers in (
            (b"%d" % number, NOW_MS + 1000 * number, value, said(kind, first) | trace),
            (
                b"\xff" + ids[1],
                NOW_MS + 1000 * number,
                dated,
                said(b"row.dated.v1", first + 1, happened) | trace,
            ),
            (b"\xff" + given["ce_id"], NOW_MS + 300_000, value, said(kind, 0) | given | (trace or made)),
            (b"\xff" + ids[3], NOW_MS, value, said(kind, first + 3) | trace | {"pf-deadline": soon}),
            (b"\xff" + ids[4], NOW_MS + 5000, value, said(kind, first + 4, soon) | trace),
        ):
            expected.append((b"\x04rows\0\0\0\x01d\0\0\0" + bytes((len(name),)) + name, due_ms, told, headers | token))
    found = [(key, timer.due_ms, timer.record.value, dict(timer.record.headers)) for key, timer in timers]
    assert found == expected


def test_what_a_timer_sets_is_called_after_it() -> None:
    bench = Bench()
    bench.set(Row(bell="d", bells=["d"]))
    assert not bench.lane.fire(NOW_MS, at_most=1)
    timers = bench.timers()
    told = {
        "pf-hops": b"0",
        "traceparent": b"00-e42e27c8ef3d11dc91579dd75d8b9c00-59b1ddd9d9779322-00",
        "pf-trace": b"row/rows",
        "pf-context": bench.token,
    }
    for number, (key, timer) in enumerate(timers, 1):
        assert key == b"\x04rows\0\0\0\x01d\0\0\0\x14\xffrow.intents:1:7:4:%d" % (number - 1)
        assert timer.due_ms == NOW_MS + 1000 * number
        headers = said(b"row.ring.v1", 0) | told | {"ce_id": b"row.intents:1:7:4:%d" % (number - 1)}
        assert dict(timer.record.headers) == headers
    assert len(timers) == 4
