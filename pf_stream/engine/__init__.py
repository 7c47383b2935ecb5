"""The engine: a Faust app for each topology, with lanes in place of Faust's data path."""

from pf_stream.engine.errors import LaneError, TopicReplacedError, WatermarkRangeError
from pf_stream.engine.settings import WorkerSettings
from pf_stream.engine.worker import Worker

__all__ = ["LaneError", "TopicReplacedError", "WatermarkRangeError", "Worker", "WorkerSettings"]
