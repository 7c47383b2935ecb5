"""What the topology must come to, told by the commands alone.

Nothing of the engine is used: an account is what its commands make of it in the order in which they were sent, since a
record's key decides its partition and the producer keeps the order.
"""

import random
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

__all__ = ["Command", "Expected", "Tracker"]

ACCOUNTS = 120
LEDGERS = 40
ROOMY = 4
SOON_S = (0.0, 0.2, 1.0, 5.0)
"""A timer of a few seconds rings before the end."""
FAR_S = 86_400.0
"""One of a day does not; it can be stopped."""
LARGE_OUTPUT = 880_000
"""Just below the largest value that may be emitted, 900,000 bytes."""
LARGE_TEXT = 1_000_000
"""Just below the largest payload, 1 MiB."""


@dataclass(frozen=True, slots=True)
class Command:
    """One intent to be sent."""

    kind: str
    """Last word of the intent type's name."""
    payload: dict[str, Any]
    """Its fields; ``account`` is the key, ``number`` its place among all commands."""
    wants_reply: bool = False
    """Whether it asks for one."""

    @property
    def account(self) -> str:
        """Whose command it is."""
        return str(self.payload["account"])

    @property
    def number(self) -> int:
        """Which it is, from 0 on."""
        return int(self.payload["number"])


@dataclass(slots=True)
class Expected:
    """What must be there at the end."""

    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """State of each account."""
    ledgers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """State of each ledger."""
    replies: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Replies, by the number of their command."""
    transfers: set[int] = field(default_factory=set)
    """Numbers of the commands that cause an intent on the internal topic."""
    refused: set[int] = field(default_factory=set)
    """Numbers of the commands that become dead letters."""
    timers: dict[str, str] = field(default_factory=dict)
    """Timers that are far away and not stopped: account by name."""


class Tracker:
    """Draws commands and keeps account of what each must come to."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self.expected = Expected()
        self._next = 0
        self._text = "".join(dice.choices(string.ascii_letters + string.digits, k=2 * LARGE_TEXT))
        kinds: dict[Callable[[], Command], float] = {
            self._increment: 45,
            self._transfer: 35,
            self._ask: 15,
            self._poison: 4,
            self._wind: 8,
            self._wind_far: 2,
            self._stop: 2,
            self._large_transfer: 0.15,
            self._remember: 0.15,
        }
        self._kinds, self._weights = list(kinds), list(kinds.values())

    @property
    def count(self) -> int:
        """Commands drawn so far."""
        return self._next

    def draw(self) -> Command:
        """The next command; it counts as sent."""
        (kind,) = self._dice.choices(self._kinds, self._weights)
        return kind()

    def ask(self, account: str) -> Command:
        """A command that asks for the state of *account*."""
        number = self._number(account)
        state = self.expected.accounts[account]
        self.expected.replies[number] = {
            "account": account,
            "number": number,
            "balance": state["balance"],
            "chain": state["chain"],
        }
        return Command("ask", {"account": account, "number": number}, wants_reply=True)

    def _number(self, account: str, *, refused: bool = False) -> int:
        number = self._next
        self._next += 1
        if refused:
            self.expected.refused.add(number)
        else:
            state = self.expected.accounts.setdefault(account, {"balance": 0, "chain": 0, "text": "", "rings": 0})
            state["chain"] = crc32(str(number).encode(), state["chain"])
        return number

    def _account(self) -> str:
        return f"account-{self._dice.randrange(ACCOUNTS)}"

    def _ask(self) -> Command:
        return self.ask(self._account())

    def _increment(self) -> Command:
        account, by = self._account(), self._dice.randrange(1, 100)
        number = self._number(account)
        self.expected.accounts[account]["balance"] += by
        return Command("increment", {"account": account, "number": number, "by": by})

    def _transfer(self, padding: str = "") -> Command:
        account, by, to = self._account(), self._dice.randrange(1, 100), f"ledger-{self._dice.randrange(LEDGERS)}"
        number = self._number(account)
        self.expected.accounts[account]["balance"] -= by
        ledger = self.expected.ledgers.setdefault(to, {"received": 0, "count": 0, "marks": 0})
        ledger["received"] += by
        ledger["count"] += 1
        ledger["marks"] += crc32(str(number).encode())
        self.expected.transfers.add(number)
        payload = {"account": account, "number": number, "by": by, "to": to}
        return Command("transfer", payload | ({"padding": padding} if padding else {}))

    def _large_transfer(self) -> Command:
        return self._transfer(self._words(LARGE_OUTPUT))

    def _remember(self) -> Command:
        account, text = f"roomy-{self._dice.randrange(ROOMY)}", self._words(LARGE_TEXT)
        number = self._number(account)
        self.expected.accounts[account]["text"] = text
        return Command("remember", {"account": account, "number": number, "text": text})

    def _wind(self) -> Command:
        account = self._account()
        number = self._number(account)
        self.expected.accounts[account]["rings"] += crc32(str(number).encode())
        return Command("wind", {"account": account, "number": number, "after_s": self._dice.choice(SOON_S)})

    def _wind_far(self) -> Command:
        account = self._account()
        number = self._number(account)
        name = f"far-{number}"
        self.expected.timers[name] = account
        return Command("wind", {"account": account, "number": number, "after_s": FAR_S, "name": name})

    def _stop(self) -> Command:
        if not self.expected.timers:
            return self._wind_far()
        name = self._dice.choice(list(self.expected.timers))
        account = self.expected.timers.pop(name)
        return Command("stop", {"account": account, "number": self._number(account), "name": name})

    def _poison(self) -> Command:
        account = self._account()
        return Command("poison", {"account": account, "number": self._number(account, refused=True)})

    def _words(self, length: int) -> str:
        at = self._dice.randrange(len(self._text) - length)
        return self._text[at : at + length]
