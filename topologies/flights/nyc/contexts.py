"""Who may report flights: each airline its own, by a context that the demonstration's issuer signs."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass

from flights import FlightCap
from pf_stream.clock import WallClock
from pf_stream.security import SigningKey, mint

__all__ = ["Issuer"]

HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class Issuer:
    """Signs the airlines' contexts."""

    key: SigningKey
    """Its signing key; workers are given the public half."""
    namespace: str
    """For whom the contexts are."""

    @classmethod
    def new(cls, namespace: str) -> "Issuer":
        """An issuer with a fresh key."""
        return cls(SigningKey.generate(), namespace)

    def context(self, carrier: str, *, lifetime_s: int = 12 * HOUR_S, minted_s_ago: int = 0) -> str:
        """A token with which *carrier* may report its own flights, from every airport."""
        return mint(
            self.key,
            subject=f"airline:{carrier}",
            audience=self.namespace,
            capabilities=[FlightCap.report(f"/{carrier}/**")],
            now_ms=WallClock().now_ms() - minted_s_ago * 1000,
            lifetime_s=lifetime_s,
        )

    def contexts(self, carriers: Iterable[str]) -> dict[str, str]:
        """One context for each carrier."""
        return {carrier: self.context(carrier) for carrier in carriers}

    def expired(self, carrier: str) -> str:
        """A context of *carrier* that ended an hour ago."""
        return self.context(carrier, lifetime_s=HOUR_S, minted_s_ago=2 * HOUR_S)


def tampered(token: str, carrier: str, other: str) -> str:
    """The context of *carrier* as somebody would edit it who wants it to speak for *other*; signatures stay as they were."""
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    edited = raw.replace(f"/{carrier}/".encode(), f"/{other}/".encode())
    assert edited != raw
    assert len(edited) == len(raw)
    return base64.urlsafe_b64encode(edited).rstrip(b"=").decode()
