"""``pf state``: state of reactors."""

import dataclasses
from collections import Counter
from typing import Annotated

import typer

from pf_stream.cli._errors import EXIT_UNHEALTHY, exit_on_error
from pf_stream.cli._options import BootstrapOption, NamespaceOption, TopologyOption, connection, load, utc
from pf_stream.cli._output import Output, OutputOption, note, show, show_rows
from pf_stream.cli._progress import track

app = typer.Typer()


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


@app.command(
    epilog="Examples:\n\npf state check -t topologies/flights/topology.yaml\n\n"
    "pf state check fleet -t flights:flights -o json | jq -r .faults[].key"
)
def check(
    topology: TopologyOption,
    reactor: Annotated[
        str | None, typer.Argument(metavar="[REACTOR]", help="Only the state of this reactor; all, if not given.")
    ] = None,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Decode all state with the state classes that the topology has now, and list what cannot be decoded.

    To be run before a new version is deployed; no worker need run, nor stop. Exit code 5 if anything cannot be decoded.
    """
    with exit_on_error():
        from pf_stream.components.state import check_state

        loaded = load(topology, namespace)
        keys, undeclared, faults = Counter[str](), Counter[str](), []
        lanes = check_state(connection(bootstrap_servers), loaded, reactor)
        for lane in track(lanes, "checking", None):
            keys += lane.keys
            undeclared += lane.undeclared
            faults += [dataclasses.asdict(fault) for fault in lane.faults]
        if output is Output.table:
            where = [{**fault, "at": f"{fault['topic']}-{fault['partition']}:{fault['offset']}"} for fault in faults]
            show_rows(where, output, ("reactor", "key", "at", "reason"))
        else:
            show({"keys": dict(keys), "undeclared": dict(undeclared), "faults": faults}, output)
        note("{} of {} states cannot be decoded", len(faults), keys.total())
        for name, count in sorted(undeclared.items()):
            note(
                "{} states are of {}, which the topology does not declare; to drop: pf state drop {}", count, name, name
            )
        if faults:
            raise typer.Exit(EXIT_UNHEALTHY)


@app.command(
    epilog="Examples:\n\npf state drop board -t topologies/flights/topology.yaml\n\n"
    "pf state drop board -t flights:flights --execute"
)
def drop(
    reactor: Annotated[str, typer.Argument(metavar="REACTOR", help="Id of a reactor that the topology no longer has.")],
    topology: TopologyOption,
    force: Annotated[
        bool, typer.Option("--force", help="Also if the topology has it: it begins anew, from the start of its topics.")
    ] = False,
    execute: Annotated[bool, typer.Option("--execute", help="Do it; without it nothing is written.")] = False,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Delete all state of a reactor, with its timers and positions. Stop the workers first.

    Of a reactor that the topology has, state and positions go together or not at all, in each partition: with its state lost
    and its position kept it would count wrongly from then on.
    """
    with exit_on_error():
        from pf_stream.clock import WallClock
        from pf_stream.components.state import Drop

        wanted = Drop(connection(bootstrap_servers), load(topology, namespace), reactor, forced=force)
        lanes = wanted.execute(WallClock()) if execute else wanted.preview()
        rows = [dataclasses.asdict(lane) for lane in track(lanes, "dropping" if execute else "looking", wanted.size)]
        show_rows(rows, output, ("topic", "partition", "states", "timers", "positions"))
        counts = (sum(row[name] for row in rows) for name in ("states", "timers", "positions"))
        note("{} {} states, {} timers and {} positions", "deleted" if execute else "would delete", *counts)
        if not execute:
            note("nothing is written without --execute")
