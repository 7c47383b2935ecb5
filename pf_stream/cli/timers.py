"""``pf timers``: what waits, and until when."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pf_stream.cli._errors import exit_on_error
from pf_stream.cli._options import (
    BootstrapOption,
    ExecuteOption,
    NamespaceOption,
    TopologyOption,
    connection,
    instant_ms,
    load,
    utc,
)
from pf_stream.cli._output import Output, OutputOption, note, show, show_rows
from pf_stream.model.context import LATEST_MS

if TYPE_CHECKING:
    from pf_stream.components.timers import WaitingTimer

app = typer.Typer()

TimerArgument = Annotated[str, typer.Argument(metavar="GROUP:PARTITION:OFFSET", help="As pf timers list shows it.")]

_COLUMNS = ("timer", "reactor", "key", "name", "type", "clock", "due", "deadline")


@app.command(
    name="list",
    epilog="Examples:\n\npf timers list -t flights:flights\n\n"
    "pf timers list -t flights:flights --reactor watch --key N12345\n\n"
    "pf timers list -t flights:flights --due-before 5m -o json | jq length",
)
def list_timers(
    topology: TopologyOption,
    reactor: Annotated[str | None, typer.Option(help="Only those that this reactor set.")] = None,
    key: Annotated[str | None, typer.Option(help="Only those of this key.")] = None,
    due_before: Annotated[
        str | None,
        typer.Option(
            "--due-before", metavar="TIME", help="Only those due before: 2026-01-31T12:00:00Z, or 0s, 5m, 2h ago."
        ),
    ] = None,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """List the timers that wait, by the time at which they are due, as of the last commit.

    With them are the records that were put aside: until their time, or for another attempt. They have no reactor and no name.
    Reads the changelogs; no worker need run.
    """
    with exit_on_error():
        from pf_stream.clock import WallClock
        from pf_stream.components import timers

        before_ms = None if due_before is None else instant_ms(due_before, "--due-before", WallClock().now_ms())
        found = timers.list_timers(
            connection(bootstrap_servers), load(topology, namespace), reactor=reactor, key=key, before_ms=before_ms
        )
        show_rows([_row(one) for one in found], output, _COLUMNS)


@app.command(
    name="show",
    epilog="Examples:\n\npf timers show intents:2:1734 -t flights:flights\n\n"
    "pf timers show intents:2:1734 -t flights:flights -o json | jq .intent",
)
def show_timer(
    timer: TimerArgument,
    topology: TopologyOption,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Show a timer and the intent that waits, with the subject in whose name. Tokens are never shown.

    Exit code 3 if no such timer waits.
    """
    with exit_on_error():
        from pf_stream.components.timers import find_timer

        row = _row(find_timer(connection(bootstrap_servers), load(topology, namespace), timer))
        row["judged"] = utc(row.pop("judged_ms"))
        show(row, output)


@app.command(
    epilog="Examples:\n\npf timers cancel intents:2:1734 -t flights:flights\n\n"
    "pf timers cancel intents:2:1734 -t flights:flights --execute"
)
def cancel(
    timer: TimerArgument,
    topology: TopologyOption,
    execute: ExecuteOption = False,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Delete a timer: its intent is never handled, and leaves no dead letter. Stop the workers first.

    Exit code 3 if no such timer waits.
    """
    _edit("cancel", timer, topology, execute, namespace, bootstrap_servers, output)


@app.command(
    epilog="Examples:\n\npf timers fire intents:2:1734 -t flights:flights\n\n"
    "pf timers fire intents:2:1734 -t flights:flights --execute"
)
def fire(
    timer: TimerArgument,
    topology: TopologyOption,
    execute: ExecuteOption = False,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Set a timer due now, whichever clock it waits for: it fires when a worker opens its lane. Stop the workers first.

    Constraints, pf-not-before and deadline are judged anew when it fires: what may not be handled yet waits again.
    Exit code 3 if no such timer waits.
    """
    _edit("fire", timer, topology, execute, namespace, bootstrap_servers, output)


def _edit(
    what: Literal["cancel", "fire"],
    timer: str,
    topology: str,
    execute: bool,
    namespace: str | None,
    servers: str | None,
    output: Output,
) -> None:
    with exit_on_error():
        from pf_stream.clock import WallClock
        from pf_stream.components.timers import TimerEdit

        edit = TimerEdit(connection(servers), load(topology, namespace), timer, what)
        if execute:
            edit.execute(WallClock())
        show_rows([_row(edit.timer)], output, _COLUMNS)
        if execute:
            note("{}", "cancelled" if what == "cancel" else "due now; it fires when a worker opens its lane")
        else:
            note("would {} it; nothing is written without --execute", what)


def _row(timer: "WaitingTimer") -> dict[str, Any]:
    row = dataclasses.asdict(timer)
    # What is due by the event clock may lie behind the last time that can be written.
    times = {name: row.pop(f"{name}_ms") for name in ("due", "deadline")}
    return row | {name: None if ms is None else utc(min(ms, LATEST_MS)) for name, ms in times.items()}
