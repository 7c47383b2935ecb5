"""The pure step: records and state in, one commit unit out. No I/O, no clock, no randomness."""

from pf_stream.core.admission import NewerVersionError
from pf_stream.core.authorise import Authority
from pf_stream.core.decoding import StateUndecodableError
from pf_stream.core.header import (
    ChangelogFormatError,
    ChangelogOwnerError,
    NewerStateError,
    PartitionCountError,
    UnknownReactorError,
)
from pf_stream.core.lane import Lane
from pf_stream.core.limits import Limits
from pf_stream.core.outbox import BatchEntry, OutboxEntry, PointerEntry
from pf_stream.core.partition import murmur2, partition_of
from pf_stream.core.plan import GroupPlan, plan
from pf_stream.core.records import Record, SourceRecord
from pf_stream.core.refusal import CODES
from pf_stream.core.unit import CommitUnit, Copy, Narrowing, Output, Rewind

__all__ = [
    "CODES",
    "Authority",
    "BatchEntry",
    "ChangelogFormatError",
    "ChangelogOwnerError",
    "CommitUnit",
    "Copy",
    "GroupPlan",
    "Lane",
    "Limits",
    "Narrowing",
    "NewerStateError",
    "NewerVersionError",
    "OutboxEntry",
    "Output",
    "PartitionCountError",
    "PointerEntry",
    "Record",
    "Rewind",
    "SourceRecord",
    "StateUndecodableError",
    "UnknownReactorError",
    "murmur2",
    "partition_of",
    "plan",
]
