"""What a worker is told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pf_stream.kafka.link import ConnectionSettings
from pf_stream.security.keys import SigningKey, TrustRoots

__all__ = ["SESSION_S", "WorkerSettings"]

SESSION_S: Final = 10.0
"""How long a group waits for a worker by default."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Settings of one worker process."""

    connection: ConnectionSettings
    """The cluster."""
    trust_roots: TrustRoots
    """Whose tokens are believed. Trust begins here, never in a topic."""
    worker_id: str
    """Name of this worker, unique in its topology; it keeps its partitions over a restart (``group.instance.id``)."""
    service_keys: tuple[SigningKey, ...] = ()
    """Sign for the reactors that emit as services; their public halves are among the trust roots."""
    latency: Literal["low", "balanced"] = "balanced"
    """``low`` fetches what is there at once, at the price of a busy core; ``balanced`` lets the broker gather for 8 ms."""
    state_dir: Path | None = None
    """Folder for state that a topology keeps on disk; the worker has a folder of its own in it."""
    drain_s: float = 20.0
    """How long a stop waits for what is under way."""
    session_s: float = SESSION_S
    """How long the group waits for a worker that is not heard of, before others take its partitions over."""

    @property
    def heartbeat_s(self) -> float:
        """How often the worker tells the group that it is there, and learns that the group is to be divided anew."""
        return min(1.0, self.session_s / 5)

    @property
    def revoke_s(self) -> float:
        """How long a revocation waits for what is under way: in the other half, the group has to hear of us again."""
        return self.session_s / 2
