"""Kafka requests over a plain socket: what sends and reads records here must leave the broker its core.

Source: https://kafka.apache.org/protocol, Produce version 3 and Fetch version 4, the oldest that brokers of Kafka 4 take.
"""

import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Final

__all__ = ["Wire"]

_PRODUCE: Final = 0
_FETCH: Final = 1
_READ_COMMITTED: Final = 1
_ACKS: Final = 1
_TIMEOUT_MS: Final = 30_000
_PARTITION_BYTES: Final = 4 << 20
_NOT_YET: Final = frozenset({0, 3, 5, 6})
"""Codes that are no fault: a topic that was just made has no leader for a moment. What was sent then is lost."""
_HEAD = struct.Struct(">ihhi")
_LENGTH = struct.Struct(">i")


class Wire:
    """One connection to the one broker that leads every partition."""

    def __init__(self, servers: str) -> None:
        host, _, port = servers.partition(":")
        self.socket = socket.create_connection((host, int(port)))
        """To wait for answers with ``select``."""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._name = _text("bench")

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def produce(self, topic: str, batches: Mapping[int, bytes]) -> None:
        """Send a batch for each partition; the answer comes later, see :meth:`produced`."""
        body = [struct.pack(">hhii", -1, _ACKS, _TIMEOUT_MS, 1), _text(topic), _LENGTH.pack(len(batches))]
        for partition, batch in batches.items():
            body += [struct.pack(">ii", partition, len(batch)), batch]
        self._send(_PRODUCE, 3, b"".join(body))

    def produced(self) -> None:
        """Read an answer; raises ``OSError`` if a batch was refused."""
        answer = self._receive()
        at = _LENGTH.size * 2  # of the correlation id and the one topic
        at += 2 + struct.unpack_from(">h", answer, at)[0]
        (partitions,) = _LENGTH.unpack_from(answer, at)
        for number in range(partitions):
            partition, error = struct.unpack_from(">ih", answer, at + _LENGTH.size + number * 22)
            if error not in _NOT_YET:
                raise OSError(f"partition {partition} takes no records: error {error}")

    def ask(self, topic: str, positions: Mapping[int, int], wait_ms: int) -> None:
        """Ask for committed records, which come as soon as there are any; see :meth:`fetched`."""
        body = [
            struct.pack(">iiiibi", -1, wait_ms, 1, _PARTITION_BYTES * 4, _READ_COMMITTED, 1),
            _text(topic),
            _LENGTH.pack(len(positions)),
        ]
        body += [struct.pack(">iqi", partition, offset, _PARTITION_BYTES) for partition, offset in positions.items()]
        self._send(_FETCH, 4, b"".join(body))

    def fetched(self) -> Iterator[tuple[int, bytes]]:
        """Read the answer: record batches of each partition that has some; raises ``OSError`` if there is no such thing."""
        answer = self._receive()
        at = _LENGTH.size * 3  # of the correlation id, the throttling and the one topic
        at += 2 + struct.unpack_from(">h", answer, at)[0]
        (partitions,) = _LENGTH.unpack_from(answer, at)
        at += _LENGTH.size
        for _ in range(partitions):
            partition, error, _, _, aborted = struct.unpack_from(">ihqqi", answer, at)
            if error not in _NOT_YET:
                raise OSError(f"partition {partition} cannot be read: error {error}")
            at += 26 + 16 * max(aborted, 0)
            (length,) = _LENGTH.unpack_from(answer, at)
            at += _LENGTH.size
            if length > 0:
                yield partition, answer[at : at + length]
            at += max(length, 0)

    def _send(self, key: int, version: int, body: bytes) -> None:
        request = _HEAD.pack(_HEAD.size - 4 + len(self._name) + len(body), key, version, 0) + self._name + body
        self.socket.sendall(request)

    def _receive(self) -> bytes:
        # No more than the one answer: what was read ahead would not show in a select.
        (length,) = _LENGTH.unpack(self.socket.recv(_LENGTH.size, socket.MSG_WAITALL))
        return self.socket.recv(length, socket.MSG_WAITALL)


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()
