"""Lanes that Kafka has denied something: tried again, told of once, and given up when the group decides."""

import asyncio
import random
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from structlog.testing import capture_logs

from pf_stream.engine.denials import AUTHORISATION_S, Denials
from pf_stream.kafka.errors import NotAuthorisedError
from tests.simulation.virtual import VirtualLoop

ONE, OTHER = ("intents", 0), ("intents", 1)
READ = NotAuthorisedError("read boxes", "TOPIC_AUTHORIZATION_FAILED")
Play: TypeAlias = Callable[[Denials], Awaitable[None]]


def played(play: Play, patience_s: float = 5.0) -> tuple[list[object], list[MutableMapping[str, Any]]]:
    """What is opened again, or ``group`` where the group is asked; and the log."""
    done: list[object] = []
    loop = VirtualLoop(random.Random(1))  # noqa: S311 - to be repeated

    async def work() -> None:
        await play(Denials(done.append, lambda: done.append("group"), patience_s))

    with capture_logs() as logs:
        loop.run_until_complete(work())
    loop.close()
    return done, logs


def test_a_lane_is_opened_again_after_a_while() -> None:
    async def play(denials: Denials) -> None:
        denials.add(ONE, "<lane 0>", READ)
        await asyncio.sleep(AUTHORISATION_S + 1)

    assert played(play)[0] == [ONE]


def test_it_is_told_of_once_however_many_lanes_and_attempts() -> None:
    async def play(denials: Denials) -> None:
        for _ in range(3):
            denials.add(ONE, "<lane 0>", READ)
            denials.add(OTHER, "<lane 1>", READ)
            await asyncio.sleep(AUTHORISATION_S + 1)
        denials.opened(ONE)
        await asyncio.sleep(AUTHORISATION_S + 1)
        denials.opened(OTHER)
        await asyncio.sleep(AUTHORISATION_S + 1)

    done, logs = played(play)
    assert done == [ONE, OTHER] * 3
    assert [entry["event"] for entry in logs] == [
        "lanes wait until Kafka allows what they need; the others go on",
        "Kafka allows it again",
    ]


def test_what_opens_and_is_denied_once_more_was_not_allowed() -> None:
    async def play(denials: Denials) -> None:
        denials.add(ONE, "<lane 0>", READ)
        await asyncio.sleep(AUTHORISATION_S + 1)
        denials.opened(ONE)
        denials.add(ONE, "<lane 0>", READ)
        await asyncio.sleep(AUTHORISATION_S + 1)

    done, logs = played(play)
    assert done == [ONE, ONE]
    assert "Kafka allows it again" not in [entry["event"] for entry in logs]


def test_when_the_group_takes_the_lanes_back_none_is_opened() -> None:
    async def play(denials: Denials) -> None:
        denials.add(ONE, "<lane 0>", READ)
        denials.revoked()
        await asyncio.sleep(AUTHORISATION_S + 1)

    done, logs = played(play)
    assert done == []
    assert len(logs) == 1


def test_what_the_group_gives_anew_is_told_of_as_ever() -> None:
    async def play(denials: Denials) -> None:
        denials.add(ONE, "<lane 0>", READ)
        denials.add(OTHER, "<lane 1>", READ)
        denials.revoked()
        denials.assigned([ONE])
        denials.opened(ONE)
        await asyncio.sleep(AUTHORISATION_S + 1)

    assert [entry["event"] for entry in played(play)[1]][1:] == ["Kafka allows it again"]


def test_what_others_have_now_is_told_of_anew_if_it_comes_back() -> None:
    async def play(denials: Denials) -> None:
        denials.add(ONE, "<lane 0>", READ)
        denials.revoked()
        denials.assigned([OTHER])
        denials.add(OTHER, "<lane 1>", READ)

    assert [entry["lane"] for entry in played(play)[1]] == ["<lane 0>", "<lane 1>"]


def test_a_worker_that_was_paused_while_it_waited_asks_the_group() -> None:
    """The lane may have another owner by now: who acquires last has it, so it must not acquire on its own accord."""

    async def play(denials: Denials) -> None:
        denials.add(ONE, "<lane 0>", READ)
        await asyncio.sleep(AUTHORISATION_S + 1)

    assert played(play, patience_s=-1)[0] == ["group"]
