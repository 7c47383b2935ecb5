"""Dead letters: the refused record byte for byte, why it was refused, and never a token."""

import pytest

from pf_stream.core import Limits
from pf_stream.core.records import Header
from pf_stream.security import describe
from pf_stream.testing import DeadLetter, Driver
from tests.unit.core.kit import BoxCap, Put, boxes

ADDED = [
    "__streams.errors.exception",
    "__streams.errors.message",
    "__streams.errors.topic",
    "__streams.errors.partition",
    "__streams.errors.offset",
    "pf-error-code",
]


def split(letter: DeadLetter) -> tuple[list[Header], list[Header]]:
    """The headers that came, and those that were added."""
    names = [name for name, _ in letter.record.headers]
    at = names.index(ADDED[0])
    return list(letter.record.headers[:at]), list(letter.record.headers[at:])


@pytest.mark.parametrize("size", [0, 10, 70_000, 300_000])
@pytest.mark.parametrize("value", [None, b"\xff\x00"])
def test_key_value_and_headers_are_as_they_came(size: int, value: bytes | None) -> None:
    """Above 64 KiB by copying the record from where it lies."""
    driver = Driver(boxes)
    headers: list[Header] = [
        ("b", b"\xff\x00"),
        ("a", None),
        ("b", b""),
        ("pf-source", b"forged:1:1"),
        ("pf-error-code", b"forged"),
        ("__streams.errors.topic", b"forged"),
        ("ü", b"x" * size),
        ("\udcff", b"a name that is no UTF-8"),
    ]
    at = driver.send_raw("intents", key=b"\xfe", value=value, headers=headers, partition=3)
    (letter,) = driver.dead_letters()
    names = [name for name, _ in letter.record.headers]
    start = names.index("__streams.errors.exception")
    assert list(letter.record.headers[:start]) == headers
    assert names[start:] == [*ADDED, "pf-source"]
    assert (letter.record.key, letter.record.value) == (b"\xfe", value)
    assert (letter.record.topic, letter.record.partition) == ("box.intents.dlq", 3)
    assert (letter.topic, letter.partition, letter.offset) == at
    assert letter.code == "malformed_envelope"
    assert letter.record.header("__streams.errors.exception") == b"pf_stream.Refused"


def test_a_null_key_stays_null() -> None:
    driver = Driver(boxes)
    driver.send_raw("intents", key=None, value=b"", partition=2)
    (letter,) = driver.dead_letters()
    assert letter.record.key is None
    assert letter.record.partition == 2


def test_an_exception_is_named() -> None:
    driver = Driver(boxes)
    driver.send(Put(box="b", item="pen", act="raise"), driver.context(BoxCap.put("/**")))
    driver.send(Put(box="b", act="raise unprintable"), driver.context(BoxCap.put("/**")))
    first, second = driver.dead_letters()
    assert first.message == "boxes.put: no room for pen"
    assert first.record.header("__streams.errors.exception") == b"builtins.ValueError"
    assert second.message == "boxes.put: UnprintableError, which cannot be shown"


def test_a_reason_is_short_whatever_the_sender_chose() -> None:
    """A dead letter larger than its topic takes could never be sent, and an output that cannot be sent stops its lane."""
    driver = Driver(boxes)
    token = driver.context(BoxCap.put("/**"))
    driver.send(Put(box="b", act="raise long"), token)
    driver.send_raw("intents", key=b"\xff" * 500_000, value=b'{"box":"b"}', headers=driver_headers(token))
    assert [letter.code for letter in driver.dead_letters()] == ["handler_failed", "key_mismatch"]
    assert [len(letter.message) for letter in driver.dead_letters()] == [1_000, 1_000]


def driver_headers(token: str) -> list[Header]:
    return [
        ("ce_specversion", b"1.0"),
        ("ce_type", b"box.put.v1"),
        ("ce_source", b"/s"),
        ("ce_id", b"1"),
        ("content-type", b"application/json"),
        ("pf-context", token.encode()),
    ]


def test_a_payload_is_explained_without_its_values() -> None:
    driver = Driver(boxes)
    value = b'{"box":"b","item":["hunter2"],"act":{"password":"hunter2"}}'
    driver.send_raw("intents", key=b"b", value=value, headers=driver_headers(driver.context()))
    (letter,) = driver.dead_letters()
    assert letter.message == "item: Input should be a valid string; act: Input should be a valid string"


