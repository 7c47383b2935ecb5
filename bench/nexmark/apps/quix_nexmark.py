"""The queries on Quix Streams; BENCH_QUERY says which one."""

import os
import time
from typing import Any

from quixstreams import Application, State
from quixstreams.dataframe import StreamingDataFrame
from quixstreams.dataframe.windows import Count, Reduce

TEN_SECONDS = 10_000
APART = 2 * 24 * 3600 * 1000
"""What is read from several partitions comes in no order: its windows wait for what lags behind, and tell updates."""

app = Application(
    broker_address=os.environ["BENCH_SERVERS"],
    consumer_group=os.environ["BENCH_APP"],
    auto_offset_reset="earliest",
    state_dir=os.environ["BENCH_FOLDER"],
    processing_guarantee=os.environ["BENCH_GUARANTEE"],
    commit_interval=float(os.environ["BENCH_COMMIT_S"]),
    loglevel="ERROR",
)


def event_time(value: dict[str, Any], *_: object) -> int:
    time_ms: int = value["time_ms"]
    return time_ms


def processing_time(*_: object) -> int:
    return int(time.time() * 1000)


def read(name: str, timestamps: Any = event_time) -> StreamingDataFrame:
    return app.dataframe(
        app.topic(
            os.environ[f"BENCH_{name.upper()}"],
            key_deserializer="str",
            value_deserializer="json",
            timestamp_extractor=timestamps,
        )
    )


def by(frame: StreamingDataFrame, column: str) -> StreamingDataFrame:
    return frame.group_by(lambda value: str(value[column]), name=column, key_serializer="str", key_deserializer="str")


def q0() -> StreamingDataFrame:
    return read("bids")[["auction", "bidder", "price", "time_ms"]]


def q1() -> StreamingDataFrame:
    return read("bids").apply(
        lambda bid: {
            "auction": bid["auction"],
            "bidder": bid["bidder"],
            "price": bid["price"] * 89 // 100,
            "time_ms": bid["time_ms"],
        }
    )


def q2() -> StreamingDataFrame:
    return read("bids").filter(lambda bid: bid["auction"] % 123 == 0)[["auction", "price"]]


def q3() -> StreamingDataFrame:
    def match(value: dict[str, Any], state: State) -> list[dict[str, Any]]:
        if "seller" in value:
            person = state.get("person")
            auctions = [value["id"]]
            if person is None:
                state.set("auctions", [*state.get("auctions", []), value["id"]])
                return []
        else:
            person = {name: value[name] for name in ("name", "city", "state")}
            state.set("person", person)
            auctions = state.get("auctions", [])
            state.delete("auctions")
        return [{"id": auction, **person} for auction in auctions]

    persons = read("persons").filter(lambda person: person["state"] in {"OR", "ID", "CA"})
    auctions = read("auctions").filter(lambda auction: auction["category"] == 10)[["id", "seller"]]
    return persons.concat(by(auctions, "seller")).apply(match, stateful=True, expand=True)


def sold() -> StreamingDataFrame:
    """Auctions with their best bid, whenever it is a better one."""

    def follow(value: dict[str, Any], state: State) -> list[dict[str, Any]]:
        lot = state.get("lot") or {"auction": None, "best": 0, "early": []}
        if "auction" in value:
            if lot["auction"] is None:
                state.set("lot", {**lot, "early": [*lot["early"], (value["time_ms"], value["price"])]})
                return []
            bids = [(value["time_ms"], value["price"])]
        else:
            lot["auction"] = {name: value[name] for name in ("id", "seller", "category", "time_ms", "expires_ms")}
            bids, lot["early"] = lot["early"], []
        auction, before = lot["auction"], lot["best"]
        in_time = [price for at, price in bids if auction["time_ms"] <= at <= auction["expires_ms"]]
        lot["best"] = max([before, *in_time])
        state.set("lot", lot)
        return [{**auction, "price": lot["best"], "before": before}] if lot["best"] > before else []

    return read("bids").concat(read("auctions")).apply(follow, stateful=True, expand=True)


def q4() -> StreamingDataFrame:
    def average(auction: dict[str, Any], state: State) -> dict[str, Any]:
        total, count = state.get("mean", (0, 0))
        total += auction["price"] - auction["before"]
        count += auction["before"] == 0
        state.set("mean", (total, count))
        return {"category": auction["category"], "price": total / count}

    return by(sold(), "category").apply(average, stateful=True)


