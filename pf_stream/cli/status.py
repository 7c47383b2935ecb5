"""``pf status``: how the workers and their lanes do."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pf_stream.cli._errors import EXIT_UNHEALTHY, exit_on_error
from pf_stream.cli._options import BootstrapOption, NamespaceOption, connection, load, utc
from pf_stream.cli._output import Output, OutputOption, note, show, show_rows

if TYPE_CHECKING:
    from pf_stream.components.status import WorkerStatus
    from pf_stream.core.status import LaneStatus, SinkStatus, TableStatus

COLUMNS = ("worker", "lane", "lag", "per s", "p99", "state")

EPILOG = (
    "Examples:\n\npf status\n\npf status topologies/flights/topology.yaml\n\n"
    "pf status flights:flights -o json | jq -r '.workers[].lanes[] | select(.state == \"stopped\") | .reason'"
)


def status(
    topology: Annotated[
        str | None, typer.Argument(metavar="[TOPOLOGY]", help="Only its workers: a .yaml file, or module:name.")
    ] = None,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Show the workers and what their lanes do, as they told a few seconds ago at most.

    Exit code 5 if a worker is lost, a lane has stopped or gets nothing to read, or a lane of the topology has
    no worker.
    """
    with exit_on_error():
        from pf_stream.clock import WallClock
        from pf_stream.components.status import read_status

        now_ms = WallClock().now_ms()
        loaded = None if topology is None else load(topology, namespace)
        found = read_status(connection(bootstrap_servers), loaded, now_ms)
        if output is Output.table:
            rows = [row for worker in found.workers for row in _rows(worker, now_ms)]
            rows += [_row(None, lane, (), "no worker") for lane in found.unassigned]
            show_rows(rows, output, COLUMNS)
            if not rows:
                note("no worker has announced itself")
        else:
            workers = [_plain(worker) for worker in found.workers]
            show({"healthy": found.healthy, "workers": workers, "unassigned": list(found.unassigned)}, output)
        if not found.healthy:
            raise typer.Exit(EXIT_UNHEALTHY)


def _plain(worker: "WorkerStatus") -> dict[str, Any]:
    one = worker.component
    return {
        "worker": one.name,
        "app": one.app,
        "status": "lost" if worker.lost else "running",
        "started": utc(one.started_ms),
        "heartbeat": utc(one.heartbeat_ms),
        "lanes": [_plain_lane(lane) for lane in one.lanes],
        "sinks": [dataclasses.asdict(sink) | {"state": sink.state.value} for sink in one.sinks],
        "tables": [dataclasses.asdict(table) | {"state": table.state.value} for table in one.tables],
    }


def _plain_lane(lane: "LaneStatus") -> dict[str, Any]:
    plain = {"lane": lane.name, **dataclasses.asdict(lane)}
    until_ms = plain.pop("until_ms")
    return plain | {"state": lane.state.value, "until": until_ms and utc(until_ms)}


def _rows(worker: "WorkerStatus", now_ms: int) -> list[dict[str, Any]]:
    one = worker.component
    ago_s = max(0, now_ms - one.heartbeat_ms) // 1000
    state = f"lost: not heard of for {ago_s} s" if worker.lost else "running"
    lanes = () if worker.lost else one.lanes  # what it said of them then says nothing of now
    rows = [_row(one.name, None, lanes, state), *(_row(None, lane.name, (lane,), _state(lane)) for lane in lanes)]
    if worker.lost:
        return rows
    return [*rows, *map(_sink_row, one.sinks), *map(_table_row, one.tables)]


def _row(worker: str | None, name: str | None, lanes: "Sequence[LaneStatus]", state: str) -> dict[str, Any]:
    """A row for one lane, or for all that a worker has: their sums, and the slowest commit."""
    lags = [lane.lag for lane in lanes if lane.lag is not None]
    commits = [lane.commit_p99_ms for lane in lanes if lane.commit_p99_ms is not None]
    return {
        "worker": worker,
        "lane": name,
        "lag": sum(lags) if lags else None,
        "per s": round(sum(lane.rate for lane in lanes)) if lags else None,
        "p99": f"{max(commits):.0f} ms" if commits else None,
        "state": state,
    }


def _sink_row(sink: "SinkStatus") -> dict[str, Any]:
    because = sink.state.value if sink.reason is None else f"{sink.state.value}: {sink.reason}"
    dropped = sum((sink.dropped or {}).values())
    state = f"{because}, {dropped:,} dropped" if dropped else because
    return {"worker": None, "lane": f"> {sink.name}", "lag": sink.lag, "per s": None, "p99": None, "state": state}


def _table_row(table: "TableStatus") -> dict[str, Any]:
    bad = f", {table.bad:,} bad" if table.bad else ""
    state = f"{table.state.value}, {table.rows:,} rows{bad}"
    return {"worker": None, "lane": f"< {table.topic}", "lag": table.lag, "per s": None, "p99": None, "state": state}


def _state(lane: "LaneStatus") -> str:
    if lane.progress is not None:
        how = f"{lane.state.value} {lane.progress:.0%}".replace("%", " %")
        return how if lane.left_s is None else f"{how}, {lane.recovery_rate or 0:,.0f}/s, {lane.left_s:.0f} s left"
    if lane.until_ms is not None:
        return f"{lane.state.value} until {utc(lane.until_ms)}"
    because = " ".join(filter(None, (lane.code and f"{lane.code}:", lane.reason)))
    return f"{lane.state.value}: {because}" if because else lane.state.value
