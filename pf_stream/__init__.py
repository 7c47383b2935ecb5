"""pf_stream: stream processing of authorised intents over Kafka.

What a reactor's author types is here; everything else is imported from its package.
"""

from pf_stream.errors import DefinitionError, PFError
from pf_stream.model import (
    PUBLIC,
    Cancel,
    Capability,
    Context,
    Effects,
    Emit,
    Intent,
    Key,
    Reactor,
    Reply,
    RetryInPlace,
    RetryLater,
    Schedule,
    State,
    Topology,
    on,
    operation,
    upcast,
    upgrade,
)

__all__ = [
    "PUBLIC",
    "Cancel",
    "Capability",
    "Context",
    "DefinitionError",
    "Effects",
    "Emit",
    "Intent",
    "Key",
    "PFError",
    "Reactor",
    "Reply",
    "RetryInPlace",
    "RetryLater",
    "Schedule",
    "State",
    "Topology",
    "on",
    "operation",
    "upcast",
    "upgrade",
]
