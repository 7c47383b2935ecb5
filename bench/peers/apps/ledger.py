"""The jobs as a pf_stream topology: each record adds to its account, and perhaps says so.

``pf worker run bench.peers.apps.ledger:topology`` runs what ``BENCH_*`` describes.
"""

import os
from typing import Annotated, Final

from pf_stream import (
    PUBLIC,
    Capability,
    Context,
    Emit,
    Intent,
    Key,
    Reactor,
    State,
    Topology,
    on,
    operation,
)
from pf_stream.model.topology import Guarantee

__all__ = ["NAMESPACE", "LedgersCap", "ledger", "topology"]

NAMESPACE: Final = "bench"


class LedgersCap(Capability):
    """Who may post where: ``/{tenant}/{branch}``."""

    post = operation()


class Balance(State):
    """One account."""

    count: int = 0
    total: int = 0


def ledger(name: str, source: str, output: str | None, guarantee: Guarantee, *, checked: bool) -> Topology:
    """The topology of one run. Topics are full names; *checked* is whether posting needs a capability."""
    requires = LedgersCap.post("/{tenant}/{branch}") if checked else PUBLIC

    class Posted(Intent, name="bench.posted", topic=source, requires=requires):
        account: Annotated[str, Key]
        tenant: str
        branch: str
        amount: int
        currency: str
        seq: int
        memo: str

    class Balanced(Intent, name="bench.balanced", topic=output or "balanced", requires=requires):
        account: Annotated[str, Key]
        tenant: str
        branch: str
        count: int
        total: int
        seq: int

    class Accounts(Reactor[Balance], id="accounts"):
        @on
        def posted(self, intent: Posted, state: Balance, ctx: Context) -> None:
            state.count += 1
            state.total += intent.amount

    class LoudAccounts(Reactor[Balance], id="accounts"):
        @on
        def posted(self, intent: Posted, state: Balance, ctx: Context) -> Emit:
            state.count += 1
            state.total += intent.amount
            return Emit(
                Balanced(
                    account=intent.account,
                    tenant=intent.tenant,
                    branch=intent.branch,
                    count=state.count,
                    total=state.total,
                    seq=intent.seq,
                )
            )

    return Topology(
        name,
        reactors=[Accounts if output is None else LoudAccounts],
        emits=[] if output is None else [Balanced],
        namespace=NAMESPACE,
        guarantee=guarantee,
    )


topology: Final = ledger(
    os.environ.get("BENCH_APP", "bench.ledger").removeprefix(f"{NAMESPACE}."),
    os.environ.get("BENCH_SOURCE", "bench.posted"),
    os.environ.get("BENCH_OUTPUT") or None,
    "transactional" if os.environ.get("BENCH_GUARANTEE") == "transactional" else "effectively_once",
    checked="BENCH_UNCHECKED" not in os.environ,
)
