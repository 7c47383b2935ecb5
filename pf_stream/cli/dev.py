"""``pf dev``: a real Kafka for development, started, found, stopped and forgotten."""

import dataclasses
import datetime as dt
import os
import signal
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pf_stream.cli._errors import EXIT_NOT_FOUND, EXIT_UNHEALTHY, exit_on_error
from pf_stream.cli._output import Output, OutputOption, note, show, show_rows
from pf_stream.errors import NotFoundError

if TYPE_CHECKING:
    from pf_stream.kafka.dev import DevBroker, DevCluster, Step

app = typer.Typer()

_FOLLOW_S = 0.2

DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="PF_DEV_DATA_DIR",
        help="Folder for topics and log; each folder has its own broker.",
        show_default="in the user's cache",
        file_okay=False,
    ),
]


@app.command(
    epilog="Examples:\n\npf dev up\n\npf dev up --port 9092 --data-dir ./kafka\n\n"
    "pf dev up --brokers 3 --data-dir ./cluster\n\n"
    "export PF_BOOTSTRAP_SERVERS=$(pf dev up -o json | jq -r .bootstrap_servers)"
)
def up(
    data_dir: DataDirOption = None,
    port: Annotated[
        int | None,
        typer.Option(
            envvar="PF_DEV_PORT",
            min=1,
            max=65535,
            help="Port on 127.0.0.1; of several brokers, the first one's, and the others follow.",
            show_default="the last one, or a free one",
        ),
    ] = None,
    brokers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=5,
            help="How many. Of three, any one may be lost without a record lost or refused.",
            show_default="as many as the folder has, or 1",
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds until it must be ready, downloads not counted.")] = 60,
    output: OutputOption = Output.table,
) -> None:
    """Start Kafka, or find the one that runs; print where it is once topics can be created.

    The first start downloads Kafka (45 MB). PF_MAVEN_MIRROR names another Maven repository, or a folder of
    jars. PF_DEV_JAVA_OPTIONS are further options of its Java, such as -Xmx2g.
    """
    with exit_on_error():
        from pf_stream.kafka.dev import BrokerInfo, ClusterInfo, DevBroker, DevCluster

        # As Ctrl-C: a start that is broken off leaves no broker.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        cluster = DevCluster(data_dir, brokers, port)
        several = cluster.exists or (brokers or 1) > 1
        info: BrokerInfo | ClusterInfo
        with _Reporter() as reporter:
            info = (cluster if several else DevBroker(data_dir, port)).up(progress=reporter, timeout=timeout)
        if isinstance(info, ClusterInfo) and output is Output.table:
            show({name: value for name, value in _plain(info).items() if name != "brokers"}, output)
            return
        show(_plain(info), output)


@app.command(epilog="Examples:\n\npf dev down\n\npf dev down --data-dir ./kafka")
def down(data_dir: DataDirOption = None) -> None:
    """Stop Kafka. Its data stay; `pf dev up` goes on with them."""
    with exit_on_error():
        from pf_stream.kafka.dev import BrokerState

        match _found(data_dir).down():
            case BrokerState.stopped:
                note("no broker is running")
            case BrokerState.stale:
                note("the broker had gone already, without being stopped")
            case _:
                note("stopped")


@app.command(epilog="Examples:\n\npf dev status\n\npf dev status -o json | jq .rss_bytes")
def status(data_dir: DataDirOption = None, output: OutputOption = Output.table) -> None:
    """Say whether Kafka runs and answers.

    Exit code 0: it does. 5: its process does not answer, or has gone without being stopped. 3: there is none.
    """
    with exit_on_error():
        from pf_stream.kafka.dev import BrokerState, DevCluster

        place = _found(data_dir)
        if isinstance(place, DevCluster):
            _show_cluster(place, output)
            return
        found = place.status()
        broker: dict[str, Any] = _plain(found.broker) if found.broker else {}
        if output is Output.table:
            uptime = None if found.uptime_s is None else str(dt.timedelta(seconds=found.uptime_s))
            memory = None if found.rss_bytes is None else f"{found.rss_bytes / 1e6:.0f} MB"
            now: dict[str, Any] = {"uptime": uptime, "memory": memory}
        else:
            now = {"uptime_s": found.uptime_s, "rss_bytes": found.rss_bytes}
        names = ("bootstrap_servers", "pid", "port", "version", "started_at")
        show(
            {"state": found.state.value, "data_dir": str(found.data_dir)} | {n: broker.get(n) for n in names} | now,
            output,
        )
        if found.state is not BrokerState.running:
            raise typer.Exit(EXIT_NOT_FOUND if found.state is BrokerState.stopped else EXIT_UNHEALTHY)


