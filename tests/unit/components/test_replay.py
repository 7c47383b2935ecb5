"""Which letters are meant, what is remembered of them, and which headers stay."""

import pytest

from pf_stream.components.replay import _fresh, _Memory, select_letters
from pf_stream.core.records import Header
from pf_stream.errors import NotFoundError


def test_which_letters() -> None:
    letters = select_letters("flights.intents.dlq", [(2, 17)], "token_expired", 5)
    assert (letters.topic, letters.positions, letters.code, letters.since_ms) == (
        "flights.intents.dlq",
        ((2, 17),),
        "token_expired",
        5,
    )


def test_a_code_or_a_topic_that_is_none() -> None:
    with pytest.raises(NotFoundError, match="there is no code 'token_expird'; did you mean 'token_expired'"):
        select_letters("a.dlq", code="token_expird")
    with pytest.raises(NotFoundError, match=r"a\.intents is no topic of dead letters; their names end with \.dlq"):
        select_letters("a.intents")


def test_memory_knows_what_the_topic_still_holds() -> None:
    memory = _Memory({0: 100, 3: 0}, {0: 117, 3: 0})
    for letter in ((0, 100), (0, 116), (0, 108), (0, 99), (0, 500), (1, 100), (3, 0)):
        memory.add(*letter)
    known = [(partition, offset) for partition in range(4) for offset in range(600) if (partition, offset) in memory]
    assert known == [(0, 100), (0, 108), (0, 116)]


def test_headers_are_as_they_were_sent_first() -> None:
    sent: list[Header] = [
        ("ce_id", b"1"),
        ("x", None),
        ("pf-reply-to", b"r"),
        ("x", b"\xff"),
        ("traceparent", b"t"),
        ("__streams.other", b"theirs"),
    ]
    added: list[Header] = [
        ("pf-context", b"old"),
        ("pf-source", b"a:1:1"),
        ("pf-hops", b"1"),
        ("pf-rerouted", b"t:0:0"),
        ("pf-replayed-from", b"t.dlq:0:0"),
        ("pf-error-code", b"handler_failed"),
        ("pf-revocation-ids", b"00"),
        ("__streams.errors.topic", b"t"),
        ("__streams.errors.message", b"m"),
    ]
    found = _fresh([*sent, *added], "token", "t.dlq:1:2")
    assert found == [*sent, ("pf-context", b"token"), ("pf-replayed-from", b"t.dlq:1:2")]
