"""The topics that a topology needs."""

from typing import Annotated

import pytest

from pf_stream import PUBLIC, Context, Intent, Key, Reactor, State, Topology, on
from pf_stream.core.plan import plan
from pf_stream.kafka.topics import PartitionsDisagreeError, Purpose, TopicSpec, required_topics


class Ordered(Intent, name="ordered", requires=PUBLIC):
    order: Annotated[str, Key]


class Packed(Intent, name="packed", topic="parcels", requires=PUBLIC):
    order: Annotated[str, Key]


class Shipped(Intent, name="shipped", topic="carrier.intents", requires=PUBLIC):
    order: Annotated[str, Key]


class Order(State):
    packed: bool = False


class Desk(Reactor[Order], id="desk"):
    @on
    def ordered(self, intent: Ordered, state: Order, ctx: Context) -> None: ...


class Packing(Reactor[Order], id="packing"):
    @on
    def packed(self, intent: Packed, state: Order, ctx: Context) -> None: ...


@pytest.fixture
def shop() -> Topology:
    return Topology(
        "shop",
        reactors=[Desk, Packing],
        namespace="test.shop",
        internal=["parcels"],
        emits=[Shipped],
        replies=["test.shop.answers", "test.shop.answers.*"],
        partitions=6,
    )


def by_name(topology: Topology, partitions: int | None = None) -> dict[str, TopicSpec]:
    return {spec.name: spec for spec in required_topics(topology, partitions)}


def test_all_of_them(shop: Topology) -> None:
    assert {name: spec.purpose for name, spec in by_name(shop).items()} == {
        "__pf.probe": Purpose.probe,
        "__pf.registry": Purpose.registry,
        "carrier.intents": Purpose.emits,
        "test.shop.answers": Purpose.replies,
        "test.shop.intents": Purpose.source,
        "test.shop.intents.dlq": Purpose.dead_letters,
        "test.shop.intents.rerouted": Purpose.rerouted,
        "test.shop.parcels": Purpose.internal,
        "test.shop.parcels.dlq": Purpose.dead_letters,
        "test.shop.shop-intents-changelog": Purpose.changelog,
        "test.shop.shop-parcels-changelog": Purpose.changelog,
    }


def test_every_topic_of_the_lanes_is_among_them(shop: Topology) -> None:
    names = set(by_name(shop))
    for group in plan(shop, 6):
        assert group.changelog in names
        for source in group.sources:
            assert {source.topic, source.dead_letters} <= names
        assert {emit.topic for emit in group.emits.values()} <= names


@pytest.mark.parametrize(
    ("purposes", "name", "value"),
    [
        ((Purpose.source, Purpose.emits), "message.timestamp.type", "LogAppendTime"),
        ((Purpose.internal, Purpose.rerouted, Purpose.dead_letters), "message.timestamp.type", "CreateTime"),
        ((Purpose.changelog, Purpose.registry), "cleanup.policy", "compact"),
        ((Purpose.source,), "max.message.bytes", str(4 << 20)),
        ((Purpose.rerouted, Purpose.dead_letters), "max.message.bytes", str(5 << 20)),
        ((Purpose.changelog, Purpose.internal), "max.message.bytes", str(8 << 20)),
    ],
)
def test_settings(shop: Topology, purposes: tuple[Purpose, ...], name: str, value: str) -> None:
    specs = [spec for spec in required_topics(shop) if spec.purpose in purposes]
    assert specs
    assert {spec.config.get(name) for spec in specs} == {value}


@pytest.mark.parametrize(("given", "expected"), [(None, 6), (3, 3)])
def test_partitions(shop: Topology, given: int | None, expected: int) -> None:
    specs = by_name(shop, given)
    assert specs.pop("__pf.registry").partitions == 1
    assert specs.pop("__pf.probe").partitions == 1
    assert {spec.partitions for spec in specs.values()} == {expected}


def test_what_has_state_or_leads_to_it_is_copartitioned(shop: Topology) -> None:
    apart = {spec.purpose for spec in required_topics(shop) if not spec.copartitioned}
    assert apart == {Purpose.dead_letters, Purpose.emits, Purpose.replies, Purpose.registry, Purpose.probe}


def test_the_error_names_each_count() -> None:
    error = PartitionsDisagreeError({"a": 4, "b": 8, "c": 4}, "Do this.")
    assert "these differ: 4: a, c; 8: b. Do this." in str(error)
