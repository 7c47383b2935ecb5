"""``pf topics``: the Kafka topics of a topology."""

from typing import Annotated, Any

import typer

from pf_stream.cli._errors import EXIT_ERROR, exit_on_error
from pf_stream.cli._options import BootstrapOption, NamespaceOption, TopologyArgument, connection, load
from pf_stream.cli._output import Output, OutputOption, note, show_rows

app = typer.Typer()


@app.command(
    epilog="Examples:\n\npf topics create topologies/flights/topology.yaml\n\n"
    "pf topics create flights:flights --partitions 12 --replication-factor 3"
)
def create(
    topology: TopologyArgument,
    partitions: Annotated[
        int | None,
        typer.Option(
            min=1, help="Partitions of each topic.", show_default="as existing ones, else as the topology says"
        ),
    ] = None,
    replication_factor: Annotated[
        int | None, typer.Option(min=1, help="Replicas of each partition.", show_default="3, or as many as brokers")
    ] = None,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Make the topics that a topology needs; those that exist stay as they are.

    Exit code 1 if an existing topic is not as it should be.
    """
    with exit_on_error():
        from pf_stream.kafka.admin import Admin
        from pf_stream.kafka.topics import Status, create_topics

        admin = Admin(connection(bootstrap_servers))
        topics = create_topics(admin, load(topology, namespace), partitions, replication_factor)
        rows = [
            {
                "topic": topic.spec.name,
                "status": topic.status.value,
                "partitions": topic.spec.partitions,
                "purpose": topic.spec.purpose.value,
                "config": dict(topic.spec.config),
                "differences": list(topic.differences),
            }
            for topic in topics
        ]
        show_rows(rows, output, ("topic", "status", "partitions", "purpose"))
        differing = [topic for topic in topics if topic.status is Status.differs]
        for topic in differing:
            note("[yellow]{} differs[/yellow]: {}", topic.spec.name, "; ".join(topic.differences))
        if differing:
            note(
                "existing topics are not changed; alter them with your cluster's tools, or delete and create them anew"
            )
            raise typer.Exit(EXIT_ERROR)


_SETTINGS = {
    "cleanup": "cleanup.policy",
    "timestamps": "message.timestamp.type",
    "max_bytes": "max.message.bytes",
    "retention_ms": "retention.ms",
}


@app.command(
    name="list",
    epilog="Examples:\n\npf topics list\n\n"
    "pf topics list topologies/flights/topology.yaml -o json | jq '.[] | select(.exists | not) | .topic'",
)
def list_all(
    topology: Annotated[
        str | None, typer.Argument(metavar="[TOPOLOGY]", help="Only what it needs: a .yaml file, or module:name.")
    ] = None,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """List topics with their partitions, records and main settings.

    With a topology, those it needs, also if they do not exist.
    """
    with exit_on_error():
        from pf_stream.kafka.admin import Admin
        from pf_stream.kafka.topics import list_topics

        loaded = None if topology is None else load(topology, namespace)
        rows = []
        for topic in list_topics(Admin(connection(bootstrap_servers)), loaded):
            found = topic.found
            row: dict[str, Any] = {
                "topic": topic.name,
                "exists": found is not None,
                "partitions": found and found.partitions,
                "records": topic.records,
                "purpose": topic.purpose and topic.purpose.value,
                "replication": found and found.replication_factor,
            }
            rows.append(row | {name: found and found.config.get(key) for name, key in _SETTINGS.items()})
        columns = ("topic", *(("purpose",) if loaded else ()), "partitions", "records", "cleanup", "timestamps")
        show_rows(rows, output, columns)
