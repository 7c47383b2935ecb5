"""What a worker is told."""

from dataclasses import dataclass
from typing import Literal

from pf_stream.kafka.link import ConnectionSettings
from pf_stream.security.keys import TrustRoots

__all__ = ["WorkerSettings"]


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Settings of one worker process."""

    connection: ConnectionSettings
    """The cluster."""
    trust_roots: TrustRoots
    """Whose tokens are believed. Trust begins here, never in a topic."""
    worker_id: str
    """Name of this worker, unique in its topology; it keeps its partitions over a restart (``group.instance.id``)."""
    latency: Literal["low", "balanced"] = "balanced"
    """``low`` fetches what is there at once, at the price of a busy core; ``balanced`` lets the broker gather for 8 ms."""
    drain_s: float = 20.0
    """How long a stop waits for what is under way."""
