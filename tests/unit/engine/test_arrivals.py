"""When records came is told of each of them once, however fetches and units cut them."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pf_stream.engine.arrivals import Arrivals, Arrived
from pf_stream.kafka.batch import Chunk
from tests.unit.kafka.batches import APPEND_TIME, MARKER, batch


def chunk(*batches: bytes) -> Chunk:
    return Chunk(b"".join(batches), (), "test")


def test_a_unit_may_end_within_a_batch_and_a_fetch_begin_within_one() -> None:
    arrivals = Arrivals()
    arrivals.begin({"a": 2, "b": 0})
    arrivals.add("a", chunk(batch(0, [5, 5, 5, 5], APPEND_TIME), batch(4, [7, 7], APPEND_TIME)), 1.0)
    assert list(arrivals.take({"a": 3, "b": 0})) == [Arrived("a", 1, 5, 1.0)]
    arrivals.add("a", chunk(batch(6, [9], APPEND_TIME)), 2.0)
    arrivals.add("b", chunk(batch(0, [1])), 2.0)
    assert list(arrivals.take({"a": 7, "b": 1})) == [
        Arrived("a", 1, 5, 1.0),
        Arrived("a", 2, 7, 1.0),
        Arrived("a", 1, 9, 2.0),
        Arrived("b", 1, 1, 2.0),
    ]
    assert list(arrivals.take({"a": 7, "b": 1})) == []


def test_what_is_read_once_more_is_not_told_twice() -> None:
    arrivals = Arrivals()
    arrivals.begin({"a": 0})
    arrivals.add("a", chunk(batch(0, [5, 5])), 1.0)
    arrivals.begin({"a": 0})
    arrivals.add("a", chunk(batch(0, [5, 5])), 3.0)
    assert list(arrivals.take({"a": 2})) == [Arrived("a", 2, 5, 3.0)]


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=12), st.data())
def test_every_record_has_the_time_of_its_batch(batches: list[tuple[int, bool]], data: st.DataObject) -> None:
    """Markers of transactions take an offset and are no records."""
    built: list[tuple[int, bytes]] = []
    times: dict[int, int] = {}
    offset = 0
    for size, is_marker in batches:
        timestamp_ms = 1_000 + len(built)
        raw = batch(offset, [timestamp_ms] * size, APPEND_TIME | (MARKER if is_marker else 0))
        built.append((offset + size, raw))
        if not is_marker:
            times.update(dict.fromkeys(range(offset, offset + size), timestamp_ms))
        offset += size
    arrivals = Arrivals()
    position = data.draw(st.integers(0, offset))
    arrivals.begin({"a": position})
    wanted = sorted(time for at, time in times.items() if at >= position)
    found: list[int] = []
    reach = position
    while built:
        count = data.draw(st.integers(1, len(built)))
        fetched, built = built[:count], built[count:]
        arrivals.add("a", chunk(*(raw for _, raw in fetched)), 0.0)
        reach = max(reach, fetched[-1][0])
        position = data.draw(st.integers(position, reach)) if built else reach
        for one in arrivals.take({"a": position}):
            found += [one.appended_ms] * one.records
    assert found == wanted
