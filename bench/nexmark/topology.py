"""The queries on pf_stream, as its users write them: pipelines, and reactors where a query is no pipeline.

``pf worker run bench.nexmark.topology:topology`` runs what ``BENCH_*`` describes.
"""

import os
from collections.abc import Callable
from dataclasses import field
from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import BaseModel

from pf_stream import (
    PUBLIC,
    Capability,
    Context,
    Effects,
    Emit,
    Forget,
    Intent,
    Key,
    Part,
    Reactor,
    Schedule,
    State,
    Topology,
    computed,
    on,
    operation,
)
from pf_stream.model.topology import Guarantee
from pf_stream.streams import Windowed, aggregate, count, hopping, pipeline, session, stream, tumbling

__all__ = ["NAMESPACE", "MarketCap", "nexmark", "topology"]

NAMESPACE: Final = "nexmark"
BOUND_MS: Final = 1_000
"""How far events may be out of order."""
BOUND: Final = "1s"
OUTPUT: Final = os.environ.get("BENCH_OUTPUT", "answers")


class MarketCap(Capability):
    """Who may do what at the market: in the name of ``/{person}``."""

    join = operation()
    sell = operation()
    bid = operation()


class Person(
    Intent,
    name="nexmark.person",
    topic=os.environ.get("BENCH_PERSONS", "persons"),
    requires=computed(lambda person: MarketCap.join(f"/{person.id}"), within=MarketCap.join("/**")),
):
    """Somebody joins."""

    id: Annotated[int, Key]
    time_ms: int
    name: str
    email: str
    credit_card: str
    city: str
    state: str
    extra: str


class Auction(
    Intent,
    name="nexmark.auction",
    topic=os.environ.get("BENCH_AUCTIONS", "auctions"),
    requires=computed(lambda auction: MarketCap.sell(f"/{auction.seller}"), within=MarketCap.sell("/**")),
):
    """An item is offered."""

    id: Annotated[int, Key]
    time_ms: int
    item: str
    description: str
    initial: int
    reserve: int
    expires_ms: int
    seller: int
    category: int
    extra: str


class Bid(
    Intent,
    name="nexmark.bid",
    topic=os.environ.get("BENCH_BIDS", "bids"),
    requires=computed(lambda bid: MarketCap.bid(f"/{bid.bidder}"), within=MarketCap.bid("/**")),
):
    """Somebody bids for an item."""

    auction: Annotated[int, Key]
    bidder: int
    time_ms: int
    price: int
    extra: str


# --- 0 to 2: one after the other ----------------------------------------------------------------------------------------


class Item(Intent, name="nexmark.item", topic=OUTPUT, requires=PUBLIC):
    """A bid without what fills it up."""

    auction: Annotated[int, Key]
    bidder: int
    price: int
    time_ms: int


class Price(Intent, name="nexmark.price", topic=OUTPUT, requires=PUBLIC):
    """What is bid for an auction."""

    auction: Annotated[int, Key]
    price: int


def passed() -> Part:
    """Every bid as it is."""
    return pipeline(
        "q0",
        stream(Bid)
        .map(lambda bid: Item(auction=bid.auction, bidder=bid.bidder, price=bid.price, time_ms=bid.time_ms))
        .emit(Item),
    )


