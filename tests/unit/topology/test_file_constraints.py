"""What topology files say of when intents are handled, and where faults of that are."""

import pytest

from pf_stream.model.constraint import never, only, within
from pf_stream.topology import TopologyFileError, read_topology_file
from tests.unit.topology.conftest import Folder

GOOD = """\
name: pings
reactors: [MODULE:Watcher, MODULE:Echo]
internal: [pongs]
calendars:
  office:
    zone: Europe/London
    open: [mon-fri 09:00-17:00 Europe/London]
constraints:
  ping:
    - only calendar office
    - within 24h
  "*":
    - never daily 12:00-12:30 UTC otherwise refuse
"""


def test_meaning(shared: Folder) -> None:
    topology = read_topology_file(shared.write(GOOD))
    assert dict(topology.constraints) == {
        "ping": (only("calendar office"), within("24h"), never("daily 12:00-12:30 UTC", otherwise="refuse"))
    }


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "text"),
    [
        ("only cal", "onyl cal", 10, "constraints.ping[0]", "did you mean 'only'?"),
        ("24h", "soon", 11, "constraints.ping[1]", "'soon' must be a number and a unit"),
        ("UTC otherwise", "Utc otherwise", 13, "constraints.*[0]", "there is no time zone 'Utc'"),
        (
            "  ping:\n    - only",
            "  pings:\n    - only",
            9,
            "constraints.pings",
            "no reactor handles; did you mean 'ping'?",
        ),
        ("calendar office", "calendar offcie", 10, "constraints.ping[0]", "did you mean 'office'?"),
        (
            "only calendar office",
            "only mon 09:00-10:00 UTC and tue 09:00-10:00 UTC",
            10,
            "constraints.ping[0]",
            "no time is left at which an intent may be handled",
        ),
        ("within 24h", "never calendar office", 9, "constraints.ping", "ping can never be handled"),
        ("within 24h", "[within 24h]", 11, "constraints.ping[1]", "a list; allowed: a text such as only mon-fri"),
        ("[MODULE:Watcher, MODULE:Echo]", "[MODULE:Echo]", 9, "constraints.ping", "which no reactor handles"),
    ],
)
def test_faults_have_a_place(shared: Folder, old: str, new: str, line: int, field: str, text: str) -> None:
    with pytest.raises(TopologyFileError) as caught:
        read_topology_file(shared.write(GOOD.replace(old, new)))
    fault = caught.value.faults[0]
    assert (fault.line, fault.field) == (line, field)
    assert text in fault.text
