"""``pf topology``: check and show topology files."""

import dataclasses
from typing import TYPE_CHECKING, Any

import typer

from pf_stream.cli._errors import EXIT_ERROR, exit_on_error
from pf_stream.cli._options import NamespaceOption, TopologyArgument, load
from pf_stream.cli._output import Output, OutputOption, show, show_rows

if TYPE_CHECKING:
    from pf_stream.topology.description import IntentDescription

app = typer.Typer()


@app.command(
    epilog="Examples:\n\npf topology validate topologies/flights/topology.yaml\n\n"
    "pf topology validate flights:flights -o json | jq .faults"
)
def validate(topology: TopologyArgument, output: OutputOption = Output.table) -> None:
    """Check a topology and the modules it names; say everything that is wrong with it.

    Exit code 1 if something is.
    """
    with exit_on_error():
        from pf_stream.topology import TopologyFileError

        try:
            loaded = load(topology, None)
        except TopologyFileError as error:
            if output is Output.table:
                raise
            show({"status": "faulty", "faults": [dataclasses.asdict(fault) for fault in error.faults]}, output)
            raise typer.Exit(EXIT_ERROR) from None
        summary = {
            "status": "ok",
            "name": loaded.name,
            "namespace": loaded.namespace,
            "groups": len(loaded.groups),
            "reactors": len(loaded.reactors),
            "intents": len(loaded.intents),
        }
        show(summary if output is Output.table else summary | {"faults": []}, output)


@app.command(
    name="show",
    epilog="Examples:\n\npf topology show topologies/flights/topology.yaml\n\n"
    "pf topology show flights:flights -o json | jq -r '.groups[].changelog'",
)
def show_topology(
    topology: TopologyArgument, namespace: NamespaceOption = None, output: OutputOption = Output.table
) -> None:
    """Show groups, reactors, intent types with their topics, keys and requirements, and what capabilities imply.

    Behind a requirement: the handlers that have it, or the topology, if the type has not; and whether it is decided at
    run time, by a function, a rule or the time, rather than by the token and the intent alone. Behind a constraint: who
    has it, and whether an intent waits for it or what it is refused with.
    """
    with exit_on_error():
        from pf_stream.topology.description import describe

        description = describe(load(topology, namespace))
        if output is not Output.table:
            show(_plain(description), output)
            return
        about = ("name", "namespace", "app", "partitions", "guarantee", "store", "standby")
        show({name: getattr(description, name) for name in about}, output)
        typer.echo()
        rows: list[dict[str, Any]] = [
            {"group": group.name, "reactor": reactor.id, "state": f"{reactor.state} v{reactor.state_version}"}
            | {"handles": reactor.handles, "changelog": group.changelog}
            for group in description.groups
            for reactor in group.reactors
        ]
        show_rows(rows, output, ("group", "reactor", "state", "handles", "changelog"))
        typer.echo()
        rows = [
            {"type": intent.type, "topic": f"{intent.topic}{' (internal)' if intent.internal else ''}"}
            | {"also accepts": intent.also_accepts or None}
            | {"key": intent.key, "requires": _required(intent), "handled by": intent.handled_by or None}
            for intent in description.intents
        ]
        # A column that says nothing for most topologies makes the others narrow.
        also = ("also accepts",) if any(intent.also_accepts for intent in description.intents) else ()
        show_rows(rows, output, ("type", *also, "topic", "key", "requires", "handled by"))
        rows = [
            {"handled": intent.type, "constraint": one.text, "said by": one.constrained_by}
            | {"otherwise": "waits" if one.waits else one.code}
            for intent in description.intents
            for one in intent.constraints
        ]
        if rows:
            typer.echo()
            show_rows(rows, output, ("handled", "constraint", "said by", "otherwise"))
        if description.capabilities:
            typer.echo()
            rows = [
                {"capability": op.name, "implies": op.implies or None, "implied by": op.implied_by or None}
                for capabilities in description.capabilities
                for op in capabilities.operations
            ]
            show_rows(rows, output, ("capability", "implies", "implied by"))
        if description.services:
            typer.echo()
            rows = [
                {"service": service.reactor, "subject": service.subject, "key": service.key, "grants": service.grants}
                for service in description.services
            ]
            show_rows(rows, output, ("service", "subject", "key", "grants"))
        if description.sinks:
            typer.echo()
            rows = [
                {"sink": sink.name, "takes": sink.type, "from": sink.topic}
                | {"buffer": f"{sink.records:,} {sink.strategy}", "batch": sink.batch}
                for sink in description.sinks
            ]
            show_rows(rows, output, ("sink", "takes", "from", "buffer", "batch"))
        if description.tables:
            typer.echo()
            rows = [
                {"table": table.topic, "rows": table.of, "most bytes": f"{table.most_bytes:,}", "bad": table.on_bad}
                for table in description.tables
            ]
            show_rows(rows, output, ("table", "rows", "most bytes", "bad"))
        if description.calendars:
            typer.echo()
            rows = [
                {"calendar": calendar.name, "zone": calendar.zone}
                | {"open": " or ".join(calendar.open), "holidays": calendar.holidays}
                for calendar in description.calendars
            ]
            show_rows(rows, output, ("calendar", "zone", "open", "holidays"))


def _required(intent: "IntentDescription") -> tuple[str, ...]:
    """With what is told of each that is not plain: who beside the type requires it, and that no token alone decides it."""
    texts = []
    for requirement in intent.requires:
        notes = [] if "type" in requirement.required_by else list(requirement.required_by)
        notes += [] if requirement.static else ["at run time"]
        texts.append(f"{requirement.text} [{', '.join(notes)}]" if notes else requirement.text)
    return tuple(texts) or ("PUBLIC",)


def _plain(description: Any) -> Any:
    if dataclasses.is_dataclass(description):
        names = (field.name for field in dataclasses.fields(description))
        return {name.removesuffix("_"): _plain(getattr(description, name)) for name in names}
    if isinstance(description, tuple):
        return [_plain(item) for item in description]
    return description
