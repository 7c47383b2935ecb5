"""The demonstration: flights out of New York in 2013 as authorised intents, through a real Kafka.

Run it with ``make demo``. It starts a Kafka of its own and a worker, sends the announcement and the report of every fourth of
336,776 flights (``EVERY=1``: of all) and, among them, 1,000 intents that must be refused, and waits until all are decided.
What the reactors hold, and what was told of hours, days and flights that are overdue, it compares with what pandas computes
from the same file. The exit code is 0 only if all is equal. Nothing stays but with ``KEEP=1``.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nyc.interrupts import Interrupted, Interrupts

if TYPE_CHECKING:
    from nyc.data import Outcomes, Totals
    from nyc.results import Results
    from nyc.screen import Doing, Screen
    from nyc.worker import WorkerProcess
    from pf_stream.kafka.dev import BrokerInfo, Progress

REFUSALS = 1000
PATIENCE_S = 60.0
SHOWN = 20
ROOT = Path(__file__).parent.parent.parent
KEPT = ROOT / ".pf" / "demo"
"""Where all is that a run with KEEP=1 leaves."""


def main() -> int:
    """Run as the command line says; returns the exit code."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--keep", action="store_true", help="leave Kafka and the worker running (KEEP=1)")
    arguments.add_argument("--stop", action="store_true", help="stop what --keep left running, and delete it")
    every = os.environ.get("EVERY") or "4"
    arguments.add_argument("--every", type=int, default=every, metavar="N", help="only every N-th flight (EVERY; 4)")
    given = arguments.parse_args()
    interrupts = Interrupts()
    try:
        # Imported here, for a Ctrl-C may come while pandas is read.
        from nyc.screen import Screen
        from nyc.worker import WorkerDiedError
        from pf_stream.errors import PFError

        screen = Screen()
        try:
            if given.stop:
                screen.say("stopped" if stop() else "nothing was left running")
                return 0
            keep = given.keep or os.environ.get("KEEP", "") not in {"", "0"}
            return run(screen, interrupts, given.every, keep=keep)
        except PFError as error:
            print(f"error ({error.code}): {error}", file=sys.stderr)
        except (WorkerDiedError, StuckError) as error:
            print(f"error: {error}", file=sys.stderr)
        except Exception:
            interrupts.check()  # a client may have made its own exception of ours
            raise
        return 1
    except Interrupted as interrupted:
        print("\ninterrupted; nothing is left running", file=sys.stderr)
        return 128 + interrupted.number


