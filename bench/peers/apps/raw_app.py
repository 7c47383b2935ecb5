"""The counter on aiokafka alone: no changelog, no transaction, no output. What Python can do at most."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import orjson
import pydantic
from aiokafka import AIOKafkaConsumer


class Posted(pydantic.BaseModel):
    account: str
    tenant: str
    branch: str
    amount: int
    currency: str
    seq: int
    memo: str


class Balance:
    __slots__ = ("count", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0


def count(messages: list[Any], balances: dict[bytes, Balance]) -> None:
    for message in messages:
        amount = orjson.loads(message.value)["amount"]
        balance = balances.get(message.key)
        if balance is None:
            balance = balances[message.key] = Balance()
        balance.count += 1
        balance.total += amount


def count_validated(messages: list[Any], balances: dict[bytes, Balance]) -> None:
    decode = Posted.__pydantic_validator__.validate_json
    for message in messages:
        amount = decode(message.value).amount
        balance = balances.get(message.key)
        if balance is None:
            balance = balances[message.key] = Balance()
        balance.count += 1
        balance.total += amount


def keep(balances: dict[bytes, Balance]) -> None:
    lines = (json.dumps([key.decode(), one.count, one.total]) + "\n" for key, one in balances.items())
    with (Path(os.environ["BENCH_FOLDER"]) / "balances.jsonl").open("w", encoding="ascii") as file:
        file.writelines(lines)


async def main() -> None:
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    take = count_validated if "BENCH_VALIDATED" in os.environ else count
    balances: dict[bytes, Balance] = {}
    consumer = AIOKafkaConsumer(
        os.environ["BENCH_SOURCE"],
        bootstrap_servers=os.environ["BENCH_SERVERS"],
        group_id=os.environ["BENCH_APP"],
        auto_offset_reset="earliest",
        auto_commit_interval_ms=200,  # nothing depends on it but the meter, which is that of all engines
        max_partition_fetch_bytes=4 << 20,
    )
    await consumer.start()
    while not asked.is_set():
        for messages in (await consumer.getmany(timeout_ms=200, max_records=4000)).values():
            take(messages, balances)
    await consumer.stop()
    keep(balances)


if __name__ == "__main__":
    asyncio.run(main())
