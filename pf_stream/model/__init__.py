"""The words: capability, context, intent, reactor, effect, state, topology. Pure data."""

from pf_stream.model.callers import Caller, compose, composition, propagation
from pf_stream.model.capabilities import Capabilities
from pf_stream.model.capability import PUBLIC, Capability, Grant, Operation, define, family, grant, operation
from pf_stream.model.context import Context
from pf_stream.model.effect import Cancel, Effect, Effects, Emit, Forget, Reply, Schedule, Tally
from pf_stream.model.failure import OnError, RetryInPlace, RetryLater
from pf_stream.model.intent import EventTime, Intent, IntentSpec, Key
from pf_stream.model.map_state import Entries, MapSpec, MapState
from pf_stream.model.part import Part
from pf_stream.model.reactor import Reactor, ReactorSpec, on
from pf_stream.model.requirement import Requirement, all_of, any_of, caller, computed, during
from pf_stream.model.rules import Rule, rule
from pf_stream.model.scope import Scope
from pf_stream.model.service import Service
from pf_stream.model.sink import Buffer, Delivered, Sink, Strategy
from pf_stream.model.state import State, StateCap, Stateless, StateSpec
from pf_stream.model.table import GlobalTable
from pf_stream.model.topology import Group, Topology
from pf_stream.model.versions import upcast, upgrade
from pf_stream.model.when import Calendar, When

__all__ = [
    "PUBLIC",
    "Buffer",
    "Calendar",
    "Caller",
    "Cancel",
    "Capabilities",
    "Capability",
    "Context",
    "Delivered",
    "Effect",
    "Effects",
    "Emit",
    "Entries",
    "EventTime",
    "Forget",
    "GlobalTable",
    "Grant",
    "Group",
    "Intent",
    "IntentSpec",
    "Key",
    "MapSpec",
    "MapState",
    "OnError",
    "Operation",
    "Part",
    "Reactor",
    "ReactorSpec",
    "Reply",
    "Requirement",
    "RetryInPlace",
    "RetryLater",
    "Rule",
    "Schedule",
    "Scope",
    "Service",
    "Sink",
    "State",
    "StateCap",
    "StateSpec",
    "Stateless",
    "Strategy",
    "Tally",
    "Topology",
    "When",
    "all_of",
    "any_of",
    "caller",
    "compose",
    "composition",
    "computed",
    "define",
    "during",
    "family",
    "grant",
    "on",
    "operation",
    "propagation",
    "rule",
    "upcast",
    "upgrade",
]