def run(screen: "Screen", interrupts: Interrupts, every: int, *, keep: bool) -> int:
    """The whole of it."""
    from nyc.contexts import Issuer
    from nyc.data import airlines, flights, outcomes, read_file, reports, totals
    from nyc.producer import Sender, intents
    from nyc.refusals import Refusals
    from nyc.results import Results
    from nyc.worker import TOPOLOGY
    from pf_stream.kafka.admin import Admin
    from pf_stream.kafka.link import ConnectionSettings
    from pf_stream.kafka.topics import create_topics
    from pf_stream.security import write_private
    from pf_stream.topology import load_topology

    began = time.monotonic()
    screen.say("Flights out of New York in 2013, as authorised intents", style="bold")
    screen.say()
    with _kafka(screen, keep=keep) as (broker, folder):
        connection = ConnectionSettings(broker.bootstrap_servers)
        with screen.step("making topics") as doing:
            topology = load_topology(str(TOPOLOGY))
            topics = create_topics(Admin(connection), topology)
            doing.done(f"{len(topics)} topics, as {TOPOLOGY.name} needs them")
        issuer = Issuer.new(topology.namespace)
        issuer.key.save(folder / "issuer.key")
        with _worker(interrupts, broker, folder, keep=keep) as worker:
            with screen.step("reading the flights") as doing:
                frame = read_file(every)
                expected, told = totals(frame), outcomes(frame)
                doing.done(f"{len(frame):,} flights read; pandas has its totals")
            with screen.step("signing contexts") as doing:
                contexts = issuer.contexts(airlines())
                refusals = Refusals.among(frame, issuer, REFUSALS)
                for carrier, token in contexts.items():
                    write_private(folder / f"{carrier}.ctx", token + "\n", overwrite=True)
                (folder / "flight.json").write_bytes(next(flights(frame)).payload)
                doing.done(f"a signing key, and a context for each of {len(contexts)} airlines")

            results = Results(connection, topology, topology.partitions)
            sender = Sender(broker.bootstrap_servers, topology.topic_name("intents"))
            good = 2 * len(frame) + len(contexts)
            count = good + len(refusals.codes)
            started = time.monotonic()
            with screen.bars(count) as bars, interrupts.held():
                for number, intent in enumerate(refusals.mixed_into(intents(reports(frame), contexts), good)):
                    sender.send(intent)
                    if number % 2000 == 0:
                        interrupts.check()
                        results.advance(0)
                        bars.show("sent", number)
                        bars.show("decided", results.decided())
                while not sender.flush(0.2):
                    interrupts.check()
                bars.show("sent", count)
                sent = time.monotonic()
                for decided in _until_complete(results, worker, count):
                    interrupts.check()
                    bars.show("decided", decided)
            ended = time.monotonic()
            results.close()
            screen.done(f"{good:,} intents sent, and {len(refusals.codes):,} to be refused", sent - started)
            screen.done("all decided, every effect of theirs handled", ended - started)
            screen.say()
            screen.say(
                f"{count / (ended - started):,.0f} intents a second from the first sent to the last commit, while "
                f"producer, Kafka and one worker share {_cores()} cores. Each flight was announced and reported, and caused "
                f"two more, for its airport and its carrier."
            )
            if not _report(screen, results, expected, told, refusals.codes):
                return 1
        _what_next(screen, keep=keep)
        screen.say()
        screen.say(f"{time.monotonic() - began:.0f} s in all.", style="dim")
    return 0


def _report(
    screen: "Screen", results: "Results", expected: "Totals", told: "Outcomes", refused: dict[str, str]
) -> bool:
    """Show what came of it, and whether that is what had to come."""
    from nyc.data import airlines

    found = results.totals()
    screen.board(found)
    screen.carriers(found, airlines())
    screen.busiest(found)
    screen.told(results.outcomes())
    screen.refused([letter.code for letter in results.dead_letters])
    faults = results.differences(expected, refused, told)
    screen.say()
    if not faults:
        screen.say(
            f"check: ok. {len(found.airports)} airports, {len(found.carriers)} carriers, {len(found.aircraft):,} aircraft, "
            f"{len(told.hours):,} hours, {len(told.days):,} days, {len(told.overdue):,} alerts and {len(refused):,} refusals "
            f"are exactly what pandas computes from the same file.",
            style="bold green",
        )
        return True
    screen.say(f"check: FAILED, {len(faults):,} differences to what pandas computes", style="bold red")
    for fault in faults[:SHOWN]:
        screen.say(f"  {fault}")
    return False


def _until_complete(results: "Results", worker: "WorkerProcess", count: int) -> Iterator[int]:
    """Yield how many intents are decided, until no lane has anything left to do."""
    position, moved = -1, time.monotonic()
    while results.decided() < count or not results.complete():
        worker.check()
        results.advance(0.2)
        if results.position != position:
            position, moved = results.position, time.monotonic()
        elif time.monotonic() - moved > PATIENCE_S:
            raise StuckError(results.decided(), count, worker.log)
        yield results.decided()
    yield count


class StuckError(Exception):
    """Raised when the worker runs and does not get any further."""

    def __init__(self, handled: int, count: int, log: Path) -> None:
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
        super().__init__(
            "\n".join(
                [f"{handled:,} of {count:,} intents are decided, and nothing moved for {PATIENCE_S:.0f} s:", *said]
            )
        )


