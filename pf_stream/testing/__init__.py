"""The testing kit: a whole topology in memory, under a virtual clock."""

from pf_stream.core import Limits
from pf_stream.testing.driver import Action, Driver
from pf_stream.testing.records import DeadLetter, OutputRecord, Position

__all__ = ["Action", "DeadLetter", "Driver", "Limits", "OutputRecord", "Position"]
