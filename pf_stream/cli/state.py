"""``pf state``: state of reactors."""

import dataclasses
import shlex
import sys
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from typing import Annotated

import typer

from pf_stream.cli._errors import EXIT_UNHEALTHY, exit_on_error
from pf_stream.cli._options import (
    BootstrapOption,
    ExecuteOption,
    NamespaceOption,
    TopologyOption,
    connection,
    load,
    utc,
)
from pf_stream.cli._output import Output, OutputOption, note, show, show_rows
from pf_stream.cli._progress import track
from pf_stream.cli._states import ContextOption, OfflineOption, WorkerOption, asks_workers, opened

app = typer.Typer()

ReactorArgument = Annotated[str, typer.Argument(metavar="REACTOR", help="Id of the reactor.")]
PrefixOption = Annotated[str, typer.Option(metavar="TEXT", help="Only keys that begin so.")]

MOST_FAULTS = 10
"""How many states that cannot be decoded an export names."""


@app.command(
    epilog="Examples:\n\npf state get fleet N12345 -t topologies/flights/topology.yaml\n\n"
    "pf state get fleet N12345 -t flights:flights --context ops.ctx\n\n"
    "pf state get fleet N12345 -t flights:flights -o json | jq .state"
)
def get(
    reactor: ReactorArgument,
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its key; a JSON array where several fields form it.")],
    topology: TopologyOption,
    context: ContextOption = None,
    worker: WorkerOption = None,
    offline: OfflineOption = False,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Show the state of a reactor under a key as it was last committed.

    With a token (--context) a worker is asked. Without one, or with --offline, the changelog is read; never in place of a
    worker that cannot tell. Exit code 3 if there is no state, 4 if the token does not grant it, 5 if the worker cannot tell now.
    """
    with exit_on_error():
        from pf_stream.components.stored import read_state

        states = opened(load(topology, namespace), context, worker, offline, bootstrap_servers)(reactor)
        stored = read_state(states, key)
        found = dataclasses.asdict(stored)
        committed = {"committed": stored.timestamp_ms and utc(stored.timestamp_ms)}
        del found["timestamp_ms"]
        if not stored.entries:
            del found["entries"]
        if output is Output.table and isinstance(stored.state, dict):
            state = found.pop("state")
            found |= {f"state.{name}": value for name, value in state.items()}
        show(found | committed, output)


@app.command(
    name="list",
    epilog="Examples:\n\npf state list fleet -t topologies/flights/topology.yaml\n\n"
    "pf state list fleet -t flights:flights --context ops.ctx --prefix N1 --limit 1000\n\n"
    "pf state list fleet -t flights:flights --cursor 2:N9 -o json | jq -r .keys[].key",
)
def list_keys(
    reactor: ReactorArgument,
    topology: TopologyOption,
    prefix: PrefixOption = "",
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    cursor: Annotated[
        str, typer.Option(metavar="TEXT", help="Where to begin: what the page before named.", show_default="the start")
    ] = "0",
    context: ContextOption = None,
    worker: WorkerOption = None,
    offline: OfflineOption = False,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """List the keys under which a reactor has state: by partition, and sorted within each.

    With a token (--context) workers are asked. Without one, or with --offline, the changelog is read; never in place of a
    worker that cannot tell. Exit code 4 if the token does not grant StateCap.read:/REACTOR/**, 5 if a worker cannot tell now.
    """
    with exit_on_error():
        states = opened(load(topology, namespace), context, worker, offline, bootstrap_servers)(reactor)
        page = states.page(prefix, cursor, limit)
        keys = [{"key": key, "partition": partition} for key, partition in page.keys]
        if output is Output.table:
            show_rows(keys, output, ("key", "partition"))
        else:
            show({"keys": keys, "next": page.next}, output)
        if page.next is not None:
            note("there may be more: --cursor {}", shlex.quote(page.next))


@app.command(
    epilog="Examples:\n\npf state export fleet -t topologies/flights/topology.yaml > fleet.jsonl\n\n"
    "pf state export fleet -t flights:flights --context ops.ctx | jq -c 'select(.state.legs > 99)' | head"
)
def export(
    reactor: ReactorArgument,
    topology: TopologyOption,
    prefix: PrefixOption = "",
    context: ContextOption = None,
    worker: WorkerOption = None,
    offline: OfflineOption = False,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
) -> None:
    """Print every state of a reactor: a JSON object with reactor, key, version and state in each line.

    With a token (--context) workers are asked, who go on meanwhile: each state is as it was at its turn. Without one, or with
    --offline, the changelog is read; never in place of a worker that cannot tell. Exit code 4 if the token does not grant
    StateCap.read:/REACTOR/**, 5 if a worker cannot tell all, or if a state cannot be decoded, which is then left out.
    """
    with exit_on_error():
        from pf_stream.components.stored import export_line
        from pf_stream.core.decoding import StateUndecodableError

        states = opened(load(topology, namespace), context, worker, offline, bootstrap_servers)(reactor)
        faults = 0
        for stored in states.all(prefix):
            try:
                line = export_line(states.spec, stored)
            except StateUndecodableError as error:
                faults += 1
                if faults <= MOST_FAULTS:
                    note("[red]left out[/red]: {}", error)
                continue
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        if faults:
            note("{} states cannot be decoded and are left out; pf state check lists them all", faults)
            raise typer.Exit(EXIT_UNHEALTHY)


@app.command(
    epilog="Examples:\n\npf state check -t topologies/flights/topology.yaml\n\n"
    "pf state check fleet -t flights:flights -o json | jq -r .faults[].key\n\n"
    "pf state check -t flights:flights --context ops.ctx"
)
def check(
    topology: TopologyOption,
    reactor: Annotated[
        str | None, typer.Argument(metavar="[REACTOR]", help="Only the state of this reactor; all, if not given.")
    ] = None,
    context: ContextOption = None,
    worker: WorkerOption = None,
    offline: OfflineOption = False,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Decode all state with the state classes that the topology has here, and list what cannot be decoded.

    To be run before a new version is deployed; no worker need stop. With a token (--context) workers are asked for what they
    keep. Without one, or with --offline, the changelog is read. Exit code 5 if anything cannot be decoded.
    """
    with exit_on_error():
        from pf_stream.components.state import Checked, check_state, check_states

        loaded = load(topology, namespace)
        found: Iterable[Checked]
        if asks_workers(context, worker, offline):
            states = opened(loaded, context, worker, offline, bootstrap_servers)
            reactors = [spec.id for spec in loaded.specs] if reactor is None else [reactor]
            found = chain.from_iterable(check_states(states(one)) for one in reactors)
        else:
            found = check_state(connection(bootstrap_servers), loaded, reactor)
        keys, undeclared, faults = Counter[str](), Counter[str](), []
        for checked in track(found, "checking", None):
            keys += checked.keys
            undeclared += checked.undeclared
            faults += [dataclasses.asdict(fault) for fault in checked.faults]
        if output is Output.table:
            where = [{**fault, "at": _place(**fault)} for fault in faults]
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


def _place(topic: str, partition: int, offset: int | None, **_: object) -> str:
    return f"{topic}-{partition}" if offset is None else f"{topic}-{partition}:{offset}"


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
    execute: ExecuteOption = False,
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
        show_rows(rows, output, ("topic", "partition", "states", "entries", "timers", "positions"))
        counts = (sum(row[name] for row in rows) for name in ("states", "entries", "timers", "positions"))
        note(
            "{} {} states, {} entries of them, {} timers and {} positions",
            "deleted" if execute else "would delete",
            *counts,
        )
        if not execute:
            note("nothing is written without --execute")
