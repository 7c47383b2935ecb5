"""``pf registry``: components that are running."""

import dataclasses

import typer

from pf_stream.cli._errors import exit_on_error
from pf_stream.cli._options import BootstrapOption, connection, utc
from pf_stream.cli._output import Output, OutputOption, show_rows

app = typer.Typer()


@app.callback()
def _group() -> None:
    """Keep ``list`` a command of its own, since typer would merge a single one into the noun."""


@app.command(
    name="list",
    epilog="Examples:\n\npf registry list\n\n"
    "pf registry list -o json | jq '.[] | select(.status == \"lost\") | .worker'",
)
def list_components(bootstrap_servers: BootstrapOption = None, output: OutputOption = Output.table) -> None:
    """List workers and their reactors. One that ended without saying so is lost after 30 seconds."""
    with exit_on_error():
        from pf_stream.clock import WallClock
        from pf_stream.components.registry import components

        now_ms = WallClock().now_ms()
        rows = []
        for component in components(connection(bootstrap_servers)):
            row = dataclasses.asdict(component)
            row |= {name: list(row[name]) for name in ("intents", "capabilities")}
            del row["lanes"]  # pf status shows them
            row |= {"started": utc(row.pop("started_ms")), "heartbeat": utc(row.pop("heartbeat_ms"))}
            rows.append(row | {"status": "lost" if component.is_lost(now_ms) else "running"})
        show_rows(rows, output, ("app", "kind", "name", "version", "worker", "status", "heartbeat"))
