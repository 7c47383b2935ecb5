"""Topologies with state on disk, in a process whose tables in memory are small: so that they are written again and again, and
a kill finds some of it on disk and some not."""

from pf_stream.engine import rocks
from tests.kafka._support import exact_on_disk, lasting

__all__ = ["exact_on_disk", "lasting"]

setattr(rocks, "TABLE_BYTES", 64 << 10)  # noqa: B010 - it is a constant but here
