"""What waits for a consumer that is slower than its source: bounded queues, and what they do when they are full. Pure."""

from pf_stream.backpressure.bucket import Bucket
from pf_stream.backpressure.counts import Counts
from pf_stream.backpressure.queue import Disk, Queue, Sized, make_queue

__all__ = ["Bucket", "Counts", "Disk", "Queue", "Sized", "make_queue"]
