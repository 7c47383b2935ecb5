"""Who feeds whom: what reactors declare to emit, seen from each group's event clock."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pf_stream.model.topology import Topology

__all__ = ["Flow", "flows"]

_NEVER: Final = 1 << 30
"""Steps to a group that nothing public reaches."""


@dataclass(frozen=True, slots=True)
class Flow:
    """What a group knows of the others. Only what is declared is in it: what a reactor without ``emits`` does shows later."""

    event_time: bool
    """Whether its lanes keep an event clock from the first intent on: one of its reactors is told it, or a group that it
    feeds needs it."""
    upstreams: Mapping[str, tuple[str, ...]]
    """By internal source topic, the groups that write there."""
    feedback: frozenset[str]
    """Groups that are never waited for, itself among them: they wait for it, and none of them would ever go on."""
    targets: tuple[str, ...]
    """Internal topics to which it writes and whose readers keep an event clock, sorted."""


def flows(topology: Topology) -> dict[str, Flow]:
    """By name, what each group of a topology knows of the others."""
    groups = topology.groups
    readers = {topic: group.name for group in groups for topic in group.topics if topology.is_internal(topic)}
    written = {
        group.name: {
            topic
            for reactor in group.reactors
            for spec in reactor.__reactor__.emits or ()
            if (topic := topology.topic_name(spec.topic)) in readers
        }
        for group in groups
    }
    feeds = {name: {readers[topic] for topic in topics} for name, topics in written.items()}
    public = {group.name for group in groups if not set(group.topics) <= readers.keys()}
    steps = _steps(feeds, public)
    # Of what goes round in a circle, the way back is the one that leads no further from where it came in.
    feedback = {
        name: frozenset(
            {
                name,
                *(after for after in _steps(feeds, feeds[name]) if steps.get(after, _NEVER) >= steps.get(name, _NEVER)),
            }
        )
        for name in feeds
    }
    timed = {group.name for group in groups if any(reactor.__reactor__.event_time for reactor in group.reactors)}
    while True:
        more = {name for name in feeds for target in feeds[name] & timed if name not in feedback[target]} - timed
        if not more:
            break
        timed |= more
    return {
        group.name: Flow(
            event_time=group.name in timed,
            upstreams={
                topic: tuple(name for name in written if topic in written[name] and name not in feedback[group.name])
                for topic in group.topics
            },
            feedback=feedback[group.name],
            targets=tuple(
                sorted(
                    topic
                    for topic in written[group.name]
                    if readers[topic] in timed and group.name not in feedback[readers[topic]]
                )
            ),
        )
        for group in groups
    }


def _steps(feeds: Mapping[str, set[str]], start: set[str]) -> dict[str, int]:
    """How many steps lead from *start* to each group, itself included."""
    steps = dict.fromkeys(start, 0)
    last = start
    while last:
        last = {name for before in last for name in feeds[before]} - steps.keys()
        steps |= dict.fromkeys(last, max(steps.values(), default=0) + 1)
    return steps
