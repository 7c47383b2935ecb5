"""``pf offsets``: how far reactors and sinks have read."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from pf_stream.cli._errors import EXIT_UNHEALTHY, exit_on_error
from pf_stream.cli._options import BootstrapOption, ExecuteOption, NamespaceOption, TopologyOption, connection, load
from pf_stream.cli._output import Output, OutputOption, note, show_rows
from pf_stream.cli._progress import track

if TYPE_CHECKING:
    from pf_stream.components.positions import Change, Position
    from pf_stream.components.sink_positions import SinkChange, SinkPosition

app = typer.Typer()


@app.command(
    epilog="Examples:\n\npf offsets show -t topologies/flights/topology.yaml\n\n"
    "pf offsets show -t flights:flights -o json | jq 'map(.lag) | add'"
)
def show(
    topology: TopologyOption,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Show how far each reactor and each sink has come in each partition, and how much there is still to read.

    Reads the changelogs, where positions of reactors are kept, and what the consumer group has committed for sinks; no worker
    need run. Exit code 5 if a lane cannot go on from where it stands.
    """
    with exit_on_error():
        from pf_stream.components.positions import positions
        from pf_stream.components.sink_positions import sink_positions

        settings, loaded = connection(bootstrap_servers), load(topology, namespace)
        found = positions(settings, loaded)
        _show([*found, *sink_positions(settings, loaded)], output, ("reader", "position", "end", "lag", "state"))
        bad = sorted({(one.topic, one.state) for one in found if one.state in {"replaced", "out of range"}})
        for topic, state in bad:
            note("[red]{}[/red] is {}; say where to go on: pf offsets reset --topic {} --to start", topic, state, topic)
        if bad:
            raise typer.Exit(EXIT_UNHEALTHY)


@app.command(
    epilog="Examples:\n\npf offsets reset -t topologies/flights/topology.yaml --to @-2h --reactor fleet\n\n"
    "pf offsets reset -t flights:flights --topic flights.intents --partition 2 --to -100 --execute\n\n"
    "pf offsets reset -t flights:flights --topic carriers --to end --execute\n\n"
    "pf offsets reset -t flights:flights --sink warehouse --to @2026-01-31 --execute"
)
def reset(
    topology: TopologyOption,
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="WHERE", help="start, end, +N (behind the start), -N (before the end), N, or @TIME or @-2h."
        ),
    ],
    reactor: Annotated[str | None, typer.Option(help="Only of this reactor.")] = None,
    topic: Annotated[
        str | None,
        typer.Option(help="Only in this source topic.", show_default="all that are public"),
    ] = None,
    sink: Annotated[str | None, typer.Option(help="Of this sink, and of no reactor.")] = None,
    partition: Annotated[int | None, typer.Option(min=0, help="Only in this partition.")] = None,
    execute: ExecuteOption = False,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Move the positions from which reactors, or a sink, go on reading. Stop the workers first.

    State stays as it is. What is read again is counted again, and its effects happen again; what is skipped is never counted.
    To count anew from the start, drop the state too: pf state drop --force.

    What lies in internal topics follows from the public ones, so that both read again would count twice: an internal topic
    (and TOPIC.rerouted) is moved only if --topic names it. Then the memory of what came from which lane moves with it.

    A sink hands over again what it reads again; nothing else follows from that, so --sink names no topic.

    It also repairs a lane that stopped since its topic was made anew, or since records were deleted before it read them.
    """
    with exit_on_error():
        from pf_stream.clock import WallClock
        from pf_stream.components.positions import BadTargetError, Reset, parse_target
        from pf_stream.components.sink_positions import SinkReset

        if sink is not None and (reactor is not None or topic is not None):
            raise typer.BadParameter("it stands alone, without --reactor and --topic", param_hint="--sink")
        clock = WallClock()
        try:
            target = parse_target(to, clock.now_ms())
        except BadTargetError as error:
            raise typer.BadParameter(str(error), param_hint="--to") from error
        loaded = load(topology, namespace)
        settings = connection(bootstrap_servers)
        changes: Sequence[Change | SinkChange]
        if sink is not None:
            of_sink = SinkReset(settings, loaded, target, sink, partition=partition)
            changes = of_sink.execute() if execute else of_sink.preview()
        else:
            wanted = Reset(settings, loaded, target, reactor=reactor, topic=topic, partition=partition)
            if execute:
                changes = [change for lane in track(wanted.execute(clock), "moving", wanted.size) for change in lane]
            else:
                changes = wanted.preview()
        _show(changes, output, ("reader", "before", "after"))
        if execute:
            note("moved {} positions", len(changes))
        else:
            note("would move {} positions; nothing is written without --execute", len(changes))


def _show(
    found: "Sequence[Position | Change | SinkPosition | SinkChange]", output: Output, columns: tuple[str, ...]
) -> None:
    rows = [dataclasses.asdict(one) for one in found]
    if output is Output.table:
        rows = [
            {
                "source": f"{row['topic']}-{row['partition']}",
                "reader": row["reactor"] if "reactor" in row else f"> {row['sink']}",
                **row,
            }
            for row in rows
        ]
    show_rows(rows, output, ("source", *columns))
