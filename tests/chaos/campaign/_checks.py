"""What is in Kafka after a campaign, compared with what must be there."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson
from confluent_kafka import Message

from pf_stream import Topology
from tests.chaos.campaign._tracker import Expected
from tests.kafka._support import Durable, header_list, headers_of, read_topic

__all__ = ["Outputs", "differences_of_state", "read_outputs"]

SHOWN = 5


def differences_of_state(found: Durable, expected: Expected) -> list[str]:
    """How the states differ, and whether outputs wait to be sent."""
    differences = []
    for reactor, wanted in (("accounts", expected.accounts), ("ledgers", expected.ledgers)):
        there = {key: state for (owner, key), state in found.states.items() if owner == reactor}
        wrong = [key for key in sorted(there.keys() | wanted.keys()) if there.get(key) != wanted.get(key)]
        differences += [
            f"{reactor} {key}: {_short(there.get(key))} instead of {_short(wanted.get(key))}" for key in wrong[:SHOWN]
        ]
        if len(wrong) > SHOWN:
            differences.append(f"{reactor}: {len(wrong) - SHOWN} more differ")
    waiting = sorted(key[key.rindex(b"far-") :].decode() if b"far-" in key else repr(key) for key in found.timers)
    if waiting != sorted(expected.timers):
        wrong = sorted(set(waiting) ^ set(expected.timers))
        differences.append(f"timers: {len(waiting)} instead of {len(expected.timers)}, as {wrong[:SHOWN]}")
    if found.outbox:
        differences.append(f"{len(found.outbox)} outputs are not marked as sent")
    return differences


@dataclass(slots=True)
class Outputs:
    """What the outputs were found to be."""

    repeats: int = 0
    """Records that were sent again, with equal ``pf-source`` and equal bytes."""
    differences: list[str] = field(default_factory=list)
    """What should not be."""


def read_outputs(servers: str, topology: Topology, expected: Expected) -> Outputs:
    """Read every output, and compare."""
    found = Outputs()
    intents, transfers = topology.topic_name("intents"), topology.topic_name("transfers")

    replies = _once_each(found, "replies", read_topic(servers, topology.topic_name("replies")), _number_of_reply)
    _compare(found, "replies", {number: _json(message) for number, message in replies.items()}, expected.replies)

    passed = _once_each(found, "transfers", read_topic(servers, transfers), lambda message: _json(message)["number"])
    _compare(found, "transfers", dict.fromkeys(passed), dict.fromkeys(expected.transfers))

    letters = [message for topic in (intents, transfers) for message in read_topic(servers, f"{topic}.dlq")]
    refused = _once_each(found, "dead letters", letters, lambda message: _json(message)["number"])
    codes = {number: headers_of(message)["pf-error-code"] for number, message in refused.items()}
    _compare(found, "dead letters", codes, dict.fromkeys(expected.refused, b"handler_failed"))
    return found


def _once_each(
    found: Outputs, what: str, messages: Iterable[Message], number_of: Callable[[Message], int]
) -> dict[int, Message]:
    """One message for each number; a repeat must be the same record, byte for byte, under the same ``pf-source``."""
    by_source: dict[bytes | None, list[Message]] = defaultdict(list)
    for message in messages:
        by_source[headers_of(message).get("pf-source")].append(message)
    for source, same in by_source.items():
        found.repeats += len(same) - 1
        if source is None:
            found.differences.append(f"{what}: {len(same)} records without pf-source")
        elif any(_bytes(message) != _bytes(same[0]) for message in same):
            found.differences.append(f"{what}: records of {source.decode()} differ")
    firsts = [same[0] for same in by_source.values()]
    counted = Counter(map(number_of, firsts))
    doubled = [number for number, times in counted.items() if times > 1]
    if doubled:
        found.differences.append(f"{what}: {len(doubled)} doubled under another pf-source, as {doubled[:SHOWN]}")
    return {number_of(message): message for message in firsts}


def _compare(found: Outputs, what: str, there: dict[int, Any], wanted: dict[int, Any]) -> None:
    for name, numbers in (("missing", wanted.keys() - there.keys()), ("too many", there.keys() - wanted.keys())):
        if numbers:
            found.differences.append(f"{what}: {len(numbers)} {name}, as {sorted(numbers)[:SHOWN]}")
    wrong = [number for number in sorted(there.keys() & wanted.keys()) if there[number] != wanted[number]]
    for number in wrong[:SHOWN]:
        found.differences.append(f"{what}: {number} is {_short(there[number])} instead of {_short(wanted[number])}")
    if len(wrong) > SHOWN:
        found.differences.append(f"{what}: {len(wrong) - SHOWN} more differ")


def _number_of_reply(message: Message) -> int:
    return int(headers_of(message)["pf-correlation-id"] or b"-1")


def _json(message: Message) -> Any:
    return orjson.loads(message.value() or b"null")


def _bytes(message: Message) -> tuple[object, ...]:
    return message.key(), message.value(), header_list(message), message.partition()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:100]}... ({len(text)} characters)"
