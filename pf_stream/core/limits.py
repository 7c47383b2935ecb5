"""Bounds of what a record may be and of what a unit may grow to."""

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a lane. Sizes are bytes."""

    payload_bytes: int = 1 << 20
    """Largest value of an intent that is decoded."""
    headers: int = 64
    """Most headers of an intent."""
    hops: int = 16
    """How often an intent may be emitted onward."""
    unit_records: int = 2_000
    """Most source records of a unit."""
    unit_bytes: int = 4 << 20
    """Size at which a unit stops growing: outputs as they are, states as they were before."""
    unit_bytes_hard: int = 6 << 20
    """Size that a unit may not exceed, states as they became; before compression."""
    timer_ms: int = 366 * 86_400_000
    """How long after the judgement of its context an intent may wait as a timer, in milliseconds."""
    idle_ms: int = 10_000
    """How long an upstream is silent before the event clock waits for it no more, in milliseconds."""
    poison_attempts: int = 5
    """How often an intent that ends its worker is tried again, once it is known which one it is."""
    output_bytes: int = 900_000
    """Largest value of an emitted intent or a reply: fits into a topic with Kafka's default ``max.message.bytes``."""
    inline_bytes: int = 64 << 10
    """A record above this is forwarded by copying it from its source, instead of passing through the changelog."""
