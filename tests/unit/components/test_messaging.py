"""Sending: what is refused before it leaves, and that what leaves is what the lanes accept."""

import re

import pytest

from pf_stream import Topology
from pf_stream.components import messaging
from pf_stream.components.messaging import (
    DENIALS,
    InternalIntentError,
    InvalidIntentError,
    find_intent,
    make_record,
    parse_intent,
    reply_topic,
)
from pf_stream.core import CODES
from pf_stream.errors import ConfigurationError, NotFoundError
from pf_stream.model import Grant
from pf_stream.security import Refusal
from pf_stream.testing import Driver

FLIGHT = b'{"tailnum": "N1", "carrier": "UA", "origin": "EWR", "flight": 1, "dest": "ORD", "delay": 7}'


class TestFindIntent:
    @pytest.mark.parametrize("name", ["flights.departed", "flights.departed.v1"])
    def test_by_name_with_or_without_version(self, flights: Topology, name: str) -> None:
        assert find_intent(flights, name).type == "flights.departed.v1"

    @pytest.mark.parametrize("name", ["flights.departd", "flights.departed.v2"])
    def test_the_near_one_is_named(self, flights: Topology, name: str) -> None:
        with pytest.raises(NotFoundError, match=r"did you mean 'flights\.departed\.v1'\?"):
            find_intent(flights, name)

    def test_an_internal_type_cannot_be_sent(self, flights: Topology) -> None:
        with pytest.raises(InternalIntentError, match=r"flights\.carrier_delay\.v1 travels on flights\.carriers"):
            find_intent(flights, "flights.carrier_delay")


class TestParseIntent:
    def test_every_field_that_is_wrong_is_named(self, flights: Topology) -> None:
        with pytest.raises(InvalidIntentError) as caught:
            parse_intent(
                find_intent(flights, "flights.departed"),
                b'{"tailnm": "N1", "carrier": 3, "origin": "EWR", "flight": 1, "dest": "ORD"}',
            )
        assert caught.value.faults == (
            "tailnum: Field required",
            "carrier: Input should be a valid string, not 3",
            "tailnm: there is no such field; did you mean 'tailnum'?",
        )

    def test_no_json(self, flights: Topology) -> None:
        with pytest.raises(InvalidIntentError, match=r"no flights\.departed\.v1:\n  Invalid JSON: "):
            parse_intent(find_intent(flights, "flights.departed"), b"{tailnum: 1}")


class TestReplyTopic:
    @pytest.mark.parametrize(
        ("wanted", "topic"),
        [(None, "test.replies"), ("replies", "test.replies"), ("replies-7", "test.replies-7"), ("a.b", "a.b")],
    )
    def test_within_the_namespace_unless_it_is_a_full_name(
        self, flights: Topology, wanted: str | None, topic: str
    ) -> None:
        topology = Topology("t", flights.reactors, namespace="test", replies=["replies", "replies-*", "a.b"])
        assert reply_topic(topology, wanted) == topic

    def test_one_that_no_pattern_allows(self, flights: Topology) -> None:
        with pytest.raises(ConfigurationError, match=r"no replies to flights\.mine; allowed: flights\.replies"):
            reply_topic(flights, "mine")


class TestRecord:
    @pytest.fixture
    def driver(self, flights: Topology) -> Driver:
        return Driver(flights)

    def send(self, driver: Driver, context: str | None, reply_to: str | None = None) -> None:
        intent = parse_intent(find_intent(driver.topology, "flights.departed"), FLIGHT)
        record = make_record(
            driver.topology, intent, context=context, reply_to=reply_to, now_ms=driver.clock.now_ms(), id_="id-1"
        )
        driver.send_raw(record.topic, key=record.key, value=record.value, headers=record.headers)

    def grant(self, flights: Topology, pattern: str) -> Grant:
        (required,) = find_intent(flights, "flights.departed").requires
        assert isinstance(required, Grant)
        return required.operation(pattern)

    def test_is_accepted_and_answered(self, driver: Driver) -> None:
        self.send(driver, driver.context(self.grant(driver.topology, "/UA/**")), "flights.replies")
        assert driver.dead_letters() == []
        (reply,) = driver.replies()
        assert reply.json() == {"legs": 1, "cancelled": 0}
        assert reply.header("pf-correlation-id") == b"id-1"

    def test_without_a_reply_topic_none_is_asked_for(self, driver: Driver) -> None:
        self.send(driver, driver.context(self.grant(driver.topology, "/UA/**")))
        assert driver.dead_letters() == []
        assert driver.replies() == []

    def test_its_dead_letter_still_has_its_id(self, driver: Driver) -> None:
        self.send(driver, driver.context(self.grant(driver.topology, "/DL/**")))
        (letter,) = driver.dead_letters()
        assert letter.code in DENIALS
        assert letter.record.header("ce_id") == b"id-1"

    def test_its_time_is_now(self, driver: Driver) -> None:
        intent = parse_intent(find_intent(driver.topology, "flights.departed"), FLIGHT)
        record = make_record(driver.topology, intent, context=None, reply_to=None, now_ms=1_767_225_600_001, id_="id-1")
        assert dict(record.headers)["ce_time"] == b"2026-01-01T00:00:00.001Z"
        assert "pf-context" not in dict(record.headers)


class TestDenials:
    def test_are_codes(self) -> None:
        assert set(CODES) >= DENIALS

    def test_hold_whatever_security_refuses_with(self) -> None:
        # The table in the docstring is what that package promises.
        assert Refusal.__doc__ is not None
        codes = set(re.findall(r"^\s*``(\w+)``", Refusal.__doc__, re.MULTILINE))
        assert len(codes) > 10
        assert codes | {"missing_context"} == DENIALS

    def test_public_names_exist(self) -> None:
        assert all(hasattr(messaging, name) for name in messaging.__all__)
