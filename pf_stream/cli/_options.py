"""Options that several commands have, each defined once."""

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pf_stream.model._periods import duration_ms

if TYPE_CHECKING:
    from pf_stream.kafka.link import ConnectionSettings
    from pf_stream.model import Topology

__all__ = [
    "BootstrapOption",
    "ExecuteOption",
    "NamespaceOption",
    "TopologyArgument",
    "TopologyOption",
    "connection",
    "instant_ms",
    "load",
    "read_context",
    "read_file",
    "seconds",
    "utc",
]

DEFAULT_BOOTSTRAP = "127.0.0.1:9092"

BootstrapOption = Annotated[
    str | None,
    typer.Option(
        "--bootstrap-servers",
        "-b",
        envvar="PF_BOOTSTRAP_SERVERS",
        metavar="HOST:PORT",
        help="Kafka brokers, comma separated. PF_SECURITY_PROTOCOL, PF_SASL_* and PF_CA_FILE secure the connection.",
        show_default="the running pf dev broker, else 127.0.0.1:9092",
    ),
]

NamespaceOption = Annotated[
    str | None,
    typer.Option(envvar="PF_NAMESPACE", help="First part of topic names.", show_default="what the topology says"),
]

TopologyArgument = Annotated[str, typer.Argument(metavar="TOPOLOGY", help="A .yaml file, or module:name.")]

TopologyOption = Annotated[
    str, typer.Option("--topology", "-t", envvar="PF_TOPOLOGY", help="A .yaml file, or module:name.")
]

ExecuteOption = Annotated[bool, typer.Option("--execute", help="Do it; without it nothing is written.")]


def load(target: str, namespace: str | None) -> "Topology":
    """The topology that the arguments name."""
    from pf_stream.topology import load_topology

    topology = load_topology(target)
    return topology if namespace is None else topology.within(namespace)


def connection(bootstrap_servers: str | None, environment: Mapping[str, str] | None = None) -> "ConnectionSettings":
    """How to reach Kafka: the flag, else the broker of ``pf dev``; security from ``PF_*`` variables."""
    from pf_stream.errors import ConfigurationError
    from pf_stream.kafka.link import ConnectionSettings
    from pf_stream.worker.logs import configure_logging

    configure_logging()  # whoever talks to Kafka may be told of trouble, which must not end up in what is piped on
    env = os.environ if environment is None else environment
    protocol = env.get("PF_SECURITY_PROTOCOL", "PLAINTEXT").upper()
    known = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
    if protocol not in known:
        raise ConfigurationError(f"PF_SECURITY_PROTOCOL is {protocol!r}; allowed: {', '.join(known)}")
    if protocol.startswith("SASL"):
        for name in ("PF_SASL_USERNAME", "PF_SASL_PASSWORD"):
            if name not in env:
                raise ConfigurationError(f"PF_SECURITY_PROTOCOL={protocol} needs {name}")
    return ConnectionSettings(
        bootstrap_servers=bootstrap_servers or _dev_broker(env) or DEFAULT_BOOTSTRAP,
        security_protocol=protocol,
        sasl_mechanism=env.get("PF_SASL_MECHANISM", "PLAIN").upper(),
        sasl_username=env.get("PF_SASL_USERNAME"),
        sasl_password=env.get("PF_SASL_PASSWORD"),
        ca_file=env.get("PF_CA_FILE"),
    )


def _dev_broker(env: Mapping[str, str]) -> str | None:
    from pf_stream.errors import ConfigurationError

    try:
        from pf_stream.kafka.dev import BrokerState, DevBroker
    except ConfigurationError:  # the extra is not installed, so there is no such broker
        return None
    folder = env.get("PF_DEV_DATA_DIR")
    status = DevBroker(Path(folder) if folder else None).status()
    if status.state is BrokerState.running and status.broker is not None:
        return status.broker.bootstrap_servers
    return None


def read_context(name: str) -> str:
    """The token in a file, or of the standard input for ``-``."""
    # An editor or echo ends a file with a new line; anything else that is not ASCII is refused where the token is read.
    return read_file(name).decode("ascii", "replace").strip()


def read_file(name: str) -> bytes:
    """What is in a file, or on the standard input for ``-``."""
    from pf_stream.errors import ConfigurationError, NotFoundError

    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"{name}: there is no such file") from None
    except OSError as error:
        raise ConfigurationError(f"{name}: cannot be read: {error.strerror}") from None


def seconds(duration: str, option: str) -> float:
    """Seconds of a duration such as 500ms, 10s or 5m, as *option* was given."""
    found = duration_ms(duration)
    if found is None:
        raise typer.BadParameter(f"{duration!r} is not a duration; write it as 500ms, 10s or 5m", param_hint=option)
    return found / 1000


def instant_ms(text: str, option: str, now_ms: int) -> int:
    """Milliseconds since the epoch of an RFC 3339 time with a zone, or of a duration ago such as 2h, as *option* was given."""
    from pf_stream.model.context import parse_time_ms

    ago_ms = duration_ms(text)
    found = parse_time_ms(text.encode()) if ago_ms is None else now_ms - ago_ms
    if found is None:
        fault = f"{text!r} is no time; write it as 30m, 2h or 1d (ago), or as 2026-01-31T12:00:00Z"
        raise typer.BadParameter(fault, param_hint=option)
    return found


def utc(time_ms: int) -> str:
    """RFC 3339 in UTC of milliseconds since the epoch."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
