"""What a sink makes of records, and what it keeps of who wrote them."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pf_stream.core.sink import Marks


def test_a_mark_and_what_lies_before_it_was_seen() -> None:
    marks = Marks()
    assert marks.note(b"a", (2, 5))
    assert not marks.note(b"a", (2, 5))
    assert not marks.note(b"a", (1, 9))
    assert marks.note(b"b", (1, 9))
    assert marks.note(b"a", (3, 0))


def test_a_copy_moves_apart() -> None:
    marks = Marks("a:1:1")
    copied = marks.copy()
    assert copied.note(b"a", (1, 2))
    assert marks.note(b"a", (1, 2))


def test_what_is_no_mark_is_none() -> None:
    assert str(Marks("a:1:1 nonsense a:x:1 :: b:2:0")) == "a:1:1 b:2:0"


def test_the_lanes_that_were_heard_of_last_fit() -> None:
    marks = Marks()
    for number in range(1_000):
        marks.note(b"%08d" % number, (10**6, 10))
    marks.note(b"%08d" % 3, (10**6, 11))
    text = str(marks)
    assert len(text) <= 4_000
    kept = [word.split(":")[0] for word in text.split()]
    assert kept[-1] == "00000003"
    assert kept[:-1] == [f"{number:08d}" for number in range(1_000 - len(kept) + 1, 1_000)]


def test_lanes_that_are_not_heard_of_any_more_are_forgotten() -> None:
    marks = Marks()
    for number in range(10_001):
        assert marks.note(b"%08d" % number, (1, 0))
    assert marks.note(b"%08d" % 0, (1, 0)), "it is unknown again"
    assert not marks.note(b"%08d" % 2, (1, 0))


NAMES = st.sampled_from([b"aa", b"bb", b"cc"])


@given(st.lists(st.tuples(NAMES, st.tuples(st.integers(0, 4), st.integers(0, 4)))))
@settings(max_examples=200)
def test_text_and_back_decides_alike(noted: list[tuple[bytes, tuple[int, int]]]) -> None:
    marks, last = Marks(), dict[bytes, tuple[int, int]]()
    for name, mark in noted:
        assert marks.note(name, mark) == (name not in last or mark > last[name])
        last[name] = max(mark, last.get(name, mark))
        marks = Marks(str(marks))
