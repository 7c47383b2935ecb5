"""Where commands read the states of reactors: from workers, or from changelogs."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from pf_stream.cli._options import connection, read_context

if TYPE_CHECKING:
    from pf_stream.components.stored import States
    from pf_stream.model import Topology

__all__ = ["ContextOption", "OfflineOption", "WorkerOption", "asks_workers", "opened"]

ContextOption = Annotated[
    str | None,
    typer.Option(
        "--context",
        envvar="PF_CONTEXT",
        metavar="FILE",
        help="Ask a worker, with the token in this file, which must grant StateCap.read; - is the standard input.",
        show_default="read the changelog",
    ),
]
WorkerOption = Annotated[
    str | None,
    typer.Option(
        "--worker",
        metavar="URL",
        help="The worker to ask, as http://127.0.0.1:8081; it knows which one has what.",
        show_default="one on this machine, from the registry",
    ),
]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Read the changelog, token or not; no worker need run.", show_default=False)
]


def asks_workers(context: str | None, worker: str | None, offline: bool) -> bool:
    """Whether states are read from workers; this depends on what the command was given, and on nothing else."""
    if worker is not None and (context is None or offline):
        raise typer.BadParameter("a worker wants a token: --context; and --offline asks none", param_hint="--worker")
    return context is not None and not offline


def opened(
    loaded: "Topology", context: str | None, worker: str | None, offline: bool, servers: str | None
) -> "Callable[[str], States]":
    """Where the states of a reactor are read, by its id."""
    if not asks_workers(context, worker, offline):
        from pf_stream.components.stored import ChangelogStates

        return partial(ChangelogStates, connection(servers), loaded)
    from pf_stream.clock import WallClock
    from pf_stream.components.live import LiveStates, find_worker, worker_port

    assert context is not None
    token = read_context(context)
    port = find_worker(connection(servers), loaded, WallClock().now_ms()) if worker is None else worker_port(worker)
    return lambda reactor: LiveStates(loaded, reactor, token, port)
