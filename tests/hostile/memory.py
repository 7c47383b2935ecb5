"""The target in memory: what attempts and right intents leave there."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from pf_stream.core import changelog
from pf_stream.testing import Driver
from pf_stream.testing.records import Position
from tests.hostile.scene import ROOTS, Message, Scene
from tests.hostile.target import hostile

__all__ = ["Traces", "alone", "attacked", "send", "traces"]


class Traces(NamedTuple):
    """What there is to be seen of intents that were handled."""

    states: dict[tuple[str, str], Any]
    """By reactor and key: every one that there is."""
    written: Counter[tuple[str, bytes | None, bytes | None]]
    """Topic, key and value of all that the topology wrote but dead letters."""


def attacked(scene: Scene, seed: int = 0) -> Driver:
    """The topology at work; its second public topic carries the producers' time."""
    now = datetime.fromtimestamp(scene.now_ms / 1000, UTC)
    driver = Driver(hostile.within(scene.namespace), partitions=hostile.partitions, seed=seed, now=now)
    driver.roots = ROOTS
    driver._topics.keeps_time |= {scene.files}
    driver.redeploy(driver.topology)
    return driver


def send(driver: Driver, message: Message) -> Position:
    """Append a record as a client would."""
    at_ms = message.timestamp_ms
    return driver.send_raw(
        message.topic,
        key=message.key,
        value=message.value,
        headers=message.headers,
        partition=message.partition,
        timestamp=None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC),
    )


def traces(driver: Driver) -> Traces:
    """What is to be seen now."""
    last: dict[bytes, bytes | None] = {}
    for log in driver._changelogs.values():
        last.update(log.records)
    states = {}
    for key, value in last.items():
        if key[1:2] == b"s" and value is not None:
            reactor, name, _ = changelog.parse_state_key(key)
            states[reactor, name.decode()] = orjson.loads(value[changelog.STATE_PREFIX.size :])
    written = Counter(
        (record.topic, record.key, record.value)
        for topic, records in driver._topics.written.items()
        if not topic.endswith(".dlq")
        for record in records
    )
    return Traces(states, written)


def alone(scene: Scene, messages: Iterable[Message]) -> Traces:
    """What messages leave that are all right, and nothing else."""
    driver = attacked(scene)
    with driver.paused():
        for message in messages:
            send(driver, message)
    assert driver.dead_letters() == []
    return traces(driver)
