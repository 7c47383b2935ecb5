"""The engine: a Faust app for each topology, with lanes in place of Faust's data path."""

from pf_stream.engine.errors import LaneError, ServiceKeyError, StoreError, TopicReplacedError, WatermarkRangeError
from pf_stream.engine.metrics import Metrics
from pf_stream.engine.settings import WorkerSettings
from pf_stream.engine.worker import Worker, check_service_keys, check_state_dir

__all__ = [
    "LaneError",
    "Metrics",
    "ServiceKeyError",
    "StoreError",
    "TopicReplacedError",
    "WatermarkRangeError",
    "Worker",
    "WorkerSettings",
    "check_service_keys",
    "check_state_dir",
]
