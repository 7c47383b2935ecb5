"""Jobs in a topology file: what they become, and where faults of them are."""

from datetime import UTC, datetime
from typing import Any

import pytest

from pf_stream.testing import Driver
from pf_stream.topology.file import TopologyFileError, read_topology_file
from tests.unit.topology.conftest import Folder

SOURCE = """

from pf_stream import Effects, Emit
from pf_stream.temporal import JobRun, job


@job(cron="0 2 * * *")
def nightly(run: JobRun) -> Effects:
    return Emit(Ping(host="night"))
"""

GOOD = """\
name: pings
reactors: [MODULE:Watcher]
calendars:
  office:
    zone: UTC
    open: [mon-fri 09:00-17:00 UTC]
jobs:
  key: 7
  grants: [JobsCap.ping:/**]
  declared: [MODULE:nightly]
  made:
    hourly: {every: 1h, during: calendar office, intent: ping.v1, payload: {host: hour}, start: 2026-01-01T00:00:00Z}
    again: {cron: "30 3 * * *", run: nightly, retry: {attempts: 3}}
capabilities:
  JobsCap: {ping: []}
"""


@pytest.fixture(scope="module")
def jobs(shared: Folder) -> Folder:
    """A folder whose module has a job too."""
    source = (shared.path / f"{shared.module}.py").read_text()
    return Folder(shared.path, shared.add(source + SOURCE, "jobs"))


def test_they_run(jobs: Folder) -> None:
    topology = read_topology_file(jobs.write(GOOD))
    driver = Driver(topology, now=datetime(2026, 3, 2, tzinfo=UTC))
    driver.advance(86_400)
    watcher = topology.reactors[0]
    counts: dict[str, Any] = {host: driver.state(watcher, host) for host in ("night", "hour")}
    assert (counts["night"].count, counts["hour"].count) == (2, 8)
    assert driver.dead_letters() == []


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "text"),
    [
        ("key: 7", "key: -1", 8, "jobs.key", "the kid of the key that signs for them"),
        ("declared:", "declare:", 10, "jobs.declare", "there is no field 'declare'; did you mean 'declared'?"),
        ("[JobsCap.ping:/**]", "[JobsCap]", 9, "jobs.grants[0]", "JobsCap"),
        ("MODULE:nightly", "MODULE:nightl", 10, "jobs.declared[0]", "has no Job 'nightl'; did you mean 'nightly'?"),
        ("every: 1h", "every: soon", 12, "jobs.made.hourly", "every='soon'"),
        ("every: 1h", "ever: 1h", 12, "jobs.made.hourly.ever", "did you mean 'every'?"),
        ("every: 1h", "every: 7", 12, "jobs.made.hourly.every", "found 7, a number; allowed"),
        ("ping.v1", "pin.v1", 12, "jobs.made.hourly", "no intent 'pin.v1' to send; did you mean 'ping.v1'?"),
        ("calendar office", "calendar offices", 12, "jobs.made.hourly", "names the calendar 'offices'"),
        ("30 3 * * *", "30 3 30 2 *", 13, "jobs.made.again", "Bad day-of-month"),
        ("run: nightly", "run: nightl", 13, "jobs.made.again", "did you mean 'nightly'?"),
        ("again:", "nightly:", 7, "jobs", "two jobs are called 'nightly'"),
    ],
)
def test_faults_have_a_place(jobs: Folder, old: str, new: str, line: int, field: str, text: str) -> None:
    with pytest.raises(TopologyFileError) as caught:
        read_topology_file(jobs.write(GOOD.replace(old, new)))
    (fault,) = caught.value.faults
    assert (fault.line, fault.field) == (line, field)
    assert text in fault.text
