"""The context: frozen data about one intent, the same on every run."""

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pf_stream import Context
from pf_stream.model.context import parse_time_ms

NOW_MS = 1_767_225_600_123
EARLIEST = datetime(1900, 1, 1)  # noqa: DTZ001 - hypothesis takes a bound without a zone


def context(offset: int = 5, **headers: bytes | None) -> Context:
    """The context of an intent at that offset, with these headers."""
    given: dict[str, Any] = {"ce_id": b"id-1", "ce_source": b"/s", "pf-context": b"secret", **headers}
    return Context(None, given, "t.intents", 2, offset, NOW_MS - 1_000, NOW_MS)


def test_what_it_says() -> None:
    ctx = context(ce_time=b"2025-06-01T12:00:00.5+02:00")
    assert (ctx.subject, ctx.tenant) == ("", None)
    assert (ctx.now_ms, ctx.now) == (NOW_MS, datetime(2026, 1, 1, 0, 0, 0, 123_000, UTC))
    assert ctx.time == datetime(2025, 6, 1, 10, 0, 0, 500_000, UTC)
    assert (ctx.intent_id, ctx.source) == ("id-1", "/s")
    assert ctx.position == ("t.intents", 2, 5)


@pytest.mark.parametrize("time", [None, b"", b"yesterday", b"2025-06-01T12:00:00", b"\xff"])
def test_without_a_time_of_its_own_the_records_is_taken(time: bytes | None) -> None:
    assert context(ce_time=time).time_ms == NOW_MS - 1_000


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (b"0001-01-01T00:00:00+23:59", datetime(1, 1, 1, tzinfo=UTC)),
        (b"9999-12-31T23:59:59.5-23:59", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_a_time_that_no_datetime_holds_is_the_nearest(time: bytes, expected: datetime) -> None:
    assert context(ce_time=time).time == expected


def test_nothing_can_be_set() -> None:
    ctx = context()
    for name in ("subject", "now_ms", "time", "anything"):
        with pytest.raises(AttributeError):
            setattr(ctx, name, 1)


def test_ids_are_the_same_on_every_run_and_differ_by_intent_and_name() -> None:
    assert context().uuid() == context().uuid()
    assert context(ce_id=b"other").uuid() == context().uuid(), "it is the record's position that counts"
    assert (
        len({context().uuid(), context().uuid("a"), context().uuid("b"), context(6).uuid(), context(6).uuid("a")}) == 5
    )
    assert context().uuid() == uuid.uuid5(uuid.NAMESPACE_URL, "pf:t.intents:2:5:")


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    assert context(ce_id=b"\xff").intent_id == "\ufffd"


def test_its_repr_holds_no_headers() -> None:
    """One of them is the token."""
    assert repr(context()) == "Context(subject='', tenant=None, position=('t.intents', 2, 5))"


def by_datetime(text: bytes) -> int | None:
    """A time as Python alone reads it."""
    try:
        parsed = datetime.fromisoformat(text.decode("ascii"))
    except ValueError:
        return None
    return None if parsed.tzinfo is None else round(parsed.timestamp() * 1000)


def _digits(fewest: int, most: int) -> st.SearchStrategy[str]:
    return st.text("0123456789", min_size=fewest, max_size=most)


WRITTEN = st.builds(
    lambda *parts: "".join(parts).encode(),
    st.sampled_from(
        ["2026-01-01", "2024-02-29", "2026-02-29", "1969-12-31", "0001-01-01", "9999-12-31", "20260101", "2026-W01-1"]
    ),
    st.sampled_from("TTTt x"),
    st.sampled_from(["12:00:", "23:59:", "24:00:", "12:60:", "1200", "12:00"]),
    st.sampled_from(["00", "05", "59", "60", "61", "5", " 5", ""]),
    st.one_of(
        st.just(""), _digits(3, 3).map(".{}".format), _digits(0, 10).map(".{}".format), _digits(3, 3).map(",{}".format)
    ),
    st.sampled_from(
        ["Z", "Z", "+00:00", "+00:00", "z", "", "-00:00", "+02:00", "-23:59", "+24:00", "+00:00:30", "+0000", "Z "]
    ),
)
"""Times, good and bad, in all the ways in which they may be written; few, so that some are met again."""


class TestParseTime:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (b"1970-01-01T00:00:00Z", 0),
            (b"1970-01-01T00:00:00.001Z", 1),
            (b"1970-01-01T01:00:00+01:00", 0),
            (b"1969-12-31T23:59:59.999Z", -1),
            (b"9999-12-31T23:59:59.999999999Z", 253_402_300_800_000),
            (b"0001-01-01T00:00:00+23:59", -62_135_683_140_000),
        ],
    )
    def test_times(self, text: bytes, expected: int) -> None:
        assert parse_time_ms(text) == expected

    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b"now",
            b"2025-06-01",
            b"2025-06-01T12:00:00",
            b"2025-13-01T00:00:00Z",
            b"\xff",
            b"1",
            b"2025-06-01T12:00:60Z",
        ],
    )
    def test_what_is_none_or_has_no_zone(self, text: bytes) -> None:
        assert parse_time_ms(text) is None

    @settings(max_examples=50)
    @given(st.datetimes(timezones=st.timezones() | st.just(UTC), min_value=EARLIEST))
    def test_what_python_writes(self, time: datetime) -> None:
        written = time.isoformat().encode()
        parsed = parse_time_ms(written)
        assert parsed is None or abs(parsed - time.timestamp() * 1000) <= 0.5
        assert parse_time_ms(time.astimezone(UTC).isoformat().encode()) is not None

    @settings(max_examples=300)
    @given(st.lists(WRITTEN, min_size=1, max_size=8))
    @example([b"2026-01-01T12:00:05Z", b"2026-01-01T12:00:05.5Z", b"2026-01-01T12:00:05.123Z", b"2026-01-01T12:00:05"])
    @example([b"20260101T120000.123Z", b"20260101T120000.123.456Z"])
    @example([b"2026-W01-1T12:00:00Z", b"2026-W01-1T12:00:00.123+00:00"])
    @example([b"9999-12-31T23:59:59Z", b"9999-12-31T23:59:59.999Z", b"9999-12-31T23:59:60Z"])
    @example([b"0001-01-01T00:00:00Z", b"0001-01-01T00:00:00.001+00:00", b"0001-01-01T00:00:00+00:01"])
    def test_it_does_not_matter_what_was_parsed_before(self, texts: list[bytes]) -> None:
        for text in texts:
            assert parse_time_ms(text) == by_datetime(text), text

    @settings(max_examples=50)
    @given(st.binary(max_size=40))
    def test_it_never_raises(self, text: bytes) -> None:
        parse_time_ms(text)
