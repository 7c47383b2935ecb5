"""The training run that makes the AOT cache: ``python -m pf_stream.kafka.dev._train``.

``up`` starts it, detached. It runs a broker of its own in a scratch folder and does in it what most first
minutes do, so that those classes are in the cache. Its broker dies with it, however it ends.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from filelock import FileLock, Timeout

from pf_stream.kafka.dev.aot import aot_path
from pf_stream.kafka.dev.artifacts import fetch, load_lock
from pf_stream.kafka.dev.java import Java, find_java
from pf_stream.kafka.dev.launch import Launch
from pf_stream.kafka.dev.process import JAVA_OPTIONS
from pf_stream.kafka.dev.storage import DataDir, jars_dir

_START_S = 180.0
_ASSEMBLY_S = 300.0
_KEPT = 2


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # unwinds: the scratch folder is removed
    os.nice(19)  # the user has just started a broker, to work with it
    os.environ.pop(JAVA_OPTIONS, None)  # the cache is for brokers without them too
    java = find_java()
    jars = fetch(load_lock().artifacts, jars_dir())
    path = aot_path(java, jars)
    if path is None:
        return
    try:
        with FileLock(path.with_suffix(".lock"), timeout=0):
            if not path.exists():
                _train(java, jars, path)
    except Timeout:
        return  # another one is at it


def _train(java: Java, jars: Sequence[Path], path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="aot-") as scratch:
        made = Path(scratch) / "cache"
        launch = Launch(java, jars, DataDir(Path(scratch)), _START_S, lambda _: None)
        record, process = launch.run(None, [f"-XX:AOTCacheOutput={made}"], guarded=True)
        try:
            _use(f"127.0.0.1:{record.port}")
            process.end(grace=_ASSEMBLY_S)  # the JVM writes the cache on its way out
        except BaseException:
            process.end(grace=0)
            raise
        made.replace(path)
    # Each runtime and each lock has its own, of some 70 MB.
    for old in sorted(path.parent.glob("*.aot"), key=lambda aot: aot.stat().st_mtime)[:-_KEPT]:
        old.unlink(missing_ok=True)


def _use(servers: str) -> None:
    """Topic, idempotent and transactional records, a consumer group: the classes behind them are loaded."""
    admin = AdminClient({"bootstrap.servers": servers})
    admin.create_topics([NewTopic("t", 1, 1)])["t"].result(30)
    producer = Producer({"bootstrap.servers": servers, "transactional.id": "t", "compression.type": "lz4"})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce("t", b"value", key=b"key")
    producer.commit_transaction(30)
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "t", "auto.offset.reset": "earliest"})
    consumer.subscribe(["t"])
    message = consumer.poll(30)
    if message is not None:
        consumer.commit(message=message, asynchronous=False)
    consumer.close()


if __name__ == "__main__":
    main()
