"""``pf intent``: send intents."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pf_stream.cli._errors import EXIT_ERROR, EXIT_REFUSED, exit_on_error
from pf_stream.cli._options import (
    BootstrapOption,
    NamespaceOption,
    TopologyOption,
    connection,
    load,
    read_context,
    read_file,
    seconds,
)
from pf_stream.cli._output import Output, OutputOption, note, show

if TYPE_CHECKING:
    from pf_stream.components.messaging import Answer, Sent

app = typer.Typer()


@app.callback()
def _group() -> None:
    """Keep ``send`` a command of its own, since typer would merge a single one into the noun."""


@app.command(
    epilog="Examples:\n\n"
    "pf intent send flights.departed -t topologies/flights/topology.yaml --context alice.ctx --wait "
    '--data \'{"tailnum": "N12345", "carrier": "UA", "origin": "EWR", "flight": 1, "dest": "ORD", "delay": 7}\'\n\n'
    "jq -c .[0] flights.json | pf intent send flights.departed.v1 -t flights:flights --data - --context alice.ctx"
)
def send(
    type_: Annotated[
        str, typer.Argument(metavar="TYPE", help="As flights.departed.v1; without a version, the latest.")
    ],
    topology: TopologyOption,
    data: Annotated[
        str, typer.Option("--data", "-d", metavar="JSON|@FILE|-", help="The payload; - is the standard input.")
    ],
    context: Annotated[
        str | None,
        typer.Option(
            "--context", envvar="PF_CONTEXT", metavar="FILE", help="File with the token; - is the standard input."
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the reply, or for the dead letter that it becomes.")
    ] = False,
    timeout: Annotated[str, typer.Option(metavar="DURATION", help="How long --wait waits.")] = "10s",
    reply_to: Annotated[
        str | None,
        typer.Option(
            metavar="TOPIC", help="Where the reply shall go, within the namespace.", show_default="replies, with --wait"
        ),
    ] = None,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Send an intent, checked against its type first.

    Exit code 4 if it was refused for want of a capability; 1 if it failed otherwise, or if --wait saw nothing.
    """
    if data == context == "-":
        raise typer.BadParameter("--data and --context cannot both be the standard input")
    timeout_s = seconds(timeout, "--timeout")
    with exit_on_error():
        from pf_stream.clock import WallClock
        from pf_stream.components import messaging

        loaded = load(topology, namespace)
        spec = messaging.find_intent(loaded, type_)
        intent = messaging.parse_intent(spec, _payload(data))
        token = None if context is None else read_context(context)
        required = loaded.requirements(spec)
        if token is None and required:
            note(
                "[yellow]warning[/yellow]: {} requires {}, and without --context it will be refused",
                spec.type,
                " and ".join(map(str, required)),
            )
        settings, clock = connection(bootstrap_servers), WallClock()
        if not wait:
            checked = None if reply_to is None else messaging.reply_topic(loaded, reply_to)
            sent = messaging.send_intent(settings, loaded, intent, clock, context=token, reply_to=checked)
            _show(_plain(sent, "sent"), output)
            return
        if token is None and not required:
            note("[yellow]warning[/yellow]: replies go to proven senders only, and there is no --context")
        ids: list[messaging.Sent] = []
        answer = messaging.send_and_wait(
            settings,
            loaded,
            intent,
            clock,
            timeout_s=timeout_s,
            context=token,
            reply_to=reply_to,
            on_sent=ids.append,
        )
        if answer is None:
            _show(_plain(ids[0], "unanswered"), output)
            note("[red]error[/red]: nothing came back within {}; does a worker run? (pf registry list)", timeout)
            raise typer.Exit(EXIT_ERROR)
        outcome = "replied" if answer.code is None else "refused" if answer.is_denial else "failed"
        _show(_plain(answer.sent, outcome, answer), output)
        if answer.code is None:
            return
        note("[red]refused[/red] ({}): {}", answer.code, answer.message or "")
        raise typer.Exit(EXIT_REFUSED if answer.is_denial else EXIT_ERROR)


def _plain(sent: "Sent", status: str, answer: "Answer | None" = None) -> dict[str, Any]:
    says = {name: getattr(answer, name, None) for name in ("reply", "code", "message", "dead_letter")}
    return {"status": status, **dataclasses.asdict(sent), **says}


def _show(data: dict[str, Any], output: Output) -> None:
    # Programs find the same keys whatever happened; people are spared what did not.
    known = {name: value for name, value in data.items() if value is not None}
    show(known if output is Output.table else data, output)


def _payload(data: str) -> bytes:
    if data == "-" or data.startswith("@"):
        return read_file(data.removeprefix("@"))
    return data.encode()
