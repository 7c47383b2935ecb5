"""Parts: what a pipeline, a job or a library of reactors brings into a topology."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pf_stream.model.intent import Intent
from pf_stream.model.service import Service
from pf_stream.model.sink import Sink
from pf_stream.model.table import GlobalTable

if TYPE_CHECKING:
    from pf_stream.model.reactor import Reactor

__all__ = ["Part"]


@dataclass(frozen=True, slots=True)
class Part:
    """Reactors that belong together, with what a topology must say for them.

    A topology that has the part has all of it as if it were written there::

        Topology("flights", [Fleet], parts=[hourly_delays])
    """

    name: str
    """What it is called in messages."""
    reactors: "tuple[type[Reactor[Any]], ...]"
    """Its reactors."""
    internal: frozenset[str] = frozenset()
    """Topics, relative to the namespace, that only it writes."""
    emits: tuple[type[Intent], ...] = ()
    """Intent types that it emits and does not handle itself."""
    services: Mapping[str, Service] = field(default_factory=dict)
    """By id, those of its reactors that emit under an identity of their own."""
    starts: tuple[Intent, ...] = ()
    """What its reactors are told whenever a lane begins, see :attr:`pf_stream.model.Topology.starts`."""
    sinks: tuple[Sink, ...] = ()
    """Consumers of what it writes to internal topics."""
    tables: tuple[GlobalTable, ...] = ()
    """Tables that its reactors read."""
