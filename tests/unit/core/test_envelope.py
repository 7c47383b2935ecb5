"""CloudEvents in both modes, and what of them a handler sees."""

from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import pytest

from pf_stream import PUBLIC, Context, Intent, Key, Reactor, State, Topology, on
from pf_stream.core.envelope import is_structured, open_structured
from pf_stream.core.records import Header
from pf_stream.testing import Driver


class Look(Intent, name="kit.look", requires=PUBLIC):
    """Make a note of the envelope."""

    key: Annotated[str, Key]
    note: str = ""


class Noted(State):
    """What the handler saw."""

    id: str = ""
    source: str = ""
    time_ms: int = 0
    note: str = ""


class Notes(Reactor[Noted], id="notes"):
    """Writes the envelope down."""

    @on
    def look(self, intent: Look, state: Noted, ctx: Context) -> None:
        state.id, state.source, state.time_ms, state.note = ctx.intent_id, ctx.source, ctx.time_ms, intent.note


NOTES = Topology("kit", [Notes])
EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "type": "kit.look.v1",
    "source": "/s",
    "id": "i-1",
    "time": "2025-06-01T12:00:00.5Z",
    "data": {"key": "k", "note": "n"},
}
SEEN = Noted("i-1", "/s", round(datetime(2025, 6, 1, 12, 0, 0, 500_000, UTC).timestamp() * 1000), "n")
BINARY: list[Header] = [
    (f"ce_{name}", EVENT[name].encode()) for name in ("specversion", "type", "source", "id", "time")
]


def structured(content_type: bytes = b"application/cloudevents+json", *headers: Header, **changes: object) -> Driver:
    driver = Driver(NOTES)
    value = orjson.dumps({**EVENT, **changes})
    driver.send_raw("intents", key=b"k", value=value, headers=[("content-type", content_type), *headers])
    return driver


@pytest.mark.parametrize(
    "headers",
    [
        [*BINARY, ("content-type", b"application/json")],
        [*BINARY, ("content-type", b"application/json; charset=utf-8")],
        BINARY,
        [("x", b"1"), *BINARY, ("x", b"2"), ("y", None)],
    ],
)
def test_binary_mode(headers: list[Header]) -> None:
    driver = Driver(NOTES)
    driver.send_raw("intents", key=b"k", value=orjson.dumps(EVENT["data"]), headers=headers)
    assert driver.state(Notes, "k") == SEEN
    assert driver.dead_letters() == []


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/cloudevents+json",
        b"application/cloudevents+json; charset=utf-8",
        b"Application/CloudEvents+JSON ;charset=UTF-8",
    ],
)
def test_structured_mode(content_type: bytes) -> None:
    assert structured(content_type).state(Notes, "k") == SEEN


def test_attributes_may_be_repeated_as_headers_and_the_event_is_believed() -> None:
    """Kafka binding, section 3.3.3: implementations may include the same headers as in binary mode."""
    driver = structured(b"application/cloudevents+json", *BINARY[:2], ("ce_source", b"/other"), ("ce_id", b"other"))
    assert driver.state(Notes, "k") == SEEN


@pytest.mark.parametrize("extension", [None, 5, True, "text", -(2**31)])
def test_extensions_of_every_type_that_the_format_allows(extension: object) -> None:
    """JSON event format, sections 2.2 and 3: integers, booleans and strings; null is as good as nothing."""
    assert structured(extension=extension).state(Notes, "k") == SEEN


def test_an_attribute_that_is_null_is_missing() -> None:
    assert structured(time=None).state(Notes, "k") == Noted("i-1", "/s", 1_767_225_600_000, "n")
    assert [letter.code for letter in structured(id=None).dead_letters()] == ["malformed_envelope"]


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (None, False),
        (b"", False),
        (b"application/json", False),
        (b"application/cloudevents-batch+json", False),
        (b"application/cloudevents+json", True),
        (b" APPLICATION/cloudevents+json;x=y", True),
    ],
)
def test_is_structured(content_type: bytes | None, expected: bool) -> None:
    assert is_structured(content_type) is expected


def test_headers_that_are_no_attributes_stay() -> None:
    opened = open_structured(
        orjson.dumps({"id": "1", "n": 7, "yes": True, "no": None, "data": [1]}),
        {"pf-context": b"t", "ce_id": b"other", "ce_gone": b"x", "content-type": b"y", "traceparent": None},
    )
    assert opened == (
        {
            "pf-context": b"t",
            "traceparent": None,
            "ce_id": b"1",
            "ce_n": b"7",
            "ce_yes": b"true",
            "content-type": b"application/json",
        },
        b"[1]",
    )


def test_a_time_that_is_none_is_not_believed() -> None:
    """The record's own time stands in."""
    driver = Driver(NOTES)
    headers = [header for header in BINARY if header[0] != "ce_time"]
    driver.send_raw("intents", key=b"k", value=b'{"key":"k"}', headers=[*headers, ("ce_time", b"yesterday")])
    state = driver.state(Notes, "k")
    assert state is not None
    assert state.time_ms == driver.clock.now_ms()
