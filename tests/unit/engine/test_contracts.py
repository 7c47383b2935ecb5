"""What is relied upon inside Faust and aiokafka: there, and in the shape that it is called in.

Neither promises any of it. When one of these fails after an upgrade, read what the named thing does in the new version before
changing the test: the lane's exactness may hang on it (docs/architecture.md, "What we lean on").
"""

import importlib
import inspect
import tomllib
from functools import reduce
from importlib.metadata import version
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from mode.services import ServiceTask

from pf_stream.engine import app
from pf_stream.kafka.batch import BatchBuilder, record_count, stamp

VERSIONS = {"aiokafka": "0.14", "faust-streaming": "0.15", "mode-streaming": "0.7"}
"""What the rest of this file was read from."""

SIGNATURES = {
    "aiokafka.client:AIOKafkaClient.add_topic": "self topic",
    "aiokafka.client:AIOKafkaClient.bootstrap": "self",
    "aiokafka.client:AIOKafkaClient.close": "self",
    "aiokafka.client:AIOKafkaClient.coordinator_lookup": "self coordinator_type coordinator_key",
    "aiokafka.client:AIOKafkaClient.force_metadata_update": "self",
    "aiokafka.client:AIOKafkaClient.get_random_node": "self",
    "aiokafka.client:AIOKafkaClient.ready": "self node_id group",
    "aiokafka.client:AIOKafkaClient.send": "self node_id request group",
    "aiokafka.cluster:ClusterMetadata.leader_for_partition": "self partition",
    "aiokafka.cluster:ClusterMetadata.partitions_for_topic": "self topic",
    "aiokafka.consumer.group_coordinator:GroupCoordinator.request_rejoin": "self",
    "aiokafka.consumer.subscription_state:SubscriptionState.fetch_context": "self",
    "aiokafka.protocol.fetch:FetchRequest.__init__": "self max_wait_time min_bytes max_bytes isolation_level topics rack_id",
    "aiokafka.protocol.offset:OffsetRequest.__init__": "self replica_id isolation_level topics",
    "aiokafka.protocol.produce:ProduceRequest.__init__": "self transactional_id required_acks timeout topics",
    "aiokafka.protocol.transaction:AddOffsetsToTxnRequest.__init__": (
        "self transactional_id producer_id producer_epoch group_id"
    ),
    "aiokafka.protocol.transaction:AddPartitionsToTxnRequest.__init__": (
        "self transactional_id producer_id producer_epoch topics"
    ),
    "aiokafka.protocol.transaction:EndTxnRequest.__init__": (
        "self transactional_id producer_id producer_epoch transaction_result"
    ),
    "aiokafka.protocol.transaction:InitProducerIdRequest.__init__": "self transactional_id transaction_timeout_ms",
    "aiokafka.protocol.transaction:TxnOffsetCommitRequest.__init__": (
        "self transactional_id group_id producer_id producer_epoch topics"
    ),
    "faust:App.on_rebalance_end": "self",
    "faust.tables.manager:TableManager.on_actives_ready": "self",
    "faust.tables.manager:TableManager.on_standbys_ready": "self",
    "faust.tables.recovery:Recovery.__init__": "self app tables kwargs",
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread._ensure_consumer": "self",
    "faust.transport.drivers.aiokafka:Consumer.commit": "self topics start_new_transaction",
}
"""What is called, and the names of its parameters."""

ANSWERS = {
    "AddOffsetsToTxnResponse_v0": ["throttle_time_ms", "error_code"],
    "AddPartitionsToTxnResponse_v0": ["throttle_time_ms", "errors"],
    "EndTxnResponse_v0": ["throttle_time_ms", "error_code"],
    "InitProducerIdResponse_v0": ["throttle_time_ms", "error_code", "producer_id", "producer_epoch"],
    "TxnOffsetCommitResponse_v0": ["throttle_time_ms", "errors"],
}
"""What is read of the answers of coordinators."""

CODES = {
    3: "UnknownTopicOrPartitionError",
    15: "GroupCoordinatorNotAvailableError",
    16: "NotCoordinatorForGroupError",
    29: "TopicAuthorizationFailedError",
    45: "OutOfOrderSequenceNumber",
    46: "DuplicateSequenceNumber",
    47: "InvalidProducerEpoch",
    49: "InvalidProducerIdMapping",
    51: "ConcurrentTransactions",
    53: "TransactionalIdAuthorizationFailed",
    55: "OperationNotAttempted",
}
"""Errors that something is decided by, by the broker's code."""

SUBCLASSES = {
    app.LaneApp: set[str](),
    app.LaneConsumer: {"abandon", "commit_progress", "rejoin"},
    app.LaneRecovery: set[str](),
    app.LaneTables: set[str](),
    app.ReactorAgent: set[str](),
    app._PausingListener: set[str](),
    app._Thread: {"_commit_progress", "commit_progress"},
}
"""Our subclasses of Faust's classes, and the methods that are an addition to them."""


def found(path: str) -> Any:
    module, _, name = path.partition(":")
    return reduce(getattr, name.split("."), importlib.import_module(module))


def installed(package: str) -> str:
    return f"{package} {version(package)}"


