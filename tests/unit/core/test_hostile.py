"""Attempts to get past the capability check, in memory; tests/kafka sends the same ones through a real Kafka."""

import re
from collections import Counter
from dataclasses import replace
from itertools import cycle

import pytest

from pf_stream.testing.records import DeadLetter, Position
from tests.hostile.attempts import attempts_by_theme
from tests.hostile.memory import alone, attacked, send, traces
from tests.hostile.scene import Message, Scene
from tests.hostile.target import GateCap, LoanCap, hostile
from tests.unit.core.kit import NOW_MS

SCENE = Scene(hostile.namespace, NOW_MS)
THEMES = attempts_by_theme(SCENE)
EVERY = [attempt for theme in THEMES.values() for attempt in theme]


def test_there_are_many_and_no_two_are_alike() -> None:
    assert len(EVERY) >= 150
    assert not [name for name, times in Counter(attempt.name for attempt in EVERY).items() if times > 1]
    alike: dict[object, list[str]] = {}
    for name, _, message, first in EVERY:
        # What lane a record pretends to be from tells none apart: each has a name of its own, not to be taken for a repetition.
        headers = [(one, value and re.sub(rb"^forged[a-z0-9]*", b"forged", value)) for one, value in message.headers]
        alike.setdefault((replace(message, headers=tuple(headers)), first), []).append(name)
    assert not [names for names in alike.values() if len(names) > 1]


@pytest.mark.parametrize("theme", THEMES)
def test_each_is_refused_and_leaves_no_trace(theme: str) -> None:
    """One after the other, with what is right in between."""
    driver = attacked(SCENE)
    sent: list[Message] = []
    wrong = []
    known: list[DeadLetter] = []

    def work(message: Message) -> None:
        send(driver, message)
        sent.append(message)

    for right in SCENE.right:
        work(right)
    for attempt, right in zip(THEMES[theme], cycle(SCENE.right), strict=False):
        if attempt.first is not None:
            work(attempt.first)
        before = traces(driver)
        at = send(driver, attempt.message)
        letters = driver.dead_letters()
        told = [
            (letter.code, Position(letter.topic, letter.partition, letter.offset))
            for letter in letters
            if letter not in known
        ]
        known = letters
        if told != [(attempt.code, at)] or traces(driver) != before:
            wrong.append((attempt.name, attempt.code, told))
        work(right)
    assert not wrong
    assert driver.refused == Counter(attempt.code for attempt in THEMES[theme])
    assert traces(driver) == alone(SCENE, sent)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_all_at_once_change_nothing_either(seed: int) -> None:
    """In units and an order of lanes that a seed chooses, by one memory of what was decided."""
    driver = attacked(SCENE, seed)
    right: list[Message] = []
    expected = {}
    with driver.paused():
        for attempt, other in zip(EVERY, cycle(SCENE.right), strict=False):
            good = [other] if attempt.first is None else [other, attempt.first]
            right += good
            for message in good:
                send(driver, message)
            expected[send(driver, attempt.message)] = attempt.code
    found = {Position(letter.topic, letter.partition, letter.offset): letter.code for letter in driver.dead_letters()}
    assert found == expected
    assert len(driver.dead_letters()) == len(EVERY)
    assert traces(driver) == alone(SCENE, right)


@pytest.mark.parametrize("topic", ["intents", "files"])
def test_a_token_lives_to_the_millisecond(topic: str) -> None:
    """By the broker's clock, and where a record has its producer's time, by ours; a decision that is remembered ends too."""
    driver = attacked(SCENE)
    token = SCENE.mint(GateCap.report("/UA/*"), LoanCap.write("/ann/**"), not_before_ms=NOW_MS + 1000, lifetime_s=2)
    message = SCENE.departed(token) if topic == "intents" else SCENE.stored(token)
    dated = replace(message, timestamp_ms=NOW_MS + 1500)
    codes = []
    for step_ms in (999, 1, 999, 1):
        driver.advance(step_ms / 1000)
        before = len(driver.dead_letters())
        send(driver, dated)
        codes.append([letter.code for letter in driver.dead_letters()[before:]])
    assert codes == [["token_not_yet_valid"], [], [], ["token_expired"]]
