"""What the campaign's workers run: accounts that take commands, and ledgers that hear of them through an internal topic.

Commands count once: a producer whose brokers are killed under it may write one twice, which is none of the engine's doing.
That hides nothing of what the engine might do twice, since a mark knows the record that made it.
"""

from typing import Annotated
from zlib import crc32

from pf_stream import (
    Cancel,
    Capability,
    Context,
    Effects,
    Emit,
    Intent,
    Key,
    Reactor,
    Reply,
    Schedule,
    State,
    Topology,
    on,
    operation,
)

__all__ = ["TOPOLOGY", "Account", "CampaignCap", "Ledger", "campaign"]

TOPOLOGY = f"{__name__}:campaign"


class CampaignCap(Capability):
    """Who may command which account: ``/{account}``."""

    act = operation()


class Increment(Intent, name="campaign.increment", requires=CampaignCap.act("/{account}"), once="1h"):
    """Add to the balance."""

    account: Annotated[str, Key]
    number: int
    by: int


class Transfer(Intent, name="campaign.transfer", requires=CampaignCap.act("/{account}"), once="1h"):
    """Move from the balance to a ledger, which lives on another partition; the padding goes with it."""

    account: Annotated[str, Key]
    number: int
    by: int
    to: str
    padding: str = ""


class Remember(Intent, name="campaign.remember", requires=CampaignCap.act("/{account}"), once="1h"):
    """Keep a text in the state."""

    account: Annotated[str, Key]
    number: int
    text: str


class Ask(Intent, name="campaign.ask", requires=CampaignCap.act("/{account}"), once="1h"):
    """Tell what there is."""

    account: Annotated[str, Key]
    number: int


class Poison(Intent, name="campaign.poison", requires=CampaignCap.act("/{account}")):
    """Fail, having changed the state."""

    account: Annotated[str, Key]
    number: int


class Wind(Intent, name="campaign.wind", requires=CampaignCap.act("/{account}"), once="1h"):
    """Set a timer that rings; under a name it may be stopped."""

    account: Annotated[str, Key]
    number: int
    after_s: float
    name: str = ""


class Stop(Intent, name="campaign.stop", requires=CampaignCap.act("/{account}"), once="1h"):
    """Stop the timer of that name before it rings."""

    account: Annotated[str, Key]
    number: int
    name: str


class Ring(Intent, name="campaign.ring", requires=CampaignCap.act("/{account}")):
    """A timer rings."""

    account: Annotated[str, Key]
    number: int


class Received(Intent, name="campaign.received", topic="transfers", requires=CampaignCap.act("/{ledger}")):
    """A transfer arrives."""

    ledger: Annotated[str, Key]
    number: int
    by: int
    padding: str = ""


class Account(State):
    """What the commands of one account came to."""

    balance: int = 0
    chain: int = 0
    """Checksum over the numbers of all commands in the order in which they were handled."""
    text: str = ""
    rings: int = 0
    """Sum of the checksums of the numbers of all timers that rang, in whatever order."""


class Ledger(State):
    """What was transferred to one ledger, from whichever accounts and in whatever order."""

    received: int = 0
    count: int = 0
    marks: int = 0
    """Sum of the checksums of all numbers."""


class Accounts(Reactor[Account], id="accounts"):
    """Take commands."""

    @on
    def increment(self, intent: Increment, state: Account, ctx: Context) -> None:
        state.balance += intent.by
        state.chain = link(state.chain, intent.number)

    @on
    def transfer(self, intent: Transfer, state: Account, ctx: Context) -> Effects:
        state.balance -= intent.by
        state.chain = link(state.chain, intent.number)
        return Emit(Received(ledger=intent.to, number=intent.number, by=intent.by, padding=intent.padding))

    @on
    def remember(self, intent: Remember, state: Account, ctx: Context) -> None:
        state.text = intent.text
        state.chain = link(state.chain, intent.number)

    @on
    def ask(self, intent: Ask, state: Account, ctx: Context) -> Effects:
        state.chain = link(state.chain, intent.number)
        return Reply(
            {"account": intent.account, "number": intent.number, "balance": state.balance, "chain": state.chain}
        )

    @on
    def wind(self, intent: Wind, state: Account, ctx: Context) -> Effects:
        state.chain = link(state.chain, intent.number)
        ring = Ring(account=intent.account, number=intent.number)
        return Schedule(ring, after=intent.after_s, name=intent.name or None)

    @on
    def stop(self, intent: Stop, state: Account, ctx: Context) -> Effects:
        state.chain = link(state.chain, intent.number)
        return Cancel(intent.name)

    @on
    def ring(self, intent: Ring, state: Account, ctx: Context) -> None:
        state.rings += crc32(b"%d" % intent.number)

    @on
    def poison(self, intent: Poison, state: Account, ctx: Context) -> None:
        state.balance += 1_000_000
        state.chain = 0
        raise ValueError(f"command {intent.number} is poison")


class Ledgers(Reactor[Ledger], id="ledgers"):
    """Hear of transfers."""

    @on
    def received(self, intent: Received, state: Ledger, ctx: Context) -> None:
        state.received += intent.by
        state.count += 1
        state.marks += crc32(b"%d" % intent.number)


def link(chain: int, number: int) -> int:
    """The checksum after one more command."""
    return crc32(b"%d" % number, chain)


campaign = Topology("campaign", [Accounts, Ledgers], internal=["transfers"], replies=["replies"], partitions=12)
