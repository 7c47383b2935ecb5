"""Attempts to get past the capability check: what each sends, and the code that it must get.

An attempt is a record that must not be handled. The attacker is any Kafka client, holds genuine tokens for the carrier ``UA`` and
the owner ``ann``, and is after ``DL`` and ``bob``, or after what a token no longer or not yet allows. Where the code is not plain
from the name, a comment says why it is that one.

What is *not* promised is not here: whoever may write to an internal topic, a changelog or a rerouted topic is believed in what
only the engine says there (docs/protocol.md, "Topics": write access for the topology alone). What is promised there all the same
is: no context, no intent.
"""

from collections.abc import Callable, Iterator
from typing import Final

from tests.hostile.attempts.datalog import datalog
from tests.hostile.attempts.envelope import contexts, structured, types
from tests.hostile.attempts.holders import issuers, times
from tests.hostile.attempts.memories import memories
from tests.hostile.attempts.requests import keys, payloads, resources
from tests.hostile.attempts.tokens import blocks, cut, tampered
from tests.hostile.attempts.topics import internal, replies
from tests.hostile.scene import Attempt, Scene

__all__ = ["attempts_by_theme"]

_THEMES: Final[tuple[Callable[[Scene], Iterator[Attempt]], ...]] = (
    tampered,
    cut,
    blocks,
    times,
    issuers,
    resources,
    payloads,
    keys,
    datalog,
    contexts,
    types,
    structured,
    memories,
    internal,
    replies,
)


def attempts_by_theme(scene: Scene) -> dict[str, list[Attempt]]:
    """All attempts, by the name of what they are about."""
    return {theme.__name__: list(theme(scene)) for theme in _THEMES}