def in_euros() -> Part:
    """Every bid with its price in euros."""
    return pipeline(
        "q1",
        stream(Bid)
        .map(lambda bid: Item(auction=bid.auction, bidder=bid.bidder, price=bid.price * 89 // 100, time_ms=bid.time_ms))
        .emit(Item),
    )


def selected() -> Part:
    """Bids for some of the auctions."""
    return pipeline(
        "q2",
        stream(Bid)
        .filter(lambda bid: bid.auction % 123 == 0)
        .map(lambda bid: Price(auction=bid.auction, price=bid.price))
        .emit(Price),
    )


# --- 3: a join for good ---------------------------------------------------------------------------------------------------


class Offer(Intent, name="nexmark.offer", topic=OUTPUT, requires=PUBLIC):
    """Something is sold nearby."""

    id: Annotated[int, Key]
    name: str
    city: str
    state: str


class Seller(BaseModel):
    """Who may sell something."""

    id: int
    name: str
    city: str
    state: str


class Sale(BaseModel):
    """An auction, and whose it is."""

    id: int
    seller: int


def nearby() -> Part:
    """Who sells in three states."""
    sellers = (
        stream(Person)
        .filter(lambda person: person.state in {"OR", "ID", "CA"})
        .map(
            lambda person: Seller(id=person.id, name=person.name, city=person.city, state=person.state), returns=Seller
        )
    )
    sales = (
        stream(Auction)
        .filter(lambda auction: auction.category == 10)
        .map(lambda auction: Sale(id=auction.id, seller=auction.seller), returns=Sale)
    )

    def offer(seller: Seller, sale: Sale) -> Offer:
        return Offer(id=sale.id, name=seller.name, city=seller.city, state=seller.state)

    joined = sellers.key_by(lambda seller: str(seller.id)).join(
        sales.key_by(lambda sale: str(sale.seller)), offer, before="30d", after="30d", bound=BOUND
    )
    return pipeline("q3", joined.emit(Offer))


# --- 4 and 6: auctions, each as long as it says -----------------------------------------------------------------------------


class Sold(Intent, name="nexmark.sold", topic="sold", requires=PUBLIC):
    """An auction has ended at which somebody bid."""

    group: Annotated[int, Key]
    """The category, or the seller."""
    id: int
    expires_ms: int
    price: int


class End(Intent, name="nexmark.end", topic="end", requires=PUBLIC):
    """An auction ends, or was never opened."""

    auction: Annotated[int, Key]


class Lot(State):
    """An auction that is open, or that bids are for."""

    group: int | None = None
    begins_ms: int = 0
    expires_ms: int = 0
    bids: list[tuple[int, int]] = field(default_factory=list)
    """Time and price: the best one, or all that came before the auction did."""


def lots(group_of: Callable[[Auction], int]) -> type[Reactor[Lot]]:
    """The reactor that tells what each auction brought."""

    class Lots(Reactor[Lot], id="lots", event_time=True):
        @on
        def opened(self, auction: Auction, lot: Lot, ctx: Context) -> Effects:
            lot.group, lot.begins_ms, lot.expires_ms = group_of(auction), auction.time_ms, auction.expires_ms
            lot.bids = best(lot)
            return ends(auction.id, auction.expires_ms + 1)

        @on
        def bid(self, bid: Bid, lot: Lot, ctx: Context) -> Effects:
            lot.bids.append((bid.time_ms, bid.price))
            if lot.group is not None:
                lot.bids = best(lot)
                return None
            # Half of the bids are for auctions that have ended, or are yet to be read: no timer for each of them.
            return ends(bid.auction, bid.time_ms) if len(lot.bids) == 1 else None

        @on
        def ended(self, end: End, lot: Lot, ctx: Context) -> Effects:
            if lot.group is None:
                assert ctx.watermark_ms is not None  # a timer on the event clock makes the lane keep it
                lot.bids = [bid for bid in lot.bids if bid[0] > ctx.watermark_ms - BOUND_MS]
                return ends(end.auction, max(lot.bids)[0]) if lot.bids else Forget()
            if not lot.bids:
                return Forget()
            return [
                Emit(Sold(group=lot.group, id=end.auction, expires_ms=lot.expires_ms, price=lot.bids[0][1])),
                Forget(),
            ]

    def best(lot: Lot) -> list[tuple[int, int]]:
        in_time = [bid for bid in lot.bids if lot.begins_ms <= bid[0] <= lot.expires_ms]
        return [max(in_time, key=lambda bid: bid[1])] if in_time else []

    def ends(auction: int, at_ms: int) -> Schedule:
        return Schedule(
            End(auction=auction), at=datetime.fromtimestamp((at_ms + BOUND_MS) / 1000, UTC), name="end", clock="event"
        )

    return Lots


class OfCategory(Intent, name="nexmark.of_category", topic=OUTPUT, requires=PUBLIC):
    """What is paid in a category, on average."""

    category: Annotated[int, Key]
    price: float


class Mean(State):
    """Of a category."""

    total: int = 0
    count: int = 0


class Categories(Reactor[Mean], id="categories"):
    @on
    def sold(self, sold: Sold, mean: Mean, ctx: Context) -> Emit:
        mean.total += sold.price
        mean.count += 1
        return Emit(OfCategory(category=sold.group, price=mean.total / mean.count))


def of_categories() -> Part:
    """What is paid in each category, on average."""
    return Part(
        "q4",
        (lots(lambda auction: auction.category), Categories),
        internal=frozenset({"sold", "end"}),
        emits=(OfCategory,),
    )


class OfSeller(Intent, name="nexmark.of_seller", topic=OUTPUT, requires=PUBLIC):
    """What a seller got for the last ten auctions, on average."""

    seller: Annotated[int, Key]
    price: float


class Last(State):
    """Of a seller."""

    sold: list[tuple[int, int, int]] = field(default_factory=list)
    """End, number and price of the last ten auctions, in that order."""


class Sellers(Reactor[Last], id="sellers"):
    @on
    def sold(self, sold: Sold, last: Last, ctx: Context) -> Emit:
        last.sold = sorted([*last.sold, (sold.expires_ms, sold.id, sold.price)])[-10:]
        return Emit(OfSeller(seller=sold.group, price=sum(price for _, _, price in last.sold) / len(last.sold)))


def of_sellers() -> Part:
    """What a seller got for the last ten auctions, on average."""
    return Part(
        "q6", (lots(lambda auction: auction.seller), Sellers), internal=frozenset({"sold", "end"}), emits=(OfSeller,)
    )


# --- 5 and 7: the most of each window ---------------------------------------------------------------------------------------


class Hottest(Intent, name="nexmark.hottest", topic=OUTPUT, requires=PUBLIC):
    """The auctions with most bids in a window."""

    start_ms: Annotated[int, Key]
    bids: int
    auctions: list[int]


class Most(BaseModel):
    """What is highest in a window, and who has it."""

    start_ms: int
    most: int
    of: list[list[int]]


def higher(one: Most, other: Most) -> Most:
    """The higher one, or both."""
    if one.most != other.most:
        return max(one, other, key=lambda each: each.most)
    return Most(start_ms=max(one.start_ms, other.start_ms), most=one.most, of=[*one.of, *other.of])


NOTHING: Final = Most(start_ms=0, most=0, of=[])
HIGHEST: Final = aggregate(lambda: NOTHING, higher, lambda most: most, stored=Most, merge=higher)


def hottest() -> Part:
    """The auctions with most bids in ten seconds, every two seconds."""

    def counted(window: Windowed[int]) -> Most:
        return Most(start_ms=window.start_ms, most=window.value, of=[[int(window.key)]])

    def told(window: Windowed[Most]) -> Hottest:
        most = window.value
        return Hottest(start_ms=most.start_ms, bids=most.most, auctions=[auction for (auction,) in most.of])

    return pipeline(
        "q5",
        stream(Bid)
        .by_key()
        .window(hopping("10s", every="2s", bound=BOUND), name="counts")
        .aggregate(count())
        .map(counted)
        .key_by(lambda most: str(most.start_ms))
        .window(tumbling("2s"), name="hottest")
        .aggregate(HIGHEST)
        .emit(told),
    )


class Highest(Intent, name="nexmark.highest", topic=OUTPUT, requires=PUBLIC):
    """The highest bids of a window."""

    start_ms: Annotated[int, Key]
    price: int
    bids: list[list[int]]


def highest() -> Part:
    """The highest bids of every ten seconds."""

    def told(window: Windowed[Most]) -> Highest:
        return Highest(start_ms=window.value.start_ms, price=window.value.most, bids=window.value.of)

    return pipeline(
        "q7",
        stream(Bid)
        .map(lambda bid: Most(start_ms=bid.time_ms // 10_000 * 10_000, most=bid.price, of=[[bid.auction, bid.bidder]]))
        .by_key()
        .window(tumbling("10s", bound=BOUND), name="of_auction")
        .aggregate(HIGHEST)
        .map(lambda window: window.value, returns=Most)
        .key_by(lambda most: str(most.start_ms))
        .window(tumbling("10s"), name="highest")
        .aggregate(HIGHEST)
        .emit(told),
    )


# --- 8: what two streams have within one window -----------------------------------------------------------------------------


class Newcomer(Intent, name="nexmark.newcomer", topic=OUTPUT, requires=PUBLIC):
    """Somebody joined and opened an auction in a window."""

    id: Annotated[int, Key]
    start_ms: int
    name: str


class Seen(BaseModel):
    """What was seen of a person."""

    id: int = 0
    name: str | None = None
    sells: bool = False


def newcomers() -> Part:
    """Who joined and opened an auction within the same ten seconds."""

    def both(one: Seen, other: Seen) -> Seen:
        return Seen(id=other.id, name=one.name or other.name, sells=one.sells or other.sells)

    def told(window: Windowed[Seen]) -> Newcomer:
        return Newcomer(id=window.value.id, start_ms=window.start_ms, name=window.value.name or "")

    joined = stream(Person).map(lambda person: Seen(id=person.id, name=person.name), returns=Seen)
    opened = stream(Auction).map(lambda auction: Seen(id=auction.seller, sells=True), returns=Seen)
    return pipeline(
        "q8",
        joined.merge(opened)
        .key_by(lambda seen: str(seen.id))
        .window(tumbling("10s", bound=BOUND))
        .aggregate(aggregate(Seen, both, lambda seen: seen, stored=Seen))
        .filter(lambda window: window.value.name is not None and window.value.sells)
        .emit(told),
    )


# --- 11 and 12: how much somebody bids --------------------------------------------------------------------------------------


class Session(Intent, name="nexmark.session", topic=OUTPUT, requires=PUBLIC):
    """Bids of somebody, with no long pause between them."""

    bidder: Annotated[int, Key]
    start_ms: int
    end_ms: int
    bids: int


def sessions() -> Part:
    """How often somebody bids without a pause of ten seconds."""

    def told(window: Windowed[int]) -> Session:
        return Session(bidder=int(window.key), start_ms=window.start_ms, end_ms=window.end_ms, bids=window.value)

    return pipeline(
        "q11",
        stream(Bid)
        .map(lambda bid: bid.bidder, returns=int)
        .key_by(str)
        .window(session("10s", bound=BOUND))
        .aggregate(count())
        .emit(told),
    )


class Count(Intent, name="nexmark.count", topic=OUTPUT, requires=PUBLIC):
    """Bids of somebody in a window."""

    bidder: Annotated[int, Key]
    start_ms: int
    bids: int


def counts() -> Part:
    """How often somebody bids in ten seconds of the worker's own time."""

    def told(window: Windowed[int]) -> Count:
        return Count(bidder=int(window.key), start_ms=window.start_ms, bids=window.value)

    return pipeline(
        "q12",
        stream(Bid)
        .map(lambda bid: bid.bidder, returns=int)
        .key_by(str)
        .window(tumbling("10s", clock="processing"))
        .aggregate(count())
        .emit(told),
    )


# --- a topology for each --------------------------------------------------------------------------------------------------


QUERIES: Final[dict[str, Callable[[], Part]]] = {
    "q0": passed,
    "q1": in_euros,
    "q2": selected,
    "q3": nearby,
    "q4": of_categories,
    "q5": hottest,
    "q6": of_sellers,
    "q7": highest,
    "q8": newcomers,
    "q11": sessions,
    "q12": counts,
}


def nexmark(query: str, name: str, guarantee: Guarantee = "effectively_once") -> Topology:
    """The topology of one query."""
    return Topology(name, [], parts=[QUERIES[query]()], namespace=NAMESPACE, guarantee=guarantee)


topology: Final = nexmark(
    os.environ.get("BENCH_QUERY", "q0"),
    os.environ.get("BENCH_APP", f"{NAMESPACE}.market").removeprefix(f"{NAMESPACE}."),
    "transactional" if os.environ.get("BENCH_GUARANTEE") == "transactional" else "effectively_once",
)
