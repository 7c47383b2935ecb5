"""Which record of a changelog is meant by a reactor and a key."""

from typing import Annotated

import pytest

from pf_stream import PUBLIC, Context, Intent, Key, Reactor, State, Topology, on
from pf_stream.components.state import _record_key, read_state
from pf_stream.errors import NotFoundError
from pf_stream.kafka.link import ConnectionSettings


class Moved(Intent, name="moved", requires=PUBLIC):
    board: Annotated[str, Key]
    square: Annotated[int, Key]


class Square(State):
    piece: str = ""


class Chess(Reactor[Square], id="chess"):
    @on
    def moved(self, intent: Moved, state: Square, ctx: Context) -> None: ...


@pytest.mark.parametrize("text", ['["a/b", 3]', '["a/b","3"]', ' [ "a/b" , "3" ] '])
def test_a_key_of_several_fields_however_it_is_spaced(text: str) -> None:
    assert _record_key(Chess.__reactor__, text) == Moved.__intent__.key_of(Moved(board="a/b", square=3))


def test_a_key_of_one_field_is_its_text(flights: Topology) -> None:
    spec = next(spec for spec in flights.specs if spec.id == "fleet")
    assert _record_key(spec, '["N1", "N2"]') == b'["N1", "N2"]'


def test_a_reactor_that_is_none(flights: Topology) -> None:
    with pytest.raises(NotFoundError, match=r"has no reactor 'fleeet'; did you mean 'fleet'?"):
        read_state(ConnectionSettings("127.0.0.1:1"), flights, "fleeet", "N1")
