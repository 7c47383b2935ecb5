"""A queue of keys by time, against a sorted list; and what it takes."""

import tracemalloc
from bisect import insort

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pf_stream.core import due
from pf_stream.core.due import DueKeys

steps = st.lists(st.none() | st.tuples(st.integers(-2, 6), st.sampled_from([b"a", b"b", b"c"])), max_size=60)


@given(steps, st.integers(1, 5))
def test_the_first_is_the_smallest_that_is_there(taken: list[tuple[int, bytes] | None], room: int) -> None:
    """``None`` takes one away. With little room nearly all lie in runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(due, "_RECENT", room)
        queue, model = DueKeys(), list[tuple[int, bytes]]()
        for step in taken:
            if step is not None:
                queue.add(*step)
                insort(model, step)
            elif model:
                first = model.pop(0)
                assert queue.first() == first
                assert queue.pop() == first[1]
            assert queue.first() == (model[0] if model else None)
            assert queue.first_ms == (model[0][0] if model else due._NEVER)


@pytest.mark.slow
def test_a_hundred_thousand_take_little_and_are_let_go() -> None:
    keys = [b"%d" % number for number in range(100_000)]
    tracemalloc.start()
    queue = DueKeys()
    for number, key in enumerate(keys):
        queue.add(number * 7_919 % 100_000 << 20, key)
    full = tracemalloc.get_traced_memory()[0]
    assert full / len(keys) < 24, "a heap of pairs takes 112"
    for _ in range(99_000):
        queue.pop()
    left = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert left < full / 10
    assert queue.first() == (99_000 << 20, b"%d" % next(n for n in range(100_000) if n * 7_919 % 100_000 == 99_000))
