"""The jobs on Quix Streams: a stateful dataframe."""

import os
from typing import Any

from quixstreams import Application, State

APP, OUTPUT = os.environ["BENCH_APP"], os.environ.get("BENCH_OUTPUT")

app = Application(
    broker_address=os.environ["BENCH_SERVERS"],
    consumer_group=APP,
    auto_offset_reset="earliest",
    state_dir=os.environ["BENCH_FOLDER"],
    processing_guarantee=os.environ["BENCH_GUARANTEE"],
    commit_interval=float(os.environ["BENCH_COMMIT_S"]),
    loglevel="ERROR",
)


def post(intent: dict[str, Any], state: State) -> dict[str, Any]:
    before = state.get("balance") or {"count": 0, "total": 0}
    balance = {"count": before["count"] + 1, "total": before["total"] + intent["amount"]}
    state.set("balance", balance)
    return {
        "account": intent["account"],
        "tenant": intent["tenant"],
        "branch": intent["branch"],
        **balance,
        "seq": intent["seq"],
    }


def headers(balanced: dict[str, Any], *_: object) -> list[tuple[str, bytes]]:
    return [
        ("ce_specversion", b"1.0"),
        ("ce_type", b"bench.balanced.v1"),
        ("ce_source", b"/quix"),
        ("ce_id", b"%d" % balanced["seq"]),
        ("content-type", b"application/json"),
    ]


balances = app.dataframe(app.topic(os.environ["BENCH_SOURCE"], key_deserializer="bytes", value_deserializer="json"))
balances = balances.apply(post, stateful=True)
if OUTPUT:
    balances = balances.set_headers(headers)
    balances = balances.to_topic(app.topic(OUTPUT, key_serializer="bytes", value_serializer="json"))

if __name__ == "__main__":
    app.run()
