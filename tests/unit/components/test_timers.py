"""Timers as tools show them, and what firing one makes of it."""

import pytest

from pf_stream.components.dead_letters import HIDDEN
from pf_stream.components.timers import TimerUndecodableError, _detail, _due_now, _Stored
from pf_stream.core import SourceRecord
from pf_stream.core.changelog import timer_key
from pf_stream.core.plan import plan
from pf_stream.core.timers import EVENT, WALL, Timer, encode_timer, held_key
from pf_stream.security import mint
from tests.unit.core.kit import KEY, NOW_MS
from tests.unit.core.reminders import NoteCap, notes

GROUP = plan(notes, 3)[0]
TOKEN = mint(KEY, subject="ann", audience="notes", capabilities=[NoteCap.own("/**")], now_ms=NOW_MS)
RECORD = SourceRecord(
    7,
    NOW_MS,
    b"n",
    b'{"note":"n","text":"a"}',
    (("ce_type", b"note.remind.v1"), ("pf-deadline", b"2030-01-01T00:00:00Z"), ("pf-context", TOKEN.encode())),
)
TIMER = Timer(NOW_MS + 60_000, WALL, "notes.intents", RECORD, NOW_MS, scheduled=True, failed=0)


def stored(timer: Timer, key: bytes) -> _Stored:
    return _Stored(GROUP, 1, 42, key, encode_timer(timer))


def test_a_timer_is_shown_with_its_intent_and_subject_and_without_its_token() -> None:
    found = _detail(stored(TIMER, timer_key("notes", b"n", b"tea")))
    assert found.timer == f"{GROUP.name}:1:42"
    assert (found.reactor, found.key, found.name, found.type) == ("notes", "n", "tea", "note.remind.v1")
    assert (found.clock, found.due_ms, found.deadline_ms) == ("wall", NOW_MS + 60_000, 1_893_456_000_000)
    assert (found.subject, found.intent) == ("ann", {"note": "n", "text": "a"})
    assert dict(found.headers)["pf-context"] == HIDDEN
    assert TOKEN not in repr(found)


@pytest.mark.parametrize("name", [b"\xffid-1", b"\xfenote.remind.v1"])
def test_a_name_that_nobody_gave_is_not_shown(name: bytes) -> None:
    found = _detail(stored(TIMER, timer_key("notes", b"n", name)))
    assert (found.reactor, found.name) == ("notes", None)


def test_a_record_that_was_put_aside_has_its_own_key_and_no_reactor() -> None:
    structured = RECORD._replace(
        value=b'{"specversion":"1.0","type":"note.write.v1","data":{}}',
        headers=(
            ("content-type", b"application/cloudevents+json"),
            ("pf-context", b"no token"),
            ("pf-service", b"believed of scheduled ones alone"),
        ),
    )
    held = TIMER._replace(record=structured, scheduled=False, failed=2)
    found = _detail(stored(held, held_key(held.topic, 7)))
    assert (found.reactor, found.key, found.name, found.type) == (None, "n", None, "note.write.v1")
    assert (found.topic, found.offset, found.failed) == ("notes.intents", 7, 2)
    assert (found.subject, found.deadline_ms) == (None, None)


def test_what_cannot_be_read_is_named() -> None:
    with pytest.raises(TimerUndecodableError, match=f"{GROUP.name}:1:42"):
        _Stored(GROUP, 1, 42, timer_key("notes", b"n", b"tea"), b"never a timer").decode()


def test_what_is_fired_is_due_by_the_wall_clock_and_no_later_than_before() -> None:
    assert _due_now(TIMER, NOW_MS) == TIMER._replace(due_ms=NOW_MS)
    late = TIMER._replace(due_ms=NOW_MS - 5)
    assert _due_now(late, NOW_MS) == late
    by_event = TIMER._replace(due_ms=NOW_MS - 5, clock=EVENT)
    assert _due_now(by_event, NOW_MS) == TIMER._replace(due_ms=NOW_MS)
