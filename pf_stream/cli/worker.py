"""``pf worker``: run a topology."""

import enum
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from pf_stream.cli._errors import exit_on_error
from pf_stream.cli._options import BootstrapOption, NamespaceOption, TopologyArgument, connection, load, seconds

app = typer.Typer()


class Latency(enum.StrEnum):
    """Values of ``--latency``."""

    low = "low"
    balanced = "balanced"


class LogFormat(enum.StrEnum):
    """Values of ``--log-format``."""

    console = "console"
    json = "json"


class LogLevel(enum.StrEnum):
    """Values of ``--log-level``."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


@app.callback()
def _group() -> None:
    """Keep ``run`` a command of its own, since typer would merge a single one into the noun."""


@app.command(
    epilog="Examples:\n\npf worker run topologies/flights/topology.yaml --trust issuer.pub\n\n"
    "PF_TRUST_ROOTS=issuer.pub pf worker run flights:flights --id flights-0 --health-port 8081\n\n"
    "pf worker run flights:flights --trust issuer.pub --processes 4"
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
    service_key: Annotated[
        list[Path] | None,
        typer.Option(
            envvar="PF_SERVICE_KEYS",
            metavar="FILE",
            help="Signing key of reactors that emit as services; may be repeated.",
        ),
    ] = None,
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
    state_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="PF_STATE_DIR",
            metavar="FOLDER",
            help="Where to keep state if the topology says store: rocksdb; each worker has a folder of its own in it.",
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Workers, each a process, started again when it dies; named ID-0, ID-1, ...")
    ] = 1,
    health_port: Annotated[
        int | None,
        typer.Option(
            envvar="PF_HEALTH_PORT",
            min=0,
            max=65535,
            help="Answer /live and /ready, and pf state, on this port of 127.0.0.1; 0 takes a free one. Each further "
            "process has the next port.",
            show_default="no port",
        ),
    ] = None,
    hang_after: Annotated[
        str,
        typer.Option(
            metavar="DURATION", help="End the process, and say where it was, if it does not answer for so long."
        ),
    ] = "30s",
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
    trace: Annotated[
        float | None,
        typer.Option(
            envvar="PF_TRACE",
            metavar="RATIO",
            min=0,
            max=1,
            help="Send spans to an OpenTelemetry collector (OTEL_EXPORTER_OTLP_ENDPOINT): of intents that their senders "
            "sample, and of this share of the units without any. Needs pf-stream[otel].",
            show_default="no spans",
        ),
    ] = None,
    log_format: Annotated[
        LogFormat,
        typer.Option(envvar="PF_LOG_FORMAT", help="console: a line of text for each event; json: an object a line."),
    ] = LogFormat.console,
    log_level: Annotated[
        LogLevel, typer.Option(envvar="PF_LOG_LEVEL", help="Least level of events; of libraries, warning at least.")
    ] = LogLevel.info,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
) -> None:
    """Run a topology until SIGTERM or Ctrl-C; then finish what is under way. A second one ends it at once.

    Exit code 1 if it cannot start or go on, 75 if it hung and was ended.
    """
    hang_after_s = seconds(hang_after, "--hang-after")
    with exit_on_error():
        from pf_stream.engine import WorkerSettings, check_service_keys, check_state_dir
        from pf_stream.kafka.admin import Admin
        from pf_stream.kafka.topics import check_topics
        from pf_stream.security import SigningKey, TrustRoots
        from pf_stream.worker.logs import configure_logging
        from pf_stream.worker.process import run_worker
        from pf_stream.worker.supervisor import Child, supervise

        loaded = load(topology, namespace)
        settings = WorkerSettings(
            connection=connection(bootstrap_servers),
            trust_roots=TrustRoots.load(trust),
            service_keys=tuple(SigningKey.load(file) for file in service_key or ()),
            worker_id=id_ or f"{loaded.name}-{socket.gethostname()}",
            latency=latency.value,
            state_dir=state_dir,
            session_s=session,
        )
        configure_logging(log_format.value, log_level.value)
        check_service_keys(loaded, settings)
        check_state_dir(loaded, settings)
        check_topics(Admin(settings.connection), loaded)
        if processes == 1:
            code = run_worker(loaded, settings, hang_after_s=hang_after_s, health_port=health_port, trace=trace)
        else:
            options = ["--latency", latency.value, "--hang-after", hang_after, "--session", str(session)]
            options += ["--log-format", log_format.value, "--log-level", log_level.value]
            options += ["--bootstrap-servers", settings.connection.bootstrap_servers]
            options += ["--trace", str(trace)] if trace is not None else []
            options += ["--namespace", namespace] if namespace is not None else []
            options += ["--state-dir", str(state_dir)] if state_dir is not None else []
            options += [word for file in trust for word in ("--trust", str(file))]
            options += [word for file in service_key or () for word in ("--service-key", str(file))]
            command = [sys.executable, *(f"-W{option}" for option in sys.warnoptions), "-P", "-m", "pf_stream"]
            command += ["worker", "run", topology, *options]
            children = []
            for number in range(processes):
                name = f"{settings.worker_id}-{number}"
                own = ["--id", name, "--processes", "1"]
                if health_port is not None:
                    own += ["--health-port", str(health_port and health_port + number)]
                children.append(Child(name, (*command, *own)))
            code = supervise(children, settings.drain_s)
    raise typer.Exit(code)
