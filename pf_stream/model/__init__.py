"""The words: capability, context, intent, reactor, effect, state, topology. Pure data."""

from pf_stream.model.capabilities import Capabilities
from pf_stream.model.capability import PUBLIC, Capability, Grant, Operation, define, family, grant, operation
from pf_stream.model.context import Context
from pf_stream.model.effect import Cancel, Effect, Effects, Emit, Reply, Schedule
from pf_stream.model.failure import OnError, RetryInPlace, RetryLater
from pf_stream.model.intent import Intent, IntentSpec, Key
from pf_stream.model.reactor import Reactor, ReactorSpec, on
from pf_stream.model.scope import Scope
from pf_stream.model.state import State, StateSpec
from pf_stream.model.topology import Group, Topology
from pf_stream.model.versions import upcast, upgrade

__all__ = [
    "PUBLIC",
    "Cancel",
    "Capabilities",
    "Capability",
    "Context",
    "Effect",
    "Effects",
    "Emit",
    "Grant",
    "Group",
    "Intent",
    "IntentSpec",
    "Key",
    "OnError",
    "Operation",
    "Reactor",
    "ReactorSpec",
    "Reply",
    "RetryInPlace",
    "RetryLater",
    "Schedule",
    "Scope",
    "State",
    "StateSpec",
    "Topology",
    "define",
    "family",
    "grant",
    "on",
    "operation",
    "upcast",
    "upgrade",
]
