"""Replies: to whoever asked, has proven who they are, and named a topic that is meant for them."""

import orjson
import pytest

from pf_stream import Topology
from pf_stream.testing import Driver
from tests.unit.core.kit import BoxCap, Boxes, Put, boxes, event


def test_a_reply() -> None:
    driver = Driver(boxes)
    token = driver.context(BoxCap.put("/**"))
    driver.send(Put(box="b", item="x"), token, id="7", reply_to="replies", correlation_id="c")
    (reply,) = driver.replies()
    assert reply.topic == "box.replies"
    assert reply.key == b"b"
    assert reply.json() == {"items": ["x"], "weight": 1}
    assert reply.headers[:-1] == (
        ("ce_specversion", b"1.0"),
        ("ce_type", b"box.put.reply"),
        ("ce_source", b"/box"),
        ("ce_id", b"re:7"),
        ("ce_time", b"2026-01-01T00:00:00.000+00:00"),
        ("content-type", b"application/json"),
        ("pf-correlation-id", b"c"),
    )
    assert reply.headers[-1][0] == "pf-source"


def test_nobody_asked() -> None:
    driver = Driver(boxes)
    driver.send(Put(box="b"), driver.context(BoxCap.put("/**")), correlation_id="c")
    assert driver.replies() == []


def test_a_refusal_is_told() -> None:
    driver = Driver(boxes)
    driver.send(
        Put(box="b", act="raise"), driver.context(BoxCap.put("/**")), reply_to="box.replies.me", correlation_id="c"
    )
    (reply,) = driver.replies("box.replies.me")
    assert reply.json() == {"error": "handler_failed", "message": "boxes.put: no room for "}
    headers = dict(reply.headers)
    assert headers["ce_type"] == b"pf.refused"
    assert headers["pf-error-code"] == b"handler_failed"
    assert headers["pf-correlation-id"] == b"c"


def test_a_refusal_that_quotes_what_is_no_text() -> None:
    driver = Driver(boxes)
    driver.send(Put(box="b", act="raise surrogate"), driver.context(BoxCap.put("/**")), reply_to="replies")
    (reply,) = driver.replies()
    assert reply.json() == {"error": "handler_failed", "message": "boxes.put: ?"}


@pytest.mark.parametrize("act", ["keep", "raise"])
@pytest.mark.parametrize(("more", "replies"), [(0, 1), (1, 0)])
def test_what_repeats_too_much_of_its_request_is_dropped(act: str, more: int, replies: int) -> None:
    """Key, id and correlation id are the sender's choice, and everything of a unit must fit into one commit."""
    driver = Driver(boxes)
    driver.send(
        Put(box="b" * 1_000, act=act),
        driver.context(BoxCap.put("/**")),
        id="i" * 1_000,
        reply_to="replies",
        correlation_id="c" * (64 * 1024 - 2_000 + more),
    )
    assert len(driver.replies()) == replies


def test_a_key_that_is_refused_and_far_too_large_is_not_repeated_either() -> None:
    driver = Driver(boxes)
    headers = event(Put(box="b"), driver.context(BoxCap.put("/**")), ("pf-reply-to", b"box.replies"))
    # Which partition such a key has takes seconds to find out, and is of no interest here.
    driver.send_raw("intents", key=b"x" * 20_000_000, value=b'{"box":"b"}', headers=headers, partition=0)
    assert [letter.code for letter in driver.dead_letters()] == ["key_mismatch"]
    assert driver.replies() == []


@pytest.mark.parametrize("token", [None, "junk", ""])
def test_the_unverified_are_told_nothing(token: str | None) -> None:
    driver = Driver(boxes)
    driver.send(Put(box="b"), token, reply_to="replies")
    driver.send(Put(box="b"), Driver(boxes, seed=1).context(BoxCap.put("/**")), reply_to="replies")
    assert driver.replies() == []
    assert len(driver.dead_letters()) == 2


def test_the_verified_are_told_what_they_lack() -> None:
    driver = Driver(boxes)
    driver.send(Put(box="b"), driver.context(BoxCap.put("/cellar/*")), reply_to="replies")
    assert [reply.json()["error"] for reply in driver.replies()] == ["insufficient_capabilities"]


def test_a_topic_that_is_not_for_replies_gets_none() -> None:
    driver = Driver(Topology("box", boxes.reactors, internal=["moves"], replies=["*"]))
    token = driver.context(BoxCap.put("/**"))
    for topic in ("box.intents", "box.moves", "box.intents.rerouted", "box.intents.dlq", "other.topic", "x-changelog"):
        driver.send_raw(
            "intents",
            key=b"b",
            value=b'{"box":"b"}',
            headers=[*event(Put(box="b"), token), ("pf-reply-to", topic.encode())],
        )
    assert [letter.code for letter in driver.dead_letters()] == ["bad_reply_topic"] * 6
    assert driver.replies() == []
    assert driver.state(Boxes, "b") is None


def test_a_null_key_does_not_keep_a_refusal_from_being_told() -> None:
    driver = Driver(boxes)
    headers = [*event(Put(box="b"), driver.context(BoxCap.put("/**"))), ("pf-reply-to", b"box.replies")]
    driver.send_raw("intents", key=None, value=orjson.dumps({"box": "b"}), headers=headers)
    assert [(reply.key, reply.json()["error"]) for reply in driver.replies()] == [(None, "null_key")]
