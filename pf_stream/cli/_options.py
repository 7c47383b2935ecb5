"""Options that several commands have, each defined once."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pf_stream.kafka.link import ConnectionSettings
    from pf_stream.model import Topology

__all__ = [
    "BootstrapOption",
    "NamespaceOption",
    "TopologyArgument",
    "TopologyOption",
    "connection",
    "load",
]

DEFAULT_BOOTSTRAP = "127.0.0.1:9092"

BootstrapOption = Annotated[
    str | None,
    typer.Option(
        "--bootstrap-servers",
        "-b",
        envvar="PF_BOOTSTRAP_SERVERS",
        metavar="HOST:PORT",
        help="Kafka brokers, comma separated.",
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


def load(target: str, namespace: str | None) -> "Topology":
    """The topology that the arguments name."""
    from pf_stream.topology import load_topology

    topology = load_topology(target)
    return topology if namespace is None else topology.within(namespace)


def connection(bootstrap_servers: str | None, environment: Mapping[str, str] | None = None) -> "ConnectionSettings":
    """How to reach Kafka: the flag, else the broker of ``pf dev``; security from ``PF_*`` variables."""
    from pf_stream.errors import ConfigurationError
    from pf_stream.kafka.link import ConnectionSettings

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
