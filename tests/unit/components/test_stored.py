"""Stored states: which one is meant by a reactor and a key, how it is shown, and where a page begins."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pf_stream import PUBLIC, Context, Intent, Key, MapState, Reactor, State, Topology, on, upgrade
from pf_stream.components.state import Checked, _check_entry
from pf_stream.components.stored import (
    ChangelogStates,
    Cursor,
    KeyPage,
    StateNotFoundError,
    Stored,
    _record_key,
    export_line,
    read_state,
)
from pf_stream.core.changelog import pack_state
from pf_stream.core.decoding import StateUndecodableError
from pf_stream.errors import ConfigurationError, NotFoundError
from pf_stream.kafka.link import ConnectionSettings


class Moved(Intent, name="moved", requires=PUBLIC):
    board: Annotated[str, Key]
    square: Annotated[int, Key]


class Square(State, version=2):
    piece: str = ""

    @upgrade(from_version=1)
    @staticmethod
    def _figures_are_pieces(old: dict[str, Any]) -> dict[str, Any]:
        return {"piece": old["figure"]}


class Chess(Reactor[Square], id="chess"):
    @on
    def moved(self, intent: Moved, state: Square, ctx: Context) -> None: ...


KEY = b'["a/b","3"]'


class Board:
    """States of the reactor, in memory."""

    spec = Chess.__reactor__
    changelog = "chess-intents-changelog"

    def __init__(self, *stored: Stored) -> None:
        self._stored = {one.key: one for one in stored}

    def get(self, key: bytes) -> Stored | None:
        return self._stored.get(key)

    def page(self, prefix: str, cursor: str, limit: int) -> KeyPage:
        raise NotImplementedError

    def all(self, prefix: str) -> Iterator[Stored]:
        raise NotImplementedError


@pytest.mark.parametrize("text", ['["a/b", 3]', '["a/b","3"]', ' [ "a/b" , "3" ] '])
def test_a_key_of_several_fields_however_it_is_spaced(text: str) -> None:
    assert _record_key(Chess.__reactor__, text) == Moved.__intent__.key_of(Moved(board="a/b", square=3)) == KEY
    assert read_state(Board(Stored(KEY, pack_state(2, b"{}"), 0)), text).key == KEY.decode()


def test_a_key_of_one_field_is_its_text(flights: Topology) -> None:
    spec = next(spec for spec in flights.specs if spec.id == "fleet")
    assert _record_key(spec, '["N1", "N2"]') == b'["N1", "N2"]'


def test_a_reactor_that_is_none(flights: Topology) -> None:
    with pytest.raises(NotFoundError, match=r"has no reactor 'fleeet'; did you mean 'fleet'?"):
        ChangelogStates(ConnectionSettings("127.0.0.1:1"), flights, "fleeet")


class TestShown:
    def test_a_state(self) -> None:
        stored = Stored(KEY, pack_state(2, b'{"piece":"rook"}'), 3, 17, 1000)
        found = read_state(Board(stored), KEY.decode())
        assert (found.reactor, found.version, found.stored_version, found.state) == ("chess", 2, 2, {"piece": "rook"})
        assert (found.topic, found.partition, found.offset, found.timestamp_ms) == (Board.changelog, 3, 17, 1000)
        assert found.worker is None

    def test_of_an_older_version(self) -> None:
        stored = Stored(KEY, pack_state(1, b'{"figure":"rook"}'), 0, worker="w0")
        found = read_state(Board(stored), KEY.decode())
        assert (found.version, found.stored_version, found.state, found.worker) == (2, 1, {"piece": "rook"}, "w0")
        line = json.loads(export_line(Chess.__reactor__, stored))
        assert line == {"reactor": "chess", "key": KEY.decode(), "version": 2, "state": {"piece": "rook"}}

    def test_none(self) -> None:
        with pytest.raises(StateNotFoundError, match="reactor 'chess' has no state under the key 'e4'"):
            read_state(Board(), "e4")

    @pytest.mark.parametrize(
        ("raw", "reason"),
        [
            (b"", "requires a buffer"),
            (pack_state(2, b"{"), "it is no JSON"),
            (pack_state(2, b"NaN"), "it is no JSON"),
            (pack_state(3, b"{}"), "it has version 3, and Square is version 2 here"),
            (pack_state(1, b"{}"), "raised KeyError"),
        ],
    )
    def test_what_cannot_be_decoded(self, raw: bytes, reason: str) -> None:
        stored = Stored(KEY, raw, 0)
        with pytest.raises(StateUndecodableError, match=reason):
            read_state(Board(stored), KEY.decode())
        with pytest.raises(StateUndecodableError, match=reason):
            export_line(Chess.__reactor__, stored)

    def test_a_line_is_one(self) -> None:
        line = export_line(Chess.__reactor__, Stored(b"a\nb\xe2\x80\xa8", pack_state(2, b'{"piece":\n"rook"}'), 0))
        assert line.count(b"\n") == 1
        assert json.loads(line)["state"] == {"piece": "rook"}

    def test_numbers_are_as_they_are_stored(self) -> None:
        line = export_line(Chess.__reactor__, Stored(KEY, pack_state(2, b'{"n":123456789012345678901,"x":1.0}'), 0))
        assert b'"state":{"n":123456789012345678901,"x":1.0}' in line


class TestCursor:
    @given(st.integers(0, 99), st.none() | st.text().map(str.encode))
    def test_is_read_as_it_is_written(self, partition: int, after: bytes | None) -> None:
        cursor = Cursor(partition, after)
        assert Cursor.parse(str(cursor), 100) == cursor

    @pytest.mark.parametrize("text", ["", ":", "x", "4", "-1", "\u00b2", "0x", " 0", "1_0", "9" * 5000, "4:a"])
    def test_nonsense(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match="does not begin with a partition, 0 to 3"):
            Cursor.parse(text, 4)


class Shelf(State):
    books: MapState[int, float]
    names: MapState[str, str]
    count: int = 0


class Shelves(Reactor[Shelf], id="shelves"):
    @on
    def moved(self, intent: Moved, state: Shelf, ctx: Context) -> None: ...


class Library(Board):
    spec = Shelves.__reactor__


ENTRIES = {
    b"\x05booksi\x82\x01\x00": pack_state(1, b"2.5"),
    b"\x05booksi\x81\x05": pack_state(1, b'"NaN"'),
    b"\x05booksi\x7f\xff": pack_state(1, b"1.0"),
    b"\x03oldi\x80": pack_state(1, b"1"),
}


class TestMaps:
    """What a state's maps hold belongs to it, where it can be had."""

    def test_from_the_changelog(self) -> None:
        stored = Stored(KEY, pack_state(1, b'{"count":3}'), 0, entries=ENTRIES)
        found = read_state(Library(stored), KEY.decode())
        assert found.state == {"count": 3, "books": {"-1": 1.0, "5": "NaN", "256": 2.5}, "names": {}}
        assert [*found.state["books"]] == ["-1", "5", "256"]
        assert found.entries == {"books": 3, "names": 0}
        assert json.loads(export_line(Shelves.__reactor__, stored))["state"] == found.state

    def test_a_worker_says_how_many(self) -> None:
        found = read_state(
            Library(Stored(KEY, pack_state(1, b'{"count":3}'), 0, worker="w", counts={"books": 3})), KEY.decode()
        )
        assert (found.state, found.entries) == ({"count": 3}, {"books": 3, "names": 0})

    def test_one_of_another_version(self) -> None:
        entries = {b"\x05booksi\x81\x05": pack_state(2, b"2.5")}
        with pytest.raises(StateUndecodableError, match="entry 5 of 'books': it has version 2"):
            read_state(Library(Stored(KEY, pack_state(1, b"{}"), 0, entries=entries)), KEY.decode())

    def test_they_are_checked(self) -> None:
        checked = Checked()
        for subkey, raw in {**ENTRIES, b"\x05booksi\x81\x06": pack_state(1, b"[]"), b"\x05books": b""}.items():
            _check_entry(checked, Shelves.__reactor__, "log", Stored(KEY, raw, 0, 7), subkey)
        assert [(fault.key, fault.offset) for fault in checked.faults] == [(KEY.decode(), 7)] * 2
        assert "entry 6 of 'books': " in checked.faults[0].reason or "valid number" in checked.faults[0].reason
        assert checked.keys.total() == 0
