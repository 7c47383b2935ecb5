"""Every answer that librdkafka can give is one of our errors, and whether to try again is decided."""

import pytest
from confluent_kafka import KafkaError as Answer
from confluent_kafka import KafkaException

from pf_stream.kafka._confluent import Session
from pf_stream.kafka.errors import KafkaError, KafkaUnavailableError, NotAuthorisedError
from pf_stream.kafka.link import ConnectionSettings

CODES = {name: code for name, code in vars(Answer).items() if name.strip("_").isupper() and isinstance(code, int)}


@pytest.fixture
def session() -> Session:
    return Session(ConnectionSettings("broker:9092"))


def test_there_are_codes() -> None:
    assert len(CODES) > 150


def test_each_code_is_an_error_of_ours(session: Session) -> None:
    for name, code in CODES.items():
        error = session.error(Answer(code, "why"), "do it")
        wanted: type[KafkaError] = KafkaError
        if "AUTHORIZATION_FAILED" in name or "AUTHENTICATION" in name:
            wanted = NotAuthorisedError
        elif "TIMED_OUT" in name or name in {"_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE"}:
            wanted = KafkaUnavailableError
        assert isinstance(error, wanted), name
        assert "why" in str(error), name


def test_what_raises_is_mapped_and_kept_as_the_cause(session: Session) -> None:
    cause = KafkaException(Answer(Answer.TOPIC_AUTHORIZATION_FAILED, "no"))
    with (
        pytest.raises(NotAuthorisedError, match="allow this principal to do it: no") as caught,
        session.mapped("do it"),
    ):
        raise cause
    assert caught.value.__cause__ is cause


def test_the_reason_is_what_was_said_before_all_were_down(session: Session) -> None:
    hear = session.configuration()["error_cb"]
    hear(Answer(Answer._TRANSPORT, "broker:9092: Connection refused (after 0ms in state CONNECT)"))
    hear(Answer(Answer._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    error = session.error(Answer(Answer._TIMED_OUT, "timed out"), "do it")
    assert str(error).startswith("no Kafka broker answers at broker:9092: broker:9092: Connection refused. Is it")
    assert error.retryable


def test_a_wrong_password_is_no_missing_broker(session: Session) -> None:
    session.configuration()["error_cb"](Answer(Answer._AUTHENTICATION, "SASL authentication failed"))
    error = session.error(Answer(Answer._TRANSPORT, "down"), "do it")
    assert isinstance(error, NotAuthorisedError)