def test_a_payload_that_is_none_at_all_is_explained_too() -> None:
    driver = Driver(boxes)
    driver.send_raw("intents", key=b"b", value=b"[]", headers=driver_headers(driver.context()))
    (letter,) = driver.dead_letters()
    assert letter.message == "value: Input should be an object"


class TestTokens:
    @pytest.mark.parametrize("inline", [64 << 10, 0])
    def test_a_genuine_one_is_replaced_by_its_revocation_ids(self, inline: int) -> None:
        driver = Driver(boxes, limits=Limits(inline_bytes=inline))
        token = driver.context(BoxCap.put("/cellar/**"))
        driver.send(Put(box="b"), token)
        (letter,) = driver.dead_letters()
        came, added = split(letter)
        assert "pf-context" not in dict(came)
        assert [name for name, _ in added] == [*ADDED, "pf-revocation-ids", "pf-source"]
        assert dict(added)["pf-revocation-ids"] == ",".join(describe(token).revocation_ids).encode()

    @pytest.mark.parametrize("inline", [64 << 10, 0])
    def test_one_that_is_not_believed_is_left_out(self, inline: int) -> None:
        driver = Driver(boxes, limits=Limits(inline_bytes=inline))
        driver.send(Put(box="b"), Driver(boxes, seed=1).context(BoxCap.put("/**")))
        (letter,) = driver.dead_letters()
        came, added = split(letter)
        assert "pf-context" not in dict(came)
        assert [name for name, _ in added] == [*ADDED, "pf-source"]

    @pytest.mark.parametrize("inline", [64 << 10, 0])
    @pytest.mark.parametrize("name", ["PF-Context", "Pf-Context"])
    def test_one_under_a_name_in_capitals_is_left_out(self, name: str, inline: int) -> None:
        """Libraries of HTTP write names so; the intent is refused, and its token is good all the same."""
        driver = Driver(boxes, limits=Limits(inline_bytes=inline))
        driver.send(Put(box="b"), headers=[(name, driver.context(BoxCap.put("/**")).encode())])
        (letter,) = driver.dead_letters()
        assert letter.code == "missing_context"
        assert name not in dict(letter.record.headers)

    @pytest.mark.parametrize("inline", [64 << 10, 0])
    def test_revocation_ids_of_the_senders_are_left_out(self, inline: int) -> None:
        """They would name another one's token to whoever revokes by dead letters."""
        driver = Driver(boxes, limits=Limits(inline_bytes=inline))
        driver.send(Put(box="b"), headers=[("pf-revocation-ids", b"ab12")])
        (letter,) = driver.dead_letters()
        assert "pf-revocation-ids" not in dict(letter.record.headers)

    @pytest.mark.parametrize("inline", [64 << 10, 0])
    def test_several_are_all_left_out(self, inline: int) -> None:
        driver = Driver(boxes, limits=Limits(inline_bytes=inline))
        token = driver.context(BoxCap.put("/**"))
        driver.send(Put(box="b"), token, headers=[("pf-context", token.encode()), ("pf-context", None)])
        (letter,) = driver.dead_letters()
        assert letter.code == "duplicate_header"
        assert "pf-context" not in dict(letter.record.headers)

    def test_nothing_that_leaves_a_lane_holds_the_callers_token(self) -> None:
        """Neither dead letters nor replies, and on internal topics only what was narrowed from it."""
        driver = Driver(boxes)
        token = driver.context(BoxCap.put("/**"))
        for act in ("keep", "raise", "return nonsense", "wrong type", "emit stray"):
            driver.send(Put(box="b", act=act), token, reply_to="replies")
        driver.send(Put(box="a/b"), token, reply_to="replies")
        driver.send(Put(box="b"), token, reply_to="elsewhere")
        written = [record for topic in ("intents.dlq", "replies", "moves") for record in driver.outputs(topic)]
        assert len(written) == 6 + 6 + 1
        # A narrowed token begins like the one it was made of: with the authority block.
        signature = token[-40:].encode()
        for record in written:
            assert token.encode() not in (record.value or b"")
            for _, value in record.headers:
                assert value is None or signature not in value
