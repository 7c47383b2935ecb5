"""What a changelog says of itself, and who may not go on with it."""

import re
from typing import Annotated, Any

import orjson
import pytest

from pf_stream import PUBLIC, Context, Intent, Key, PFError, Reactor, State, Topology, on
from pf_stream.core import (
    ChangelogFormatError,
    ChangelogOwnerError,
    NewerStateError,
    PartitionCountError,
    UnknownReactorError,
    changelog,
)
from pf_stream.testing import Driver
from tests.unit.core.kit import Bench, record


class Step(Intent, name="walk.step", requires=PUBLIC):
    """One step."""

    walker: Annotated[str, Key]


class Told(Intent, name="walk.told", requires=PUBLIC, topic="tales"):
    """Of a topic of its own."""

    walker: Annotated[str, Key]


class Walked(State):
    """Version 1."""

    steps: int = 0


class WalkedFurther(State, version=2):
    """Version 2."""

    steps: int = 0


class Walks(Reactor[Walked], id="walks"):
    @on
    def step(self, intent: Step, state: Walked, ctx: Context) -> None:
        state.steps += 1


class NewerWalks(Reactor[WalkedFurther], id="walks"):
    @on
    def step(self, intent: Step, state: WalkedFurther, ctx: Context) -> None:
        state.steps += 1


class Runs(Reactor[Walked], id="runs"):
    @on
    def step(self, intent: Step, state: Walked, ctx: Context) -> None:
        state.steps += 1


class RunsElsewhere(Reactor[Walked], id="runs"):
    @on
    def told(self, intent: Told, state: Walked, ctx: Context) -> None:
        state.steps += 1


WALK = Topology("walk", [Walks, Runs], version=7)
WITHOUT_RUNS = Topology("walk", [Walks], version=6)


def written(topology: Topology = WALK, before: Any = ()) -> list[tuple[bytes, bytes | None]]:
    """A changelog that *topology* has written, after *before*."""
    bench = Bench(topology, changelog=before)
    at = bench.lane.positions["walk.intents"]
    bench.commit_all(record(at, Step(walker="w"), None), topic="walk.intents")
    return bench.changelog


def refused(topology: Topology, log: list[tuple[bytes, bytes | None]], **bench: Any) -> PFError:
    with pytest.raises(PFError) as caught:
        Bench(topology, changelog=log, **bench)
    return caught.value


def header(log: list[tuple[bytes, bytes | None]]) -> Any:
    return orjson.loads([value or b"" for key, value in log if key == changelog.HEADER][-1])


def changed(**fields: Any) -> list[tuple[bytes, bytes | None]]:
    """A changelog with another header behind."""
    log = written()
    return [*log, (changelog.HEADER, orjson.dumps(header(log) | fields))]


def test_another_number_of_partitions() -> None:
    error = refused(WALK, written(), partitions=8)
    assert (type(error), error.code) == (PartitionCountError, "partition_count")
    assert str(error).startswith("walk-intents-changelog was written for 1 partitions and the source topics have 8")


def test_another_topology() -> None:
    error = refused(WALK, changed(topology="run"))
    assert (type(error), error.code) == (ChangelogOwnerError, "changelog_owner")
    assert "walk-intents-changelog was written by topology 'run', and this is 'walk'" in str(error)


@pytest.mark.parametrize(
    "more",
    [
        (changelog.HEADER, b'{"format": 2}'),
        (b"\x02s" + b"later", b""),
        (b"", b""),
        (b"{}", None),
        (changelog.timer_key("walks", b"k", b"t"), b"\x03"),
    ],
    ids=["header", "key", "no key", "json", "timer"],
)
def test_another_format(more: tuple[bytes, bytes | None]) -> None:
    error = refused(WALK, [*written(), more])
    assert (type(error), error.code) == (ChangelogFormatError, "changelog_format")
    assert "and this version of pf_stream reads format 1: run the version that wrote them" in str(error)


class TestNewerState:
    def test_stops_at_once_and_not_at_the_first_key(self) -> None:
        error = refused(WITHOUT_RUNS, written(Topology("walk", [NewerWalks], version=8)))
        assert (type(error), error.code) == (NewerStateError, "newer_state")
        assert str(error) == (
            "walk-intents-changelog holds state of reactor 'walks' in version 2, and this worker's is version 1 (written by "
            "version 8 of the topology, and this is version 6): upgrade this worker; there is no way back from a newer state "
            "but to drop it"
        )

    def test_an_older_topology_goes_on_as_long_as_it_can_read_the_states(self) -> None:
        log = written(Topology("walk", [Walks], version=8))
        assert header(log)["version"] == 8
        assert header(written(WITHOUT_RUNS, log))["version"] == 6

    def test_a_changelog_from_before_there_were_versions(self) -> None:
        log = written()
        old = {name: value for name, value in header(log).items() if name != "version"}
        again = written(WALK, [*log, (changelog.HEADER, orjson.dumps(old))])
        assert header(again)["version"] == 7


class TestUnknownReactors:
    def test_renamed_or_removed(self) -> None:
        error = refused(WITHOUT_RUNS, written())
        assert (type(error), error.code) == (UnknownReactorError, "unknown_reactor")
        assert str(error) == (
            "walk-intents-changelog holds state of reactors that this group does not have: 'runs' (written by version 7 of the "
            "topology, and this is version 6). Renamed? Give the new class the old id. Removed, or added by a newer version "
            'that you take back? List it in the topology: retired=["runs"], or drop its state: pf state drop'
        )

    def test_retired(self) -> None:
        log = written(Topology("walk", [Walks], retired=["runs"]), written())
        assert header(log)["reactors"] == {"walks": 1, "runs": 1}, "its state is kept, and so is its name"
        assert header(written(WALK, log))["reactors"] == {"walks": 1, "runs": 1}, "and it may come back"

    def test_what_is_retired_may_be_of_any_version(self) -> None:
        log = written(Topology("walk", [NewerWalks, Runs]))
        written(Topology("walk", [Runs], retired=["walks"]), log)

    def test_moved_to_another_group(self) -> None:
        """Its state would stay behind."""
        error = refused(Topology("walk", [Walks, RunsElsewhere]), written())
        assert isinstance(error, UnknownReactorError)
        assert "that this group does not have: 'runs' (now in group 'tales'). A reactor's group follows" in str(error)

    def test_both(self) -> None:
        log = changed(reactors={"walks": 1, "runs": 1, "gone": 3, "left": 1})
        error = refused(Topology("walk", [Walks, RunsElsewhere]), log)
        assert re.search(
            r"does not have: 'gone', 'left' \(.*retired=\[\"gone\", \"left\"\], or .*; and 'runs' \(now", str(error)
        )

    def test_the_last_header_counts(self) -> None:
        """What was dropped is not missed, though the log may still hold what once was said."""
        written(WITHOUT_RUNS, changed(reactors={"walks": 1}))


def test_a_driver_says_so_too() -> None:
    driver = Driver(WALK)
    driver.send(Step(walker="w"))
    with pytest.raises(UnknownReactorError):
        driver.redeploy(WITHOUT_RUNS)
    driver.redeploy(WALK)
    driver.send(Step(walker="w"))
    assert driver.state(Runs, "w") == Walked(steps=2)
