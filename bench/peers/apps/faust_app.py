"""The jobs on stock Faust: an agent and a table."""

import os

import faust
import orjson

APP, OUTPUT = os.environ["BENCH_APP"], os.environ.get("BENCH_OUTPUT")
PARTITIONS = 4

app = faust.App(
    APP,
    broker=f"kafka://{os.environ['BENCH_SERVERS']}",
    store="memory://",
    datadir=os.environ["BENCH_FOLDER"],
    topic_partitions=PARTITIONS,
    topic_replication_factor=1,
    topic_disable_leader=True,
    broker_commit_interval=1.0,
    web_enabled=False,
)
balances = app.Table("balances", default=dict, partitions=PARTITIONS, key_type=bytes)
posted = app.topic(os.environ["BENCH_SOURCE"], key_type=bytes)
balanced = app.topic(OUTPUT, key_type=bytes, value_type=bytes, value_serializer="raw") if OUTPUT else None


@app.agent(posted)
async def post(stream: faust.StreamT[dict[str, object]]) -> None:
    async for event in stream.events():
        intent, key = event.value, event.key
        before = balances.get(key) or {"count": 0, "total": 0}
        balance = {"count": before["count"] + 1, "total": before["total"] + intent["amount"]}
        balances[key] = balance
        if balanced is not None:
            value = {
                "account": intent["account"],
                "tenant": intent["tenant"],
                "branch": intent["branch"],
                **balance,
                "seq": intent["seq"],
            }
            headers = [
                ("ce_specversion", b"1.0"),
                ("ce_type", b"bench.balanced.v1"),
                ("ce_source", b"/faust"),
                ("ce_id", b"%d" % intent["seq"]),
                ("content-type", b"application/json"),
            ]
            await balanced.send(key=key, value=orjson.dumps(value), headers=headers)


if __name__ == "__main__":
    app.worker_init()
    faust.Worker(app, loglevel="ERROR").execute_from_commandline()
