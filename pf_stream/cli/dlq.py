"""``pf dlq``: dead letters."""

import dataclasses
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pf_stream.cli._errors import EXIT_REFUSED, exit_on_error
from pf_stream.cli._options import (
    BootstrapOption,
    NamespaceOption,
    TopologyOption,
    connection,
    instant_ms,
    load,
    read_context,
    utc,
)
from pf_stream.cli._output import Output, OutputOption, note, show, show_rows
from pf_stream.cli._progress import track

if TYPE_CHECKING:
    from pf_stream.components.dead_letters import DeadLetter

app = typer.Typer()


@app.command(
    name="list",
    epilog="Examples:\n\npf dlq list -t topologies/flights/topology.yaml\n\n"
    "pf dlq list -t flights:flights --code token_expired -n 100 -o json | jq -r .[].key\n\n"
    "pf dlq list -t flights:flights --code outside_hours --code in_maintenance",
)
def list_letters(
    topology: TopologyOption,
    code: Annotated[list[str] | None, typer.Option(help="Only what was refused for this; may be repeated.")] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many of the last.")] = 20,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """List the last dead letters of a topology, the latest at the end."""
    with exit_on_error():
        from pf_stream.components.dead_letters import last_dead_letters

        loaded = load(topology, namespace)
        letters = last_dead_letters(connection(bootstrap_servers), loaded, count, code or ())
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


@app.command(
    epilog="Examples:\n\npf dlq replay -t topologies/flights/topology.yaml --code token_expired --context ops.ctx\n\n"
    "pf dlq replay flights.intents.dlq -t flights:flights --trust issuer.pub --since 2h --context ops.ctx --execute\n\n"
    "pf dlq replay flights.intents.dlq --offset 2:17 --offset 0:3 --context ops.ctx --execute --again",
)
def replay(
    context: Annotated[
        str,
        typer.Option(
            "--context", envvar="PF_CONTEXT", metavar="FILE", help="File with the token to send with; - is the input."
        ),
    ],
    topic: Annotated[
        str | None,
        typer.Argument(metavar="[TOPIC]", help="Topic of dead letters; all of the topology's, if not given."),
    ] = None,
    topology: Annotated[
        str | None,
        typer.Option("--topology", "-t", envvar="PF_TOPOLOGY", help="A .yaml file, or module:name."),
    ] = None,
    offset: Annotated[
        list[str] | None,
        typer.Option("--offset", metavar="P:O", help="Only this one, by partition and offset; may be repeated."),
    ] = None,
    code: Annotated[str | None, typer.Option(help="Only what was refused for this.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only what was refused since: 30m, 2h, 1d (ago), or RFC 3339.")
    ] = None,
    trust: Annotated[
        list[Path] | None,
        typer.Option(
            envvar="PF_TRUST_ROOTS",
            metavar="FILE",
            help="Public keys that the workers believe: with -t, each letter is judged beforehand as they will judge it.",
        ),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Also those that were replayed before.")] = False,
    execute: Annotated[bool, typer.Option("--execute", help="Send them; without it nothing is written.")] = False,
    count: Annotated[int, typer.Option("--count", "-n", min=0, help="How many to print; all are counted.")] = 20,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Send dead letters back to the topic that they came from, each once.

    A dead letter keeps no token, so a fresh one is given: they are handled in its subject's name. Key, value and headers are
    sent as they were, to the partition of the key, with pf-replayed-from added. What was sent is remembered on __pf.replays,
    in one transaction with the sending, so neither a second run nor a crash sends a letter twice; --again does.

    Letters of a topic that only the topology writes need -t. Without --execute it only says what would be done.
    Exit code 4 if the context would not do.
    """
    if topic is None and topology is None:
        raise typer.BadParameter("name a TOPIC of dead letters, or a topology with -t")
    if offset and topic is None:
        raise typer.BadParameter("positions are of one topic: name it before them", param_hint="--offset")
    positions = [_position(text) for text in offset or ()]
    with exit_on_error():
        from pf_stream.clock import WallClock
        from pf_stream.components import replay as replays
        from pf_stream.components.dead_letters import dead_letter_topics
        from pf_stream.security import TrustRoots

        clock = WallClock()
        since_ms = None if since is None else instant_ms(since, "--since", clock.now_ms())
        loaded = None if topology is None else load(topology, namespace)
        topics = [topic] if topic is not None else dead_letter_topics(loaded) if loaded is not None else []
        caller = replays.Caller(read_context(context), loaded, TrustRoots.load(trust) if trust else None)
        settings = connection(bootstrap_servers)
        rows: list[dict[str, Any]] = []
        sent, left = 0, Counter[str]()
        try:
            replayers = [
                replays.Replayer(settings, replays.select_letters(name, positions, code, since_ms), caller, clock)
                for name in topics
            ]
            for replayer in replayers:
                letters = replayer.execute(again=again) if execute else replayer.preview(again=again)
                for letter in track(letters, "replaying" if execute else "looking", replayer.size):
                    if len(rows) < count:
                        rows.append(dataclasses.asdict(letter))
                    if letter.obstacle is None:
                        sent += 1
                    else:
                        left[re.split("[:;]", letter.obstacle)[0]] += 1
        except replays.ContextRefusedError as error:
            note("[red]error[/red] ({}): {}", error.reason_code, error)
            raise typer.Exit(EXIT_REFUSED) from error
        if output is Output.table:
            rows = [{name: _visible(value) for name, value in row.items()} for row in rows]
            show_rows(rows, output, ("letter", "code", "key", "target", "obstacle"))
        else:
            show({"executed": execute, "sent": sent, "left": dict(left), "letters": rows}, output)
        note("{} {}", sent, "sent again" if execute else "would be sent again; nothing is written without --execute")
        for reason, times in left.most_common():
            note("{} not: {}", times, reason)


def _position(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,9}):(\d{1,18})", text)
    if match is None:
        fault = f"{text!r} is no position; write PARTITION:OFFSET, as 2:17"
        raise typer.BadParameter(fault, param_hint="--offset")
    return int(match[1]), int(match[2])


def _plain(letter: "DeadLetter") -> dict[str, Any]:
    plain = dataclasses.asdict(letter)
    plain["headers"] = [list(header) for header in letter.headers]
    return {"position": plain.pop("position"), "refused": utc(plain.pop("timestamp_ms")), **plain}


def _visible(value: Any) -> Any:
    """Text without control characters: whoever sent the record must not be able to write to an operator's terminal."""
    if not isinstance(value, str):
        return value
    return "".join(sign if sign.isprintable() or sign == "\n" else "\N{REPLACEMENT CHARACTER}" for sign in value)
