"""``pf bench``: how fast a topology is."""

import dataclasses
import secrets
from contextlib import nullcontext
from typing import Annotated

import typer

from pf_stream.cli._errors import EXIT_ERROR, exit_on_error
from pf_stream.cli._options import NamespaceOption, TopologyArgument, connection, load, read_file
from pf_stream.cli._output import Output, OutputOption, note, show
from pf_stream.cli.worker import Latency

EPILOG = (
    "Examples:\n\npf bench topologies/flights/topology.yaml\n\n"
    "pf bench counter:counter --intents intents.jsonl --rate 5000 -o json"
)


def bench(
    topology: TopologyArgument,
    intents: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help='Intents, one a line: {"type": ..., "data": {...}}; - is the standard input. Repeated if they are too few.',
            show_default="made up from JSON Schemas",
        ),
    ] = None,
    records: Annotated[int, typer.Option(min=1, help="How many intents there are to be handled at once.")] = 200_000,
    keys: Annotated[int, typer.Option(min=1, help="How many keys intents that are made up have.")] = 1_000,
    rate: Annotated[
        int, typer.Option(min=1, help="How many a second there are then, while latency is measured.")
    ] = 1_000,
    seconds: Annotated[float, typer.Option(min=1, help="For how long.")] = 10.0,
    latency: Annotated[Latency, typer.Option(help="The worker's setting of that name.")] = Latency.balanced,
    namespace: NamespaceOption = None,
    bootstrap_servers: Annotated[
        str | None,
        typer.Option(
            "--bootstrap-servers",
            "-b",
            envvar="PF_BOOTSTRAP_SERVERS",
            metavar="HOST:PORT",
            help="Kafka brokers, comma separated. Topics are made there in a namespace of their own, and deleted.",
            show_default="a broker for this alone",
        ),
    ] = None,
    output: OutputOption = Output.table,
) -> None:
    """Measure a topology: records a second, processor time, latency, memory of one worker.

    A context is made that grants what the intents require. Exit code 1 if some were refused all the same.
    """
    with exit_on_error():
        from pf_stream.clock import WallClock
        from pf_stream.kafka.dev import DevBroker
        from pf_stream.worker.bench import BenchSettings, made_up, measure, read_intents

        loaded = load(topology, namespace)
        if bootstrap_servers is not None and namespace is None:
            loaded = loaded.within(f"bench-{secrets.token_hex(4)}")
        if intents is None:
            intent = made_up(loaded, keys)
        else:
            given = read_intents(loaded, read_file(intents).splitlines())
            intent = lambda number: given[number % len(given)]  # noqa: E731
        intent(0)  # what cannot be made up is told before anything is started
        with nullcontext(None) if bootstrap_servers is not None else DevBroker.temporary() as broker:
            settings = BenchSettings(
                connection(bootstrap_servers if broker is None else broker.bootstrap_servers),
                topology,
                records,
                rate,
                seconds,
                latency.value,
            )
            measured = measure(loaded, settings, intent, WallClock())
        show(
            {
                name: round(value, 1) if isinstance(value, float) else value
                for name, value in dataclasses.asdict(measured).items()
            },
            output,
        )
        if measured.refused:
            note("[red]refused[/red]: the figures are not of a topology that handles its intents")
            raise typer.Exit(EXIT_ERROR)
