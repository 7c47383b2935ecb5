"""Intents that must be refused: seven ways to get a flight in that one may not report."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import pandas as pd

from nyc.contexts import Issuer, tampered
from nyc.data import Report, flights
from nyc.producer import Intent, envelope

__all__ = ["KINDS", "Refusals"]

KINDS: Final[dict[str, str]] = {
    "insufficient_capabilities": "an airline reports another's flight",
    "token_expired": "the context ended an hour ago",
    "bad_signature": "an airline edits its context to name another",
    "missing_context": "no context at all",
    "unknown_key": "a context signed by somebody else",
    "malformed_payload": "half of the JSON is missing",
    "key_mismatch": "the record's key is another aircraft's",
}
"""What is tried, by the code with which it must be refused."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """The intents, and what must become of each."""

    intents: list[Intent]
    codes: dict[str, str]
    """Code of the refusal by the intent's id."""

    @classmethod
    def among(cls, frame: pd.DataFrame, issuer: Issuer, count: int = 1000) -> "Refusals":
        """*count* intents, spread over *frame* and in turn over all kinds; each is a real flight, reported wrongly."""
        step = len(frame) / count
        rows = [int(index * step) for index in range(count)]
        make = _maker(issuer, sorted(frame["carrier"].unique()))
        chosen: list[Intent] = []
        codes: dict[str, str] = {}
        kinds = list(KINDS)
        for index, flight in enumerate(flights(frame.iloc[rows])):
            code = kinds[index % len(kinds)]
            id_ = f"refused-{index}"
            chosen.append(make(code, id_, flight))
            codes[id_] = code
        return cls(chosen, codes)

    def mixed_into(self, intents: Iterable[Intent], count: int) -> Iterator[Intent]:
        """Both, the refusals spread over *count* intents."""
        step = count / len(self.intents)
        places = {int(index * step): intent for index, intent in enumerate(self.intents)}
        for number, intent in enumerate(intents):
            if number in places:
                yield places[number]
            yield intent


def _maker(issuer: Issuer, carriers: list[str]) -> Callable[[str, str, Report], Intent]:
    good = {carrier: issuer.context(carrier).encode() for carrier in carriers}
    expired = {carrier: issuer.expired(carrier).encode() for carrier in carriers}
    stranger = Issuer.new(issuer.namespace)
    strange = {carrier: stranger.context(carrier).encode() for carrier in carriers}
    # Each airline tries the next one's flights.
    rival = dict(zip(carriers, [*carriers[1:], carriers[0]], strict=True))
    edited = {
        carrier: tampered(good[rival[carrier]].decode(), rival[carrier], carrier).encode() for carrier in carriers
    }

    def make(code: str, id_: str, flight: Report) -> Intent:
        key, value, context = flight.key, flight.payload, good[flight.carrier]
        match code:
            case "insufficient_capabilities":
                return key, value, envelope(id_, flight, good[rival[flight.carrier]])
            case "token_expired":
                return key, value, envelope(id_, flight, expired[flight.carrier])
            case "bad_signature":
                return key, value, envelope(id_, flight, edited[flight.carrier])
            case "missing_context":
                return key, value, envelope(id_, flight, None)
            case "unknown_key":
                return key, value, envelope(id_, flight, strange[flight.carrier])
            case "malformed_payload":
                return key, value[: len(value) // 2], envelope(id_, flight, context)
            case _:
                return "N00000", value, envelope(id_, flight, context)

    return make
