"""``pf state``: state of reactors."""

import dataclasses
from typing import Annotated

import typer

from pf_stream.cli._errors import exit_on_error
from pf_stream.cli._options import BootstrapOption, NamespaceOption, TopologyOption, connection, load, utc
from pf_stream.cli._output import Output, OutputOption, show

app = typer.Typer()


@app.callback()
def _group() -> None:
    """Keep ``get`` a command of its own, since typer would merge a single one into the noun."""


@app.command(
    epilog="Examples:\n\npf state get fleet N12345 -t topologies/flights/topology.yaml\n\n"
    "pf state get fleet N12345 -t flights:flights -o json | jq .state"
)
def get(
    reactor: Annotated[str, typer.Argument(metavar="REACTOR", help="Id of the reactor.")],
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its key; a JSON array where several fields form it.")],
    topology: TopologyOption,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Show the state of a reactor under a key as it was last committed; no worker need run.

    Exit code 3 if there is none.
    """
    with exit_on_error():
        from pf_stream.components.state import read_state

        loaded = load(topology, namespace)
        stored = read_state(connection(bootstrap_servers), loaded, reactor, key)
        found = dataclasses.asdict(stored)
        committed = {"committed": utc(found.pop("timestamp_ms"))}
        if output is Output.table and isinstance(stored.state, dict):
            state = found.pop("state")
            found |= {f"state.{name}": value for name, value in state.items()}
        show(found | committed, output)
