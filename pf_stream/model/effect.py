"""Effects: what a handler wants to happen, returned as data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import BaseModel

from pf_stream.model.intent import Intent

__all__ = ["Effect", "Effects", "Emit", "Reply"]


@dataclass(slots=True)
class Emit:
    """Send a further intent, under the caller's context narrowed to what that intent requires."""

    intent: Intent
    """What to send; its type must be handled or listed in ``emits`` by the topology."""


@dataclass(slots=True)
class Reply:
    """Answer whoever sent the intent; nothing is sent if they did not ask (no ``pf-reply-to``)."""

    data: Mapping[str, Any] | BaseModel
    """Anything that has a JSON form."""


Effect: TypeAlias = Emit | Reply
Effects: TypeAlias = Effect | Sequence[Effect] | None
"""What a handler returns."""
