"""A topology of pipelines, for workers that are started as programs: windows, sessions and a join, behind internal topics."""

from typing import Final

from tests.simulation.streams import topology_of

KINDS: Final = ["tumbling", "session", "joined"]
sim = topology_of(KINDS, standby=0)
