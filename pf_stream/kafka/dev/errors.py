"""What can go wrong with the development broker.

::

    PFError
    ├── ConfigurationError
    │   └── JavaUnusableError         java_unusable
    └── DevBrokerError
        ├── RepositoryUnreachableError  repository_unreachable, retryable
        ├── ArtifactMissingError        artifact_missing
        ├── ArtifactCorruptError        artifact_corrupt
        ├── DiskError                   disk
        ├── BrokerBusyError             broker_busy, retryable
        ├── BrokerRunningError          broker_running
        ├── BrokersDifferError          brokers_differ
        ├── PortBusyError               port_busy
        ├── BrokerDiedError             broker_died
        ├── BrokerTimeoutError          broker_timeout, retryable
        └── BrokerUnstoppableError      broker_unstoppable
"""

from collections.abc import Sequence
from pathlib import Path

from pf_stream.errors import ConfigurationError, PFError

__all__ = [
    "ArtifactCorruptError",
    "ArtifactMissingError",
    "BrokerBusyError",
    "BrokerDiedError",
    "BrokerRunningError",
    "BrokerTimeoutError",
    "BrokerUnstoppableError",
    "BrokersDifferError",
    "DevBrokerError",
    "DiskError",
    "JavaUnusableError",
    "PortBusyError",
    "RepositoryUnreachableError",
]


class DevBrokerError(PFError):
    """Raised when the development broker cannot be fetched, started or stopped; the base of those below."""

    code = "dev_broker"


class JavaUnusableError(ConfigurationError):
    """Raised when there is no Java runtime that can run the broker; the message says what to set or install."""

    code = "java_unusable"

    def __init__(self, problem: str, fix: str) -> None:
        self.problem = problem
        self.fix = fix
        super().__init__(f"{problem}; {fix}")


class RepositoryUnreachableError(DevBrokerError):
    """Raised when a jar is needed and the Maven repository does not answer."""

    code = "repository_unreachable"
    retryable = True

    def __init__(self, repository: str, reason: str) -> None:
        self.repository = repository
        self.reason = reason
        super().__init__(
            f"cannot reach the Maven repository {repository} ({reason}); "
            "set PF_MAVEN_MIRROR to a mirror or to a folder of jars"
        )


class ArtifactMissingError(DevBrokerError):
    """Raised when the Maven repository, or the folder given in its place, does not have a jar of the lock."""

    code = "artifact_missing"

    def __init__(self, jar: str, repository: str) -> None:
        self.jar = jar
        self.repository = repository
        super().__init__(f"{repository} has no {jar}; set PF_MAVEN_MIRROR to a mirror or a folder that has it")


class ArtifactCorruptError(DevBrokerError):
    """Raised when the bytes that came for a jar are not the bytes that the lock names."""

    code = "artifact_corrupt"

    def __init__(self, jar: str, repository: str, expected: str, found: str) -> None:
        self.jar = jar
        self.repository = repository
        self.expected = expected
        self.found = found
        super().__init__(f"{jar} from {repository} is not the file of the lock: expected {expected}, got {found}")


class DiskError(DevBrokerError):
    """Raised when the disk is full or a folder cannot be written."""

    code = "disk"

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"cannot write {path}: {reason}")


class BrokerBusyError(DevBrokerError):
    """Raised when another process works on the same data folder for longer than the deadline."""

    code = "broker_busy"
    retryable = True

    def __init__(self, data_dir: Path, seconds: float) -> None:
        self.data_dir = data_dir
        super().__init__(f"another process has been starting or stopping the broker in {data_dir} for {seconds:g} s")


class BrokerRunningError(DevBrokerError):
    """Raised when a broker runs in the data folder already, on another port than the one asked for."""

    code = "broker_running"

    def __init__(self, data_dir: Path, running: int, asked: int) -> None:
        self.data_dir = data_dir
        self.running = running
        self.asked = asked
        super().__init__(
            f"the broker in {data_dir} runs on port {running}, not {asked}; "
            "stop it first (`pf dev down`), or leave the port out"
        )


class BrokersDifferError(DevBrokerError):
    """Raised when the data folder is that of another number of brokers than the one asked for."""

    code = "brokers_differ"

    def __init__(self, data_dir: Path, there: int, asked: int) -> None:
        self.data_dir = data_dir
        self.there = there
        self.asked = asked
        super().__init__(
            f"{data_dir} is the folder of {there} broker{'s' * (there > 1)}, not of {asked}; "
            "empty it first (`pf dev reset`), or name another --data-dir"
        )


class PortBusyError(DevBrokerError):
    """Raised when the port that was asked for is in use."""

    code = "port_busy"

    def __init__(self, port: int) -> None:
        self.port = port
        super().__init__(f"port {port} is in use on 127.0.0.1; choose another one, or none to take a free one")


class BrokerDiedError(DevBrokerError):
    """Raised when the broker process ended before it was ready."""

    code = "broker_died"

    def __init__(self, reason: str, log_path: Path) -> None:
        self.reason = reason
        self.log_path = log_path
        super().__init__(f"the broker ended while starting: {reason} (log: {log_path})")


class BrokerTimeoutError(DevBrokerError):
    """Raised when the broker runs but no topic could be created before the deadline."""

    code = "broker_timeout"
    retryable = True

    def __init__(self, seconds: float, last_error: str, log_path: Path, log_tail: Sequence[str]) -> None:
        self.seconds = seconds
        self.last_error = last_error
        self.log_path = log_path
        self.log_tail = tuple(log_tail)
        tail = "".join(f"\n  {line}" for line in self.log_tail)
        super().__init__(f"the broker was not ready after {seconds:g} s: {last_error}; end of {log_path}:{tail}")


class BrokerUnstoppableError(DevBrokerError):
    """Raised when the broker process remains even after SIGKILL."""

    code = "broker_unstoppable"

    def __init__(self, pid: int) -> None:
        self.pid = pid
        super().__init__(f"process {pid} of the broker does not end, not even by SIGKILL")
