"""Dead letters as they are shown: read from those that real lanes write."""

import pytest

from pf_stream import Topology
from pf_stream.components.dead_letters import (
    HIDDEN,
    BadPositionError,
    dead_letter_topics,
    last_dead_letters,
    parse_dead_letter,
    read_dead_letter,
)
from pf_stream.core.records import CREATE_TIME, Header
from pf_stream.errors import NotFoundError
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.reader import TopicRecord
from pf_stream.testing import Driver

NOWHERE = ConnectionSettings("127.0.0.1:1")


def record(value: bytes | None, headers: tuple[Header, ...], key: bytes | None = b"N1") -> TopicRecord:
    return TopicRecord("flights.intents.dlq", 2, 17, 1_767_225_600_000, CREATE_TIME, key, value, headers)


def test_of_a_lane(flights: Topology) -> None:
    driver = Driver(flights)
    at = driver.send_raw("intents", key=b"N1", value=b"{}", headers=[("ce_type", b"flights.departed.v1")])
    (written,) = driver.dead_letters()
    letter = parse_dead_letter(record(written.record.value, written.record.headers))
    assert letter.position == "flights.intents.dlq:2:17"
    assert letter.code == "malformed_envelope"
    assert letter.message == written.message
    assert letter.exception == "pf_stream.Refused"
    assert letter.origin == f"flights.intents:{at.partition}:0"
    assert (letter.type, letter.key, letter.value) == ("flights.departed.v1", "N1", {})


def test_a_token_is_never_shown() -> None:
    letter = parse_dead_letter(record(b"{}", (("pf-context", b"secret"), ("PF-Context", b"secret"), ("a", b"b"))))
    assert letter.headers == (("pf-context", HIDDEN), ("PF-Context", HIDDEN), ("a", "b"))
    assert "secret" not in repr(letter)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b"plain", "plain"),
        (b"\xff\x00", "base64:/wA="),
        (b"", ""),
        (None, None),
    ],
)
def test_values_of_any_kind(raw: bytes | None, shown: object) -> None:
    assert parse_dead_letter(record(raw, ())).value == shown


def test_what_another_program_wrote_there() -> None:
    letter = parse_dead_letter(record(None, (("a", None), ("b", b"\xff"), ("b", b"")), key=None))
    assert (letter.code, letter.message, letter.origin, letter.type) == ("unknown", "", "?:?:?", None)
    assert letter.headers == (("a", None), ("b", "�"), ("b", ""))
    assert letter.key is None


def test_each_source_topic_has_one(flights: Topology) -> None:
    assert dead_letter_topics(flights) == ["flights.airports.dlq", "flights.carriers.dlq", "flights.intents.dlq"]


@pytest.mark.parametrize(
    ("position", "said"),
    [
        ("flights.intents.dlq", "is no position"),
        ("flights.intents.dlq:2", "is no position"),
        ("flights.intents.dlq:2:end", "is no position"),
        ("flights.intents.dlq:-1:3", "is no position"),
        ("flights.intents:0:3", "is not in a topic of dead letters"),
    ],
)
def test_positions_that_are_none(position: str, said: str) -> None:
    with pytest.raises(BadPositionError, match=said):
        read_dead_letter(NOWHERE, position)


def test_a_code_that_is_none(flights: Topology) -> None:
    with pytest.raises(NotFoundError, match=r"there is no code 'token_expird'; did you mean 'token_expired'?"):
        last_dead_letters(NOWHERE, flights, 10, ["token_expird"])