@pytest.mark.parametrize("package", VERSIONS)
def test_the_version_is_the_one_that_was_read(package: str) -> None:
    assert version(package).split(".")[:2] == VERSIONS[package].split("."), (
        f"{installed(package)} is installed and {VERSIONS[package]} was read: go through what fails below, then through "
        f'docs/architecture.md, "What we lean on", before the pin and this version are changed'
    )


def test_the_pins_allow_no_other() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = [pin for pin in project["dependencies"] if pin.startswith(("aiokafka", "faust-streaming"))]
    assert pins == ["aiokafka[zstd]==0.14.*", "faust-streaming>=0.15.3,<0.16"]


@pytest.mark.parametrize("path", SIGNATURES)
def test_what_is_called_takes_what_it_is_given(path: str) -> None:
    package = "aiokafka" if path.startswith("aiokafka") else "faust-streaming"
    try:
        parameters = list(inspect.signature(found(path)).parameters)
    except AttributeError:
        pytest.fail(
            f"{path} is gone in {installed(package)}: see where the engine calls it, and what does its work now"
        )
    assert parameters == SIGNATURES[path].split(), f"{path} has other parameters in {installed(package)}"


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_have_the_fields_that_are_read(name: str) -> None:
    answer = found(f"aiokafka.protocol.transaction:{name}")
    assert list(answer.SCHEMA.names) == ANSWERS[name], f"{name} has other fields in {installed('aiokafka')}"


def test_requests_of_transactions_have_the_one_version_that_was_measured() -> None:
    """From AddPartitionsToTxn 4 and EndTxn 5 on, brokers raise the epoch at each end (KIP-890): then a lease, which keeps
    its epoch, would be refused."""
    from aiokafka.protocol import transaction

    module: dict[str, Any] = vars(transaction)
    versions = {name: value.API_VERSION for name, value in module.items() if "Request_v" in name}
    assert set(versions.values()) == {0}, f"{installed('aiokafka')} speaks newer versions: {versions}"
    assert len(versions) == 5


def test_produce_requests_are_older_than_those_that_begin_transactions() -> None:
    """From version 12 on, a batch adds its partition to the transaction by itself, and a late one could (KIP-890)."""
    from aiokafka.protocol.produce import ProduceRequestStruct

    newest = max(kind.API_VERSION for kind in ProduceRequestStruct.__args__)
    assert 7 <= newest < 12, f"{installed('aiokafka')} speaks produce {newest}: look at what brokers make of a zombie"


@pytest.mark.parametrize("code", CODES)
def test_codes_of_brokers_are_the_errors_that_are_caught(code: int) -> None:
    from aiokafka import errors

    assert errors.for_code(code).__name__ == CODES[code], f"code {code} is another error in {installed('aiokafka')}"


def test_the_error_of_a_fenced_producer_is_still_ours_to_map() -> None:
    """Code 90 is not known to aiokafka 0.14; if it is now, ``PRODUCER_FENCED`` in kafka/link.py has done its work."""
    from aiokafka import errors

    assert errors.for_code(90) is errors.UnknownError


@pytest.mark.parametrize("ours", SUBCLASSES, ids=lambda ours: ours.__name__)
def test_every_override_overrides_something(ours: type) -> None:
    """A method of Faust's that is called otherwise now would run again, beside the one that was to replace it."""
    theirs = ours.__mro__[1]
    kinds = (FunctionType, ServiceTask, property)
    names = {name for name, value in vars(ours).items() if isinstance(value, kinds)} - SUBCLASSES[ours]
    assert names
    for name in sorted(names):
        original = inspect.getattr_static(theirs, name, None)
        assert original is not None, f"{theirs.__name__}.{name} is gone in {installed('faust-streaming')}"
        own = vars(ours)[name]
        assert isinstance(own, ServiceTask) == isinstance(original, ServiceTask), f"{theirs.__name__}.{name}"
        if isinstance(own, FunctionType):
            assert list(inspect.signature(own).parameters) == list(inspect.signature(original).parameters), (
                f"{theirs.__name__}.{name} has other parameters in {installed('faust-streaming')}"
            )


def test_every_background_task_of_recovery_is_replaced() -> None:
    """Lanes recover themselves; a task of Faust's that is new would do something beside them."""
    from faust.tables.recovery import Recovery

    tasks = {name for name, value in vars(Recovery).items() if isinstance(value, ServiceTask)}
    assert tasks == {name for name, value in vars(app.LaneRecovery).items() if isinstance(value, ServiceTask)}


def test_a_stamp_changes_the_producer_and_nothing_else() -> None:
    """The offsets of the header's fields are known to kafka/batch.py; aiokafka's reader has them from elsewhere."""
    from aiokafka.record.memory_records import MemoryRecords

    builder = BatchBuilder(4096, compress=True)
    for at in range(3):
        builder.append(1_000 + at, b"key", b"value %d" % at, [("h", b"v")])
    plain = builder.build()
    for transactional in (True, False):
        stamped = stamp(stamp(plain, 1, 1, 1, transactional=not transactional), 77, 5, 12, transactional=transactional)
        assert record_count(stamped) == 3
        batch = MemoryRecords(stamped).next_batch()
        assert batch.validate_crc()
        assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (77, 5, 12)
        assert batch.is_transactional is transactional
        assert [(record.timestamp, record.value) for record in batch] == [
            (1_000 + at, b"value %d" % at) for at in range(3)
        ]
