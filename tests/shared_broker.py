"""One Kafka for all processes of a run of tests: each broker more takes memory, and a share of a core for nothing."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pf_stream.kafka.dev import DevCluster

PATIENT = {"broker.session.timeout.ms": "30000"}
"""For a broker that nobody kills: where many wait for a core, a second without a heartbeat must not fence it."""


@contextmanager
def shared_broker(folder: Path) -> Iterator[str]:
    """Bootstrap servers of the one broker of all who name the same *folder* at a time.

    Who comes first starts it, and ends it when the others have gone. Each holds a lock meanwhile, which goes with its
    process, however that ends.
    """
    with (folder / "kafka").open("a+", encoding="ascii") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                fcntl.flock(file, fcntl.LOCK_SH)  # waits for one that starts it, or ends it
            else:
                break
            file.seek(0)
            if servers := file.read():
                yield servers
                return
            fcntl.flock(file, fcntl.LOCK_UN)
        file.truncate(0)
        with DevCluster.temporary(1, settings=PATIENT) as broker:
            file.write(broker.bootstrap_servers)
            file.flush()
            fcntl.flock(file, fcntl.LOCK_SH)
            yield broker.bootstrap_servers
            fcntl.flock(file, fcntl.LOCK_EX)  # waits for the others
            file.truncate(0)