@app.command(epilog="Examples:\n\npf dev logs -n 20\n\npf dev logs --follow")
def logs(
    data_dir: DataDirOption = None,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many of the last lines.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    node: Annotated[int, typer.Option(min=1, help="Whose, where there are several brokers.")] = 1,
) -> None:
    """Print the end of Kafka's log."""
    with exit_on_error():
        from pf_stream.kafka.dev import DevCluster

        place = _found(data_dir)
        path = place.log_path(node) if isinstance(place, DevCluster) else place.log_path
        if not path.exists():
            raise NotFoundError(f"no log at {path}: no broker has been started there")
        _print_log(path, lines, follow=follow)


@app.command(epilog="Examples:\n\npf dev reset\n\npf dev reset --yes --data-dir ./kafka")
def reset(
    data_dir: DataDirOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Stop Kafka and delete all its topics and records."""
    with exit_on_error():
        broker = _found(data_dir)
        if not yes:
            typer.confirm(f"Delete all topics and records in {broker.data_dir}?", abort=True, err=True)
        broker.reset()
        note("deleted what was in {}", broker.data_dir)


def _found(data_dir: Path | None) -> "DevBroker | DevCluster":
    """What the folder holds."""
    from pf_stream.kafka.dev import DevBroker, DevCluster

    cluster = DevCluster(data_dir)
    return cluster if cluster.exists else DevBroker(data_dir)


def _show_cluster(cluster: "DevCluster", output: Output) -> None:
    """Print a line for each node; the exit code as of ``status``: 5 if some run and others do not."""
    from pf_stream.kafka.dev import BrokerState

    rows: list[dict[str, Any]] = []
    for node, found in enumerate(cluster.status(), 1):
        broker: dict[str, Any] = _plain(found.broker) if found.broker else {}
        names = ("bootstrap_servers", "pid", "version", "started_at")
        rows.append(
            {"node": node, "state": found.state.value}
            | {name: broker.get(name) for name in names}
            | {"uptime_s": found.uptime_s, "rss_bytes": found.rss_bytes}
        )
    states = {row["state"] for row in rows}
    if output is Output.table:
        show_rows(rows, output, list(rows[0]))
    else:
        state = states.pop() if len(states) == 1 else BrokerState.unhealthy.value
        show({"state": state, "data_dir": str(cluster.data_dir), "brokers": rows}, output)
        states = {state}
    if states != {BrokerState.running.value}:
        raise typer.Exit(EXIT_NOT_FOUND if states == {BrokerState.stopped.value} else EXIT_UNHEALTHY)


class _Reporter:
    """Progress of a start on stderr: a bar in a terminal, else a line now and then."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("downloading Kafka")
        self._said = ""

    def __enter__(self) -> "_Reporter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, step: "Step") -> None:
        from pf_stream.kafka.dev import Stage

        if step.stage is not Stage.downloading:
            self._bar.stop()  # a line must not be printed across it
        match step.stage:
            case Stage.downloading:
                self._bar.start()
                self._bar.update(self._task, completed=step.done, total=step.total)
                quarters = step.done * 4 // step.total
                self._say(
                    f"downloading Kafka, {step.total / 1e6:.0f} MB: {quarters * 25} %" if self._bar.disable else ""
                )
            case Stage.waiting:
                self._say("waiting for another pf process that is at the same")
            case Stage.stale:
                self._say("the last broker has gone without being stopped")
            case Stage.starting:
                self._say("starting Kafka")
            case Stage.running:
                self._say("Kafka is running already")

    def _say(self, text: str) -> None:
        if text and text != self._said:
            note("{}", text)
            self._said = text


def _plain(value: Any) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        return str(value) if isinstance(value, Path) else value

    return {name: plain(item) for name, item in dataclasses.asdict(value).items()}


def _print_log(path: Path, lines: int, *, follow: bool) -> None:
    log = path.open(encoding="utf-8", errors="replace")
    try:
        end = log.readlines()
        sys.stdout.write("".join(end[-lines:] if lines else []))
        while follow:
            sys.stdout.flush()
            time.sleep(_FOLLOW_S)
            sys.stdout.write(log.read())
            if path.exists() and not os.path.samestat(path.stat(), os.fstat(log.fileno())):
                log.close()  # a new start began a new file
                log = path.open(encoding="utf-8", errors="replace")
    finally:
        log.close()
