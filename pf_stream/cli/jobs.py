"""``pf jobs``: jobs, when they run, and what can be asked of them."""

import dataclasses
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pf_stream.cli._errors import exit_on_error
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
from pf_stream.cli._states import ContextOption, OfflineOption, WorkerOption, opened
from pf_stream.model._names import nearest
from pf_stream.model.context import LATEST_MS

if TYPE_CHECKING:
    from pf_stream.components.stored import States
    from pf_stream.model import Intent, Topology
    from pf_stream.temporal.reactor import Jobs

app = typer.Typer()

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Its name.")]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--context",
        envvar="PF_CONTEXT",
        metavar="FILE",
        help="File with the token, which must grant TemporalCap.manage:/JOB; - is the standard input.",
    ),
]

_REACTOR = "jobs"
_COLUMNS = ("job", "next", "last", "late", "running", "trouble")
_TROUBLE = ("missed", "skipped", "failed", "cancelled", "overdue")


@app.command(
    name="list",
    epilog="Examples:\n\npf jobs list -t shop.yaml\n\npf jobs list -t shop.yaml --context ops.ctx -o json | jq '.[].next'",
)
def list_jobs(
    topology: TopologyOption,
    context: ContextOption = None,
    worker: WorkerOption = None,
    offline: OfflineOption = False,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """List the jobs that a topology declares and those made at run time, as of the last commit.

    With a token (--context), which must grant StateCap.read:/jobs/**, workers are asked; without one the changelog is read.
    """
    with exit_on_error():
        loaded = load(topology, namespace)
        reactor = _reactor(loaded)
        states = opened(loaded, context, worker, offline, bootstrap_servers)(_REACTOR)
        known = {row["job"]: row for row in _known(states)}
        rows = [known.get(name, {"job": name}) for name in sorted({*known, *reactor.declared})]
        if output is Output.table:
            show_rows([_short(row) for row in rows], output, _COLUMNS)
        else:
            show(rows, output)


@app.command(name="show", epilog="Examples:\n\npf jobs show nightly -t shop.yaml")
def show_job(
    job: JobArgument,
    topology: TopologyOption,
    context: ContextOption = None,
    worker: WorkerOption = None,
    offline: OfflineOption = False,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Show all that is known of a job as of the last commit. Exit code 3 if there is no such job, or no lane knows it yet."""
    with exit_on_error():
        loaded = load(topology, namespace)
        reactor = _reactor(loaded)
        states = opened(loaded, context, worker, offline, bootstrap_servers)(_REACTOR)
        show(_row(job, _state(states, reactor, job)), output)


@app.command(
    name="next",
    epilog="Examples:\n\npf jobs next nightly -t shop.yaml --count 5\n\n"
    "pf jobs next nightly -t shop.yaml --after 2026-10-24T00:00:00Z -o json",
)
def next_times(
    job: JobArgument,
    topology: TopologyOption,
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 5,
    after: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="From when on, as 2026-01-31T12:00:00Z or 2h ago.", show_default="now"),
    ] = None,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Show the next times of a job's timetable, paused or not. Kafka is asked only about a job made at run time."""
    with exit_on_error():
        from pf_stream.clock import WallClock

        loaded = load(topology, namespace)
        reactor = _reactor(loaded)
        found = reactor.declared.get(job)
        if found is None:
            states = opened(loaded, None, None, False, bootstrap_servers)(_REACTOR)
            found = reactor.build(job, _state(states, reactor, job)["made"])
        now_ms = WallClock().now_ms()
        after_ms = now_ms if after is None else instant_ms(after, "--after", now_ms)
        times = [] if found.timetable is None else islice(found.timetable.times(after_ms, LATEST_MS), count)
        rows = [{"nominal": utc(at_ms), "begins": utc(at_ms + found.delay_ms(at_ms))} for at_ms in times]
        show_rows(rows, output, ("nominal", "begins"))
        if not rows:
            note("{} has no time any more, or runs only when it is triggered", job)


@app.command(epilog="Examples:\n\npf jobs pause nightly -t shop.yaml --context ops.ctx")
def pause(
    job: JobArgument,
    topology: TopologyOption,
    context: TokenOption = None,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Let no time of a job begin a run, until it is resumed."""
    _send("temporal.pause", {"job": job}, topology, context, namespace, bootstrap_servers, output)


@app.command(epilog="Examples:\n\npf jobs resume nightly -t shop.yaml --context ops.ctx")
def resume(
    job: JobArgument,
    topology: TopologyOption,
    context: TokenOption = None,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Let a job go on with its next time; those that passed meanwhile are left out."""
    _send("temporal.resume", {"job": job}, topology, context, namespace, bootstrap_servers, output)


@app.command(epilog="Examples:\n\npf jobs trigger nightly -t shop.yaml --context ops.ctx")
def trigger(
    job: JobArgument,
    topology: TopologyOption,
    context: TokenOption = None,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Run a job now, paused or not."""
    _send("temporal.trigger", {"job": job}, topology, context, namespace, bootstrap_servers, output)


@app.command(epilog="Examples:\n\npf jobs cancel nightly -t shop.yaml --context ops.ctx")
def cancel(
    job: JobArgument,
    topology: TopologyOption,
    context: TokenOption = None,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Take a job's runs that are under way for over, and do none that waits."""
    _send("temporal.cancel", {"job": job}, topology, context, namespace, bootstrap_servers, output)


@app.command(
    epilog="Examples:\n\npf jobs backfill nightly -t shop.yaml --from 7d\n\n"
    "pf jobs backfill nightly -t shop.yaml --from 2026-03-01T00:00:00Z --until 2026-03-08T00:00:00Z --context ops.ctx --execute"
)
def backfill(
    job: JobArgument,
    topology: TopologyOption,
    start: Annotated[str, typer.Option("--from", metavar="TIME", help="The first time, or how long ago: 7d.")],
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Before which the last time lies.", show_default="now")
    ] = None,
    execute: Annotated[
        bool, typer.Option("--execute", help="Do it; without it the times of a declared job are shown.")
    ] = False,
    context: TokenOption = None,
    namespace: NamespaceOption = None,
    bootstrap_servers: BootstrapOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Run a job for all its times in a span that has passed, one after the other."""
    with exit_on_error():
        from pf_stream.clock import WallClock

        now_ms = WallClock().now_ms()
        start_ms = instant_ms(start, "--from", now_ms)
        end_ms = now_ms if until is None else instant_ms(until, "--until", now_ms)
        if not execute:
            found = _reactor(load(topology, namespace)).declared.get(job)
            table = None if found is None else found.timetable
            times = [] if table is None else table.times(start_ms - 1, end_ms - 1)
            show_rows([{"nominal": utc(at_ms)} for at_ms in times], output, ("nominal",))
            note("nothing is sent without --execute")
            return
    data = {"job": job, "start": utc(start_ms), "end": utc(end_ms)}
    _send("temporal.backfill", data, topology, context, namespace, bootstrap_servers, output)


def _send(
    type_: str,
    data: dict[str, Any],
    topology: str,
    context: str | None,
    namespace: str | None,
    servers: str | None,
    output: Output,
) -> None:
    with exit_on_error():
        from pf_stream.clock import WallClock
        from pf_stream.components import messaging

        loaded = load(topology, namespace)
        declared = _reactor(loaded).declared
        if data["job"] not in declared:
            near = nearest(data["job"], declared)
            note(
                "[yellow]warning[/yellow]: the topology declares no job {}{}; it is for one made at run time",
                data["job"],
                near,
            )
        intent: Intent = messaging.find_intent(loaded, type_).model.model_validate(data)
        token = None if context is None else read_context(context)
        if token is None:
            note("[yellow]warning[/yellow]: without --context it will be refused")
        sent = messaging.send_intent(connection(servers), loaded, intent, WallClock(), context=token)
        show({"status": "sent", **dataclasses.asdict(sent)}, output)


def _reactor(topology: "Topology") -> "type[Jobs]":
    from pf_stream.errors import NotFoundError
    from pf_stream.temporal.reactor import Jobs

    for reactor in topology.reactors:
        if issubclass(reactor, Jobs):
            return reactor
    raise NotFoundError(f"topology {topology.name!r} has no jobs")


def _state(states: "States", reactor: "type[Jobs]", job: str) -> dict[str, Any]:
    from pf_stream.components.stored import StateNotFoundError, read_state
    from pf_stream.errors import NotFoundError

    try:
        state: dict[str, Any] = read_state(states, job).state
        return state
    except StateNotFoundError:
        if job in reactor.declared:
            raise NotFoundError(f"no lane knows the job {job!r} yet: no worker has run since it was declared") from None
        raise NotFoundError(f"there is no job {job!r}{nearest(job, reactor.declared)}") from None


def _known(states: "States") -> Iterator[dict[str, Any]]:
    import orjson

    from pf_stream.components.stored import export_line

    for stored in states.all(""):
        line = orjson.loads(export_line(states.spec, stored))
        yield _row(line["key"], line["state"])


def _row(job: str, state: dict[str, Any]) -> dict[str, Any]:
    """A job's state for people: times as times."""
    import orjson

    definition, made = state.pop("definition"), state.pop("made")
    del state["backfilled_ms"]  # how far a backfill is, *backfill* says
    state["timetable"] = orjson.loads(definition)["timetable"] if definition else None
    state["made"] = orjson.loads(made) if made else None
    times = {name: state.pop(f"{name}_ms") for name in ("next", "last", "waiting", "backfill", "backfill_end")}
    state["running"] = sorted(utc(int(nominal_ms)) for nominal_ms in state["running"])
    return {"job": job, **{name: None if ms is None else utc(ms) for name, ms in times.items()}, **state}


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """What a list shows of a job."""
    if len(row) == 1:
        return dict.fromkeys(_COLUMNS) | row | {"trouble": "no lane knows it yet"}
    trouble = ", ".join(f"{row[name]} {name}" for name in _TROUBLE if row[name])
    return {
        "job": row["job"],
        "next": "paused" if row["paused"] else row["next"] and row["next"].replace(".000Z", "Z"),
        "last": row["last"] and row["last"].replace(".000Z", "Z"),
        "late": f"{row['late_ms']} ms" if row["last"] else None,
        "running": len(row["running"]),
        "trouble": trouble or None,
    }
