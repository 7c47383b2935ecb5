"""``pf doctor``: whether a cluster is what exactness needs."""

import dataclasses
from typing import Annotated

import typer

from pf_stream.cli._errors import EXIT_UNHEALTHY, exit_on_error
from pf_stream.cli._options import BootstrapOption, NamespaceOption, connection, load
from pf_stream.cli._output import Output, OutputOption, note, show_rows

EPILOG = (
    "Examples:\n\npf doctor\n\npf doctor topologies/flights/topology.yaml\n\n"
    "pf doctor flights:flights -o json | jq -r '.[] | select(.level == \"error\") | .fix'"
)


def doctor(
    topology: Annotated[
        str | None, typer.Argument(metavar="[TOPOLOGY]", help="Check its topics too: a .yaml file, or module:name.")
    ] = None,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Check a cluster: reachability, settings of brokers and topics, replicas, who may write, clocks.

    To compare clocks, a topic __pf.clock-... is made and deleted again. Exit code 5 if an error or a warning is
    found.
    """
    with exit_on_error():
        from pf_stream.clock import WallClock
        from pf_stream.components.doctor import Level, examine

        loaded = None if topology is None else load(topology, namespace)
        findings = examine(connection(bootstrap_servers), loaded, WallClock())
        rows = [dataclasses.asdict(finding) | {"level": finding.level.value} for finding in findings]
        if rows or output is not Output.table:
            show_rows(rows, output, ("level", "subject", "message", "fix"))
        if all(finding.level is Level.note for finding in findings):
            note("nothing is wrong with this cluster" if loaded else "nothing is wrong with the brokers")
        else:
            raise typer.Exit(EXIT_UNHEALTHY)
