"""A worker ends in the middle of its work, by force or by request; what the next one makes of it is exact."""

from collections.abc import Callable

from nyc.results import Results
from nyc.worker import WorkerProcess

from .conftest import Run


def _until(run: Run, worker: WorkerProcess, reached: Callable[[Results], bool]) -> None:
    """Follow what the worker makes durable until *reached*."""
    while not reached(run.results):
        worker.check()
        run.results.advance(0.02)


def _finish(run: Run) -> None:
    """Let a last worker do what is left."""
    with run.worker() as worker:
        _until(run, worker, lambda results: results.decided() >= run.count and results.complete())
        assert worker.drain() == 0


def test_three_kills_in_mid_run_leave_exact_totals_and_dead_letters(run: Run) -> None:
    run.send()
    moments: list[Callable[[Results], bool]] = [
        # Early; right behind an output, which is then not yet marked as sent; and when the second hop is under way.
        lambda results: results.decided() > run.count * 0.15,
        lambda results: results.decided() > run.count * 0.35 and results.unsent > 0,
        lambda results: results.decided("airports") > run.count * 0.5,
    ]
    for moment in moments:
        with run.worker() as worker:
            _until(run, worker, moment)
            assert worker.kill() == -9
        assert not run.results.complete()
    _finish(run)
    assert run.differences() == []


def test_a_drained_worker_leaves_nothing_half_done(run: Run) -> None:
    run.send(0.6)
    with run.worker() as worker:
        _until(run, worker, lambda results: results.decided() > run.count * 0.2)
        worker.ask_to_end()
        run.send()  # it takes nothing new any more
        assert worker.wait() == 0  # asked once more, it would end at once
    run.results.catch_up()
    assert run.count * 0.2 < run.results.decided() < run.count
    assert run.results.unsent == 0
    _finish(run)
    assert run.differences() == []
    assert run.results.repeated == 0