def q6() -> StreamingDataFrame:
    def average(auction: dict[str, Any], state: State) -> dict[str, Any]:
        others = [one for one in state.get("last", []) if one[1] != auction["id"]]
        last = sorted([*others, [auction["expires_ms"], auction["id"], auction["price"]]])[-10:]
        state.set("last", last)
        return {"seller": auction["seller"], "price": sum(price for _, _, price in last) / len(last)}

    return by(sold(), "seller").apply(average, stateful=True)


def q5() -> StreamingDataFrame:
    def hottest(one: dict[str, Any], state: State) -> dict[str, Any]:
        before: dict[str, Any] = state.get("hottest", {"start_ms": one["start_ms"], "bids": 0, "auctions": []})
        if one["bids"] < before["bids"]:
            return before
        others = before["auctions"] if one["bids"] == before["bids"] else []
        after = {"start_ms": one["start_ms"], "bids": one["bids"], "auctions": [*others, one["auction"]]}
        state.set("hottest", after)
        return after

    counted = read("bids").hopping_window(TEN_SECONDS, 2000).agg(bids=Count()).final(closing_strategy="partition")
    counted = counted.apply(
        lambda window, key, *_: {"start_ms": window["start"], "auction": int(key), "bids": window["bids"]},
        metadata=True,
    )
    return by(counted, "start_ms").apply(hottest, stateful=True)


def higher(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    if one["price"] != other["price"]:
        return max(one, other, key=lambda highest: highest["price"])
    return {**one, "bids": [*one["bids"], *other["bids"]]}


def q7() -> StreamingDataFrame:
    def highest(one: dict[str, Any], state: State) -> dict[str, Any]:
        before = state.get("highest")
        after = one if before is None else higher(before, one)
        state.set("highest", after)
        return after

    bids = read("bids").apply(lambda bid: {"price": bid["price"], "bids": [[bid["auction"], bid["bidder"]]]})
    windows = bids.tumbling_window(TEN_SECONDS).agg(highest=Reduce(higher, lambda bid: bid))
    best = windows.final(closing_strategy="partition").apply(
        lambda window: {"start_ms": window["start"], **window["highest"]}
    )
    return by(best, "start_ms").apply(highest, stateful=True)


def q8() -> StreamingDataFrame:
    def both(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
        return {"name": one["name"] or other["name"], "sells": one["sells"] or other["sells"]}

    persons = read("persons").apply(lambda person: {"name": person["name"], "sells": False})
    auctions = by(read("auctions")[["seller"]], "seller").apply(lambda _: {"name": None, "sells": True})
    windows = persons.concat(auctions).tumbling_window(TEN_SECONDS, APART)
    seen = windows.agg(seller=Reduce(both, lambda one: one)).current()
    return seen.filter(lambda window: window["seller"]["name"] is not None and window["seller"]["sells"]).apply(
        lambda window, key, *_: {"id": int(key), "start_ms": window["start"], "name": window["seller"]["name"]},
        metadata=True,
    )


def q11() -> StreamingDataFrame:
    # A pause of the gap itself does not end a session here, and does in the query; its end is behind the last bid.
    sessions = by(read("bids")[["bidder"]], "bidder").session_window(TEN_SECONDS - 1, APART).agg(bids=Count()).current()
    return sessions.apply(
        lambda window, key, *_: {
            "bidder": int(key),
            "start_ms": window["start"],
            "end_ms": window["end"] - 1 + TEN_SECONDS,
            "bids": window["bids"],
        },
        metadata=True,
    )


def q12() -> StreamingDataFrame:
    bids = by(read("bids", processing_time)[["bidder"]], "bidder")
    return (
        bids.tumbling_window(TEN_SECONDS, APART)
        .agg(bids=Count())
        .current()
        .apply(
            lambda window, key, *_: {"bidder": int(key), "start_ms": window["start"], "bids": window["bids"]},
            metadata=True,
        )
    )


QUERIES = {query.__name__: query for query in (q0, q1, q2, q3, q4, q5, q6, q7, q8, q11, q12)}

if __name__ == "__main__":
    answer = QUERIES[os.environ["BENCH_QUERY"]]()
    answer.to_topic(app.topic(os.environ["BENCH_OUTPUT"], key_serializer="str", value_serializer="json"))
    app.run()
