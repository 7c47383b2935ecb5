"""Byte strings without their ends, against a list of them."""

from hypothesis import given
from hypothesis import strategies as st

from pf_stream.core.endings import Endings

END = st.sampled_from([b"", b"a", b"b", b"ab"])


@given(st.lists(st.tuples(st.binary(max_size=3), END) | st.integers(0, 9), max_size=40))
def test_what_is_shortened_is_whole_again_and_no_end_is_kept_in_vain(steps: list[tuple[bytes, bytes] | int]) -> None:
    """A number gives one of them back."""
    endings = Endings()
    kept: list[tuple[bytes, bytes, bytes]] = []
    for step in steps:
        if isinstance(step, tuple):
            begin, end = step
            kept.append((endings.shorten(begin, end), begin, end))
        elif kept:
            short, _, end = kept.pop(step % len(kept))
            assert endings.end(short) == end
            assert endings.release(short) == (None if end in {end for _, _, end in kept} else end)
        assert [endings.whole(short) for short, _, _ in kept] == [begin + end for _, begin, end in kept]
        assert endings.count == len({end for _, _, end in kept})
