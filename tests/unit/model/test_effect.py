"""Effects are data, compared by what they say."""

from typing import Annotated

from pf_stream import PUBLIC, Emit, Intent, Key, Reply


class Note(Intent, name="effects.note", requires=PUBLIC):
    """A note."""

    key: Annotated[str, Key]


def test_effects_are_values() -> None:
    assert Emit(Note(key="a")) == Emit(Note(key="a"))
    assert Emit(Note(key="a")) != Emit(Note(key="b"))
    assert Reply({"n": 1}) == Reply({"n": 1})
    assert Reply({"n": 1}) != Reply({"n": 2})
    assert repr(Reply({"n": 1})) == "Reply(data={'n': 1})"
