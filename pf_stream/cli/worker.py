"""``pf worker``: run a topology."""

import enum
import socket
from pathlib import Path
from typing import Annotated

import typer

from pf_stream.cli._errors import exit_on_error
from pf_stream.cli._options import BootstrapOption, NamespaceOption, TopologyArgument, connection, load

app = typer.Typer()


class Latency(enum.StrEnum):
    """Values of ``--latency``."""

    low = "low"
    balanced = "balanced"


@app.callback()
def _group() -> None:
    """Keep ``run`` a command of its own, since typer would merge a single one into the noun."""


@app.command(
    epilog="Examples:\n\npf worker run topologies/flights/topology.yaml --trust issuer.pub\n\n"
    "PF_TRUST_ROOTS=issuer.pub pf worker run flights:flights --id flights-0"
)
def run(
    topology: TopologyArgument,
    trust: Annotated[
        list[Path],
        typer.Option(
            envvar="PF_TRUST_ROOTS",
            metavar="FILE",
            help="File of public keys whose contexts are believed; may be repeated.",
        ),
    ],
    id_: Annotated[
        str | None,
        typer.Option(
            "--id",
            envvar="PF_WORKER_ID",
            help="Name of this worker, of its own in the topology; it keeps its partitions over a restart.",
            show_default="TOPOLOGY-HOSTNAME",
        ),
    ] = None,
    latency: Annotated[
        Latency, typer.Option(help="low: handle what is there at once, with a busy core; balanced: gather for 8 ms.")
    ] = Latency.balanced,
    session: Annotated[
        float,
        typer.Option(
            envvar="PF_WORKER_SESSION",
            min=1,
            max=60,
            help="Seconds without a sign of life after which other workers take its partitions over; most clusters allow "
            "no less than 6.",
        ),
    ] = 10.0,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
) -> None:
    """Run a topology until SIGTERM or Ctrl-C; then finish what is under way."""
    with exit_on_error():
        from pf_stream.engine import WorkerSettings
        from pf_stream.kafka.admin import Admin
        from pf_stream.kafka.topics import check_topics
        from pf_stream.security import TrustRoots
        from pf_stream.topology.process import run_worker

        loaded = load(topology, namespace)
        settings = WorkerSettings(
            connection=connection(bootstrap_servers),
            trust_roots=TrustRoots.load(trust),
            worker_id=id_ or f"{loaded.name}-{socket.gethostname()}",
            latency=latency.value,
            session_s=session,
        )
        check_topics(Admin(settings.connection), loaded)
        code = run_worker(loaded, settings)
    raise typer.Exit(code)
