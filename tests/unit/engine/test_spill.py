"""What waits on disk comes back as it was, in its order, and leaves nothing behind."""

from collections import deque
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pf_stream.core.sink import Taken
from pf_stream.engine import spill
from pf_stream.engine.spill import Spill

RECORDS = st.builds(
    Taken,
    st.integers(0, 2**62),
    st.integers(-(2**60), 2**60),
    st.binary(max_size=30),
    st.binary(max_size=30),
    st.binary(max_size=200),
    st.binary(max_size=3_000),
)


@given(st.lists(st.one_of(RECORDS, st.none()), max_size=60))
@settings(max_examples=100)
def test_first_in_first_out(actions: list[Taken | None]) -> None:
    before = spill.SEGMENT
    spill.SEGMENT = 4_000  # type: ignore[misc] # several files
    try:
        queue, model = Spill(None), deque[Taken]()
        for record in actions:
            if record is not None:
                queue.append(record)
                model.append(record)
            elif model:
                assert queue.popleft() == model.popleft()
            assert len(queue) == len(model)
            assert (queue.size == 0) == (not model)
            assert len(queue._segments) <= 1 + queue.size // 4_000 + 1
        while model:
            assert queue.popleft() == model.popleft()
        assert queue.size == 0
        queue.close()
    finally:
        spill.SEGMENT = before  # type: ignore[misc]


def test_the_folder_shows_nothing(tmp_path: Path) -> None:
    queue = Spill(tmp_path)
    queue.append(Taken(1, 2, b"kind", b"source", b"key", b"x" * 100_000))
    assert list(tmp_path.iterdir()) == []
    queue.close()
    assert len(queue) == queue.size == 0
