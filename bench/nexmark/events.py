"""The events: people who join, auctions they open, bids they place, made from a seed.

After the generator of Apache Beam (``org.apache.beam.sdk.nexmark.sources.generator``): of each fifty events one is a person,
three are auctions and forty-six are bids; half of the bids are for the hottest auction, three of four by a hot bidder; three of
four auctions are by a hot seller. All figures are Beam's defaults. The same seed gives the same events.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

__all__ = ["START_MS", "Auction", "Bid", "Event", "Person", "events"]

START_MS: Final = 1_767_225_600_000
"""2026-01-01T00:00:00Z, the event time of the first one."""
PER_SECOND: Final = 10_000
"""Events in one second of event time."""

_PERSONS, _AUCTIONS, _BIDS = 1, 3, 46
_CYCLE: Final = _PERSONS + _AUCTIONS + _BIDS
_FIRST_PERSON: Final = 1000
_FIRST_AUCTION: Final = 1000
_FIRST_CATEGORY: Final = 10
_CATEGORIES: Final = 5
_ACTIVE_PEOPLE: Final = 1000
_IN_FLIGHT: Final = 100
_LEAD: Final = 10
"""So many persons, or auctions, are spoken of before they are there."""
_HOT_AUCTIONS: Final = 2
_HOT_SELLERS: Final = 4
_HOT_BIDDERS: Final = 4
"""All but one in so many is a hot one."""
_HOT: Final = 100
"""Of so many persons, or auctions, in a row, the first is the hot one."""
_STATES: Final = ("AZ", "CA", "ID", "OR", "WA", "WY")
_CITIES: Final = (
    "Phoenix",
    "Los Angeles",
    "San Francisco",
    "Boise",
    "Portland",
    "Bend",
    "Redmond",
    "Seattle",
    "Kent",
    "Cheyenne",
)
_FIRST_NAMES: Final = ("Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter")
_LAST_NAMES: Final = ("Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris")
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody joins."""

    time_ms: int
    id: int
    name: str
    email: str
    credit_card: str
    city: str
    state: str
    extra: str
    """What makes it two hundred bytes."""


@dataclass(frozen=True, slots=True)
class Auction:
    """An item is offered."""

    time_ms: int
    id: int
    item: str
    description: str
    initial: int
    """In cents, as all prices."""
    reserve: int
    expires_ms: int
    seller: int
    category: int
    extra: str
    """What makes it five hundred bytes."""


@dataclass(frozen=True, slots=True)
class Bid:
    """Somebody bids for an item."""

    time_ms: int
    auction: int
    bidder: int
    price: int
    extra: str
    """What makes it a hundred bytes."""


Event: TypeAlias = Person | Auction | Bid


def events(count: int, *, seed: int = 1, per_second: int = PER_SECOND, disorder: int = 1) -> Iterator[Event]:
    """*count* events, *per_second* in a second of event time, each less than *disorder* places from where its time belongs."""
    dice = random.Random(seed)  # noqa: S311 - to be repeated is what these dice are for
    block: list[Event] = []
    for number in range(count):
        block.append(_event(number, per_second, dice))
        if len(block) == disorder or number == count - 1:
            dice.shuffle(block)
            yield from block
            block.clear()


def _event(number: int, per_second: int, dice: random.Random) -> Event:
    time_ms = _time_ms(number, per_second)
    place = number % _CYCLE
    if place < _PERSONS:
        return Person(
            time_ms,
            _FIRST_PERSON + _last_person(number),
            f"{dice.choice(_FIRST_NAMES)} {dice.choice(_LAST_NAMES)}",
            f"{_text(dice, 7)}@{_text(dice, 5)}.com",
            " ".join(f"{dice.randrange(10_000):04}" for _ in range(4)),
            dice.choice(_CITIES),
            dice.choice(_STATES),
            _text(dice, 30),
        )
    if place < _PERSONS + _AUCTIONS:
        initial = _price(dice)
        hot = dice.randrange(_HOT_SELLERS) > 0
        return Auction(
            time_ms,
            _FIRST_AUCTION + _last_auction(number),
            _text(dice, 20),
            _text(dice, 100),
            initial,
            initial + _price(dice),
            time_ms + _lasts_ms(number, per_second, dice),
            _FIRST_PERSON + (_last_person(number) // _HOT * _HOT if hot else _active_person(number, dice)),
            _FIRST_CATEGORY + dice.randrange(_CATEGORIES),
            _text(dice, 200),
        )
    last = _last_auction(number)
    hot_auction = dice.randrange(_HOT_AUCTIONS) > 0
    hot_bidder = dice.randrange(_HOT_BIDDERS) > 0
    auction = last // _HOT * _HOT if hot_auction else dice.randint(max(0, last - _IN_FLIGHT), last + _LEAD)
    bidder = _last_person(number) // _HOT * _HOT + 1 if hot_bidder else _active_person(number, dice)
    return Bid(time_ms, _FIRST_AUCTION + auction, _FIRST_PERSON + bidder, _price(dice), _text(dice, 24))


def _last_person(number: int) -> int:
    """Who joined last at that event, from 0."""
    return number // _CYCLE


def _last_auction(number: int) -> int:
    """Which auction was opened last at that event, from 0; the first is said to be there from the beginning."""
    cycle, place = divmod(number, _CYCLE)
    if place < _PERSONS:
        return max(0, cycle * _AUCTIONS - 1)
    return cycle * _AUCTIONS + min(place - _PERSONS, _AUCTIONS - 1)


def _active_person(number: int, dice: random.Random) -> int:
    """One of those who joined lately, or will soon, from 0."""
    people = _last_person(number) + 1
    active = min(people, _ACTIVE_PEOPLE)
    return people - active + dice.randrange(active + _LEAD)


def _lasts_ms(number: int, per_second: int, dice: random.Random) -> int:
    """How long an auction lasts: so long that about as many are open as shall be, twice that at most."""
    later = number + _IN_FLIGHT * _CYCLE // _AUCTIONS
    horizon_ms = _time_ms(later, per_second) - _time_ms(number, per_second)
    return 1 + dice.randrange(max(horizon_ms * 2, 1))


def _time_ms(number: int, per_second: int) -> int:
    return START_MS + number * 1000 // per_second


def _price(dice: random.Random) -> int:
    return round(10 ** (dice.random() * 6) * 100)


def _text(dice: random.Random, length: int) -> str:
    return "".join(dice.choices(_LETTERS, k=length))