@contextmanager
def _kafka(screen: "Screen", *, keep: bool) -> Iterator[tuple["BrokerInfo", Path]]:
    """A Kafka of our own, and a folder for what else there is; both go afterwards, but for a run that succeeds with *keep*."""
    from pf_stream.kafka.dev import DevBroker

    with ExitStack() as stack:
        with screen.step("starting Kafka") as doing:
            if keep:
                stop()
                KEPT.mkdir(mode=0o700, parents=True)
                stack.callback(stop)
                folder = KEPT
                broker = DevBroker(KEPT / "kafka").up(progress=_reporter(doing))
            else:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pf-demo-")))
                broker = stack.enter_context(DevBroker.temporary(progress=_reporter(doing)))
            doing.done(f"Kafka {broker.version} on {broker.bootstrap_servers}")
        yield broker, folder
        if keep:
            stack.pop_all()


def _reporter(doing: "Doing") -> "Progress":
    """Shows how the start of the broker gets on."""
    from pf_stream.kafka.dev import Stage, Step

    def report(step: Step) -> None:
        match step.stage:
            case Stage.downloading:
                doing.part(f"downloading Kafka, {step.total / 1e6:.0f} MB", step.done, step.total)
            case Stage.waiting:
                doing.rest("waiting for another download of Kafka")
            case _:
                doing.rest("starting Kafka")

    return report


@contextmanager
def _worker(interrupts: Interrupts, broker: "BrokerInfo", folder: Path, *, keep: bool) -> Iterator["WorkerProcess"]:
    """A worker on the topology; drained afterwards."""
    from nyc.worker import WorkerProcess

    with interrupts.held():
        worker = WorkerProcess(broker.bootstrap_servers, folder / "issuer.key.pub", folder / "worker.log", kept=keep)
    try:
        (folder / "worker.pid").write_text(str(worker.pid))
        yield worker
    except BaseException:
        worker.kill()
        raise
    if not keep:
        worker.drain()


def stop() -> bool:
    """Stop what a run with KEEP=1 left running and delete it; whether there was anything."""
    import psutil

    from pf_stream.kafka.dev import DevBroker

    if not KEPT.is_dir():
        return False
    with suppress(FileNotFoundError, psutil.NoSuchProcess):
        worker = psutil.Process(int((KEPT / "worker.pid").read_text()))
        if str(KEPT / "issuer.key.pub") in worker.cmdline():  # else it has gone, and another has its number
            worker.terminate()
            try:
                worker.wait(20)
            except psutil.TimeoutExpired:
                worker.kill()
    DevBroker(KEPT / "kafka").down()
    shutil.rmtree(KEPT)
    return True


def _what_next(screen: "Screen", *, keep: bool) -> None:
    here = Path.cwd()
    pf = Path(sys.executable).parent / "pf"
    known = shutil.which("pf")
    name = "pf" if known and Path(known) == pf else _relative(pf, here)
    kept = _relative(KEPT, here)
    screen.say()
    if keep:
        screen.say("Kafka and the worker are still running. What to try next:", style="bold")
    else:
        screen.say("What to try next: KEEP=1 make demo leaves Kafka and the worker running, for", style="bold")
    screen.say()
    for line in (
        f"export PF_DEV_DATA_DIR={kept}/kafka PF_TOPOLOGY={_relative(Path(__file__).parent, here)}/topology.yaml",
        f"{name} state get board EWR",
        f"{name} dlq list",
        f"{name} registry list",
        f"{name} intent send flights.departed --data @{kept}/flight.json --context {kept}/UA.ctx --wait",
        f"{name} intent send flights.departed --data @{kept}/flight.json --context {kept}/AA.ctx --wait",
        "make demo-stop",
    ):
        screen.command(line)


def _relative(path: Path, start: Path) -> str:
    return str(path.relative_to(start)) if path.is_relative_to(start) else str(path)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
