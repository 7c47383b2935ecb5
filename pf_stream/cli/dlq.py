"""``pf dlq``: dead letters."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pf_stream.cli._errors import exit_on_error
from pf_stream.cli._options import BootstrapOption, NamespaceOption, TopologyOption, connection, load, utc
from pf_stream.cli._output import Output, OutputOption, show, show_rows

if TYPE_CHECKING:
    from pf_stream.components.dead_letters import DeadLetter

app = typer.Typer()


@app.command(
    name="list",
    epilog="Examples:\n\npf dlq list -t topologies/flights/topology.yaml\n\n"
    "pf dlq list -t flights:flights --code token_expired -n 100 -o json | jq -r .[].key",
)
def list_letters(
    topology: TopologyOption,
    code: Annotated[str | None, typer.Option(help="Only what was refused for this.")] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many of the last.")] = 20,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """List the last dead letters of a topology, the latest at the end."""
    with exit_on_error():
        from pf_stream.components.dead_letters import last_dead_letters

        loaded = load(topology, namespace)
        letters = last_dead_letters(connection(bootstrap_servers), loaded, count, code)
        rows = [_plain(letter) for letter in letters]
        if output is Output.table:
            rows = [{name: _visible(value) for name, value in row.items()} for row in rows]
        show_rows(rows, output, ("position", "refused", "code", "key", "message"))


@app.command(
    name="show",
    epilog="Examples:\n\npf dlq show flights.intents.dlq:2:17\n\n"
    "pf dlq show flights.intents.dlq:2:17 -o json | jq .value",
)
def show_letter(
    position: Annotated[str, typer.Argument(metavar="TOPIC:PARTITION:OFFSET", help="As pf dlq list shows it.")],
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Show a dead letter: why, and the record with its headers. Tokens are never shown."""
    with exit_on_error():
        from pf_stream.components.dead_letters import read_dead_letter

        letter = _plain(read_dead_letter(connection(bootstrap_servers), position))
        if output is Output.table:
            lines = (f"{name}: {'-' if text is None else text}" for name, text in letter["headers"])
            letter = {name: _visible(value) for name, value in (letter | {"headers": "\n".join(lines)}).items()}
        show(letter, output)


def _plain(letter: "DeadLetter") -> dict[str, Any]:
    plain = dataclasses.asdict(letter)
    plain["headers"] = [list(header) for header in letter.headers]
    return {"position": plain.pop("position"), "refused": utc(plain.pop("timestamp_ms")), **plain}


def _visible(value: Any) -> Any:
    """Text without control characters: whoever sent the record must not be able to write to an operator's terminal."""
    if not isinstance(value, str):
        return value
    return "".join(sign if sign.isprintable() or sign == "\n" else "\N{REPLACEMENT CHARACTER}" for sign in value)
