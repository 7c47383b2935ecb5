"""The records, and what must have become of them."""

from collections.abc import Iterator

import orjson
import pytest

from bench.peers.apps.ledger import ledger
from bench.peers.workload import BYTES, CONTEXT, OTHER_CONTEXT, Ledger, Load, contexts
from pf_stream.security import SigningKey
from pf_stream.testing import Driver

LOAD = Load([b"token"] * 1000, CONTEXT, 1000)


def accounts(records: int, keys: int) -> Iterator[tuple[bytes, int, int]]:
    found: dict[bytes, tuple[int, int]] = {}
    for seq in range(records):
        record = orjson.loads(LOAD.value(seq))
        key = b"acc-%07d" % (seq % keys)
        count, total = found.get(key, (0, 0))
        found[key] = count + 1, total + record["amount"]
    return ((key, count, total) for key, (count, total) in found.items())


def test_a_value_has_its_size_and_says_its_key() -> None:
    for seq in (0, 7, 999_999, 123_456_789):
        value = LOAD.value(seq)
        assert len(value) == BYTES
        assert orjson.loads(value)["account"].encode() == LOAD.key(seq)
        assert orjson.loads(value)["seq"] == seq


def test_there_are_ten_resources_for_each_of_a_thousand_tokens() -> None:
    load = Load([b"%d" % number for number in range(1000)], CONTEXT, 1000)
    seen = set()
    for seq in range(20_000):
        record = orjson.loads(load.value(seq))
        token = dict(load.headers(seq))[CONTEXT]
        assert token is not None
        assert record["tenant"] == f"t{int(token):03d}"
        seen.add((record["tenant"], record["branch"]))
    assert len(seen) == 10_000


def test_the_headers_of_the_unchecked_records_are_as_long() -> None:
    other = Load(LOAD.tokens, OTHER_CONTEXT, 1000)
    assert [len(name) + len(value or b"") for name, value in other.headers(5)] == [
        len(name) + len(value or b"") for name, value in LOAD.headers(5)
    ]


class TestLedger:
    def test_what_is_right(self) -> None:
        assert Ledger(2500, 1000).faults(accounts(2500, 1000)) is None
        assert Ledger(700, 1000).faults(accounts(700, 1000)) is None

    def test_a_record_too_few(self) -> None:
        assert Ledger(2500, 1000).faults(accounts(2499, 1000)) == "1 of 1,000 accounts are wrong"

    def test_an_account_too_few(self) -> None:
        assert Ledger(2500, 2500).faults(accounts(2499, 2500)) == "2,499 accounts instead of 2,500"


@pytest.mark.slow
def test_the_topology_takes_the_records_and_tells_of_each() -> None:
    topology = ledger("c1", "bench.hot", "bench.c1-out", "effectively_once", checked=True)
    driver = Driver(topology)
    load = Load(contexts(SigningKey.generate(), driver.clock.now_ms()), CONTEXT, 10)
    driver.send_raw("bench.hot", key=load.key(1), value=load.value(1), headers=load.headers(1))
    assert [letter.code for letter in driver.dead_letters()] == ["unknown_key"]  # another issuer's

    load = Load(contexts(driver.key, driver.clock.now_ms()), CONTEXT, 10)
    for seq in range(20):
        driver.send_raw("bench.hot", key=load.key(seq), value=load.value(seq), headers=load.headers(seq))
    assert len(driver.dead_letters()) == 1
    outputs = driver.outputs("bench.c1-out")
    assert sorted(output.json()["seq"] for output in outputs) == list(range(20))
    assert max(output.json()["count"] for output in outputs) == 2
    assert all(output.value and output.value.endswith(b'"seq":%d}' % output.json()["seq"]) for output in outputs)
