"""What is measured: each record adds to its account, and says so in another one.

``pf worker run bench.growth.topology:topology`` runs it.
"""

from typing import Annotated, Final

from pf_stream import Capability, Context, Emit, Intent, Key, Reactor, State, Topology, on, operation

__all__ = ["Accounts", "Balance", "GrowthCap", "Posted", "topology"]


class GrowthCap(Capability):
    """Who may post: ``/{tenant}``."""

    post = operation()


class Posted(Intent, name="growth.posted", requires=GrowthCap.post("/{tenant}")):
    """Something is added to an account."""

    account: Annotated[str, Key]
    tenant: str
    amount: int
    seq: int
    memo: str


class Balanced(Intent, name="growth.balanced", topic="balanced", requires=GrowthCap.post("/{tenant}")):
    """What the account says then."""

    account: Annotated[str, Key]
    tenant: str
    count: int
    total: int
    seq: int


class Balance(State):
    """An account."""

    count: int = 0
    total: int = 0


class Accounts(Reactor[Balance], id="accounts"):
    """Keeps accounts."""

    @on
    def posted(self, intent: Posted, state: Balance, ctx: Context) -> Emit:
        state.count += 1
        state.total += intent.amount
        return Emit(
            Balanced(account=intent.account, tenant=intent.tenant, count=state.count, total=state.total, seq=intent.seq)
        )


topology: Final = Topology("growth", reactors=[Accounts], emits=[Balanced], namespace="bench")
