"""Why a server cannot be talked to: name, network, TLS, or what listens there. For people who look for a fault.

Kafka clients say for most of these that no broker answers. Here each step is taken by itself: the name is looked up, a
connection is made, and TLS is tried, also where none is configured.
"""

import enum
import socket
import ssl
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from pf_stream.kafka.link import ConnectionSettings

__all__ = ["Obstacle", "Obstruction", "connects", "obstruction"]

TIMEOUT_S: Final = 3.0


class Obstruction(enum.StrEnum):
    """The first step that fails."""

    address = "address"
    """It is no host and port."""
    name = "name"
    """The host is not known."""
    refused = "refused"
    """Nothing listens there."""
    network = "network"
    """The host cannot be reached, or does not answer."""
    certificate = "certificate"
    """Its certificate is not trusted."""
    no_tls = "no_tls"
    """TLS is configured, and it does not speak that."""
    tls = "tls"
    """No TLS is configured, and it speaks that."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What is in the way."""

    what: Obstruction
    """In one word."""
    detail: str
    """What the system says."""


def connects(server: str) -> Obstacle | None:
    """What keeps this machine from a connection to *server* (``HOST:PORT``); None if one can be made."""
    found = _connection(server)
    if isinstance(found, Obstacle):
        return found
    found.close()
    return None


def obstruction(server: str, settings: ConnectionSettings) -> Obstacle | None:
    """What keeps this machine from talking to *server* (``HOST:PORT``) as *settings* say; None if nothing is found.

    Takes some seconds at most. Kafka's own protocol, and with it authentication, is not tried.
    """
    connection = _connection(server)
    if isinstance(connection, Obstacle):
        return connection
    host = connection.getpeername()[0] if server.startswith("[") else server.rpartition(":")[0].strip()
    with closing(connection):
        if settings.security_protocol.endswith("SSL"):
            return _tls(connection, host, ssl.create_default_context(cafile=settings.ca_file))
        anyone = ssl.create_default_context()
        anyone.check_hostname = False
        anyone.verify_mode = ssl.CERT_NONE
        spoken = _tls(connection, host, anyone) is None
        return Obstacle(Obstruction.tls, "it answers a TLS handshake") if spoken else None


def _connection(server: str) -> socket.socket | Obstacle:
    host, colon, port = server.strip().rpartition(":")
    if not colon or not port.isdecimal():
        return Obstacle(Obstruction.address, "it is not written as HOST:PORT")
    try:
        return socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S)
    except socket.gaierror as error:
        return Obstacle(Obstruction.name, error.strerror or str(error))
    except ConnectionRefusedError:
        return Obstacle(Obstruction.refused, "connection refused")
    except (OSError, OverflowError) as error:
        return Obstacle(Obstruction.network, str(error))


def _tls(connection: socket.socket, host: str, context: ssl.SSLContext) -> Obstacle | None:
    try:
        context.wrap_socket(connection, server_hostname=host).close()
    except ssl.SSLCertVerificationError as error:
        return Obstacle(Obstruction.certificate, error.verify_message)
    except OSError as error:
        return Obstacle(Obstruction.no_tls, str(error))
    return None
