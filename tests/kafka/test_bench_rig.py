"""The generator and reader of latency runs, with an engine that takes a known time."""

import json
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition

from bench.peers.rig import Heard, Spec
from bench.peers.workload import CONTEXT
from pf_stream.kafka.admin import Admin, NewTopicSpec
from pf_stream.kafka.link import ConnectionSettings

DELAY_S = 0.15
PARTITIONS = 4
RATE = 200


def echo(servers: str, source: str, output: str, over: threading.Event) -> None:
    """Writes each record to *output* after a while."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": source, "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(source, number, 0) for number in range(PARTITIONS)])
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 0})
    held: deque[tuple[float, int, bytes]] = deque()
    while not over.is_set():
        message = consumer.poll(0.002)
        if message is not None and message.error() is None:
            sent = json.loads(message.value() or b"")
            value = json.dumps({"account": sent["account"], "seq": sent["seq"]}).encode()
            held.append((time.monotonic() + DELAY_S, message.partition() or 0, value))
        while held and held[0][0] <= time.monotonic():
            _, partition, value = held.popleft()
            producer.produce(output, value, partition=partition)
        producer.poll(0)
    consumer.close()


def test_what_an_engine_takes_is_what_is_measured(bootstrap_servers: str, unique: str, tmp_path: Path) -> None:
    source, output = f"{unique}.in", f"{unique}.out"
    Admin(ConnectionSettings(bootstrap_servers)).create(
        [NewTopicSpec(source, PARTITIONS, {}), NewTopicSpec(output, PARTITIONS, {})], 1
    )
    (tmp_path / "tokens").write_bytes(b"\n".join(b"token%d" % number for number in range(1000)))
    spec = Spec(
        servers=bootstrap_servers,
        source=source,
        output=output,
        partitions=PARTITIONS,
        tokens=str(tmp_path / "tokens"),
        context=CONTEXT,
        rate=RATE,
        warm_s=0.5,
        measure_s=2,
        began=str(tmp_path / "began"),
        linger_s=0.005,
        pause_s=0.002,
    )
    over = threading.Event()
    engine = threading.Thread(target=echo, args=(bootstrap_servers, source, output, over))
    engine.start()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bench.peers.rig", json.dumps(asdict(spec))],
            capture_output=True,
            check=True,
            text=True,
            timeout=60,
        )
    finally:
        over.set()
        engine.join()
    heard = Heard(**json.loads(done.stdout))
    assert Path(spec.began).exists()
    assert heard.sent > 2.4 * RATE
    assert (heard.answered, heard.repeated) == (heard.sent, 0)
    assert DELAY_S * 1000 <= heard.p50_ms <= heard.p99_ms <= heard.most_ms < 30_000
