"""Targets as they are written, and what a changelog says beside states."""

import pytest

from pf_stream.components.changelogs import LaneLog
from pf_stream.components.positions import BadTargetError, Target, parse_target
from pf_stream.core import changelog
from pf_stream.core.timers import held_key

NOW_MS = 1_767_225_600_000
"""2026-01-01T00:00:00Z."""


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("start", Target("start")),
        ("end", Target("end")),
        ("+0", Target("start", 0)),
        ("+12", Target("start", 12)),
        ("-12", Target("end", -12)),
        ("0", Target("offset", 0)),
        ("123456789012345678", Target("offset", 123_456_789_012_345_678)),
        ("@1767225600", Target("time", NOW_MS)),
        ("@1767225600123", Target("time", NOW_MS + 123)),
        ("@2026-01-01", Target("time", NOW_MS)),
        ("@2026-01-01T01:00:00+01:00", Target("time", NOW_MS)),
        ("@-90m", Target("time", NOW_MS - 5_400_000)),
        ("@-250ms", Target("time", NOW_MS - 250)),
        ("@-1d", Target("time", NOW_MS - 86_400_000)),
    ],
)
def test_where_to(text: str, target: Target) -> None:
    assert parse_target(text, NOW_MS) == target


@pytest.mark.parametrize(
    "text",
    [
        *("", "begin", "Start", "+", "-", "--1", "+-1", "1.5", " 1", "1 ", "٣", "+1234567890123456789"),
        *("@", "@12", "@17672256001", "@now", "@2026-02-30", "@2026-01-01T00:00:00", "@2h", "@-2", "@-2w", "@+2h"),
    ],
)
def test_what_says_nothing(text: str) -> None:
    with pytest.raises(BadTargetError, match="is no position; write start, end"):
        parse_target(text, NOW_MS)


class TestLaneLog:
    def test_the_last_of_each_key_counts(self) -> None:
        log = LaneLog("a")
        watermark, mark = changelog.WATERMARK_VALUE.pack, changelog.MARK_VALUE.pack
        state = changelog.state_key(changelog.state_prefix("a"), b"k")
        gone = changelog.state_key(changelog.state_prefix("a"), b"gone")
        log.take(
            [
                (changelog.HEADER, b'{"partitions":2}'),
                (changelog.watermark_key("a", "t"), watermark(1, bytes(16))),
                (changelog.watermark_key("a", "t"), watermark(2, b"i" * 16)),
                (changelog.watermark_key("b", "t"), watermark(3, bytes(16))),
                (changelog.watermark_key("b", "t"), None),
                (changelog.mark_key("t", "x"), mark(4, 5)),
                (changelog.mark_key("t", "y"), mark(6, 7)),
                (changelog.mark_key("t", "y"), None),
                (changelog.mark_key("t", "never"), None),
                (gone, b"1"),
                (state, b"1"),
                (gone, None),
                (changelog.state_key(changelog.state_prefix("ab"), b"k"), b"1"),
                (changelog.timer_key("a", b"k", b"tea"), b"1"),
                (changelog.timer_key("a", b"k", b"gone"), b"1"),
                (changelog.timer_key("a", b"k", b"gone"), None),
                (changelog.timer_key("b", b"k", b"tea"), b"1"),
                (changelog.UNIT, changelog.UNIT_VALUE.pack(8, 7)),
                (b"\x01?", b""),
                (b"", b""),
            ]
        )
        assert log.timers == {changelog.timer_key("a", b"k", b"tea")}
        assert log.closing() == [(changelog.UNIT, changelog.UNIT_VALUE.pack(8, 7))]
        assert log.header == b'{"partitions":2}'
        assert log.watermarks == {("a", "t"): (2, b"i" * 16)}
        assert log.marks == {"t": {"x": (4, 5)}}
        assert log.states == {state}
        assert log.reactors == {"a", "b"}

    def test_states_are_collected_only_if_they_are_asked_for(self) -> None:
        log = LaneLog()
        log.take([(changelog.state_key(changelog.state_prefix("a"), b"k"), b"1")])
        assert log.states == set()

    def test_records_that_were_put_aside_and_what_was_suspected(self) -> None:
        log = LaneLog("a")
        log.take((held_key("t", offset), b"1") for offset in (3, 7, 5, 8))
        log.take([(held_key("t", 8), None), (held_key("other", 9), b"1"), (changelog.SUSPECT, b"1")])
        assert log.held_from("t", 5) == [(held_key("t", 5), None), (held_key("t", 7), None)]
        assert log.held_from("none", 0) == []
        assert log.timers == set()
        assert log.closing() == [(changelog.UNIT, changelog.UNIT_VALUE.pack(0, 0)), (changelog.SUSPECT, None)]
        log.take([(changelog.SUSPECT, None)])
        assert len(log.closing()) == 1
