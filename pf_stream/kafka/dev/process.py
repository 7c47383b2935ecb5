"""The broker's process: how it is started, found again and ended."""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from pf_stream.kafka.dev.errors import BrokerUnstoppableError
from pf_stream.kafka.dev.java import Java
from pf_stream.kafka.dev.storage import BrokerRecord, DataDir

__all__ = ["JAVA_OPTIONS", "BrokerProcess", "find", "spawn"]

JAVA_OPTIONS = "PF_DEV_JAVA_OPTIONS"
"""Further options of the broker's JVM, such as ``-Xmx2g``; they come last, so they overrule ours."""

_KILL_WAIT_S = 10.0
_TICK_S = 0.01


class BrokerProcess:
    """A broker that runs, or ran until a moment ago."""

    def __init__(self, process: psutil.Process, guard: "_Guard | None" = None) -> None:
        self._process = process
        self._guard = guard
        self.pid: int = process.pid
        self._exit_code: int | None = None

    def ended(self, within: float) -> bool:
        """Wait at most *within* seconds for its end; whether it came."""
        deadline = time.monotonic() + within
        while not self._has_ended():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_TICK_S)
        return True

    def _has_ended(self) -> bool:
        if self._exit_code is not None:
            return True
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return not _runs(self._process)  # another process started it
        if pid == 0:
            return False
        self._exit_code = os.waitstatus_to_exitcode(status)
        return True

    def exit_text(self) -> str:
        """How it ended, once :meth:`ended` was true; only its parent can know."""
        code = self._exit_code
        if code is None:
            return "the process is gone"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def ask_to_end(self) -> None:
        """SIGTERM."""
        with suppress(psutil.NoSuchProcess):
            self._process.terminate()

    def end(self, grace: float) -> None:
        """SIGTERM, *grace* seconds, SIGKILL.

        Raises:
            BrokerUnstoppableError: not even that ended it.
        """
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if grace > 0:
                self._process.terminate()
            if not self.ended(grace):
                # It leads a session: what it started goes too, as the JVM that assembles an AOT cache.
                os.killpg(self.pid, signal.SIGKILL)
                if not self.ended(_KILL_WAIT_S):
                    raise BrokerUnstoppableError(self.pid)
        if self._guard is not None:
            self._guard.release()

    def rss_bytes(self) -> int:
        """Resident memory; 0 if it has just ended."""
        try:
            return int(self._process.memory_info().rss)
        except psutil.NoSuchProcess:
            return 0


def spawn(
    java: Java,
    jars: Sequence[Path],
    data: DataDir,
    token: str,
    flags: Sequence[str],
    *,
    guarded: bool,
    swept: Path | None = None,
) -> BrokerProcess:
    """Start the broker of a prepared data folder, in a session of its own, which Ctrl-C and hang-up do not reach.

    A *guarded* one is killed, and its folder removed, when this process ends in whatever way; *swept* is the folder of
    the whole cluster, where its own is not all.
    """
    command = [
        str(java.executable),
        f"-Dpf.dev.token={token}",
        *java.flags,
        *flags,
        *shlex.split(os.environ.get(JAVA_OPTIONS, "")),
        f"-Djava.io.tmpdir={data.path / 'tmp'}",
        "-Dlog4j2.configurationFile=log4j2.properties",
        "-cp",
        os.pathsep.join(map(str, jars)),
        "kafka.Kafka",
        "server.properties",
    ]
    # Options of the user's own Java programs would invalidate the AOT cache, or worse, attach an agent.
    # Without a UTF-8 locale a JVM cannot open a data folder whose path is not ASCII.
    ignored = {"JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH"}
    environ = {name: value for name, value in os.environ.items() if name not in ignored}
    environ["LC_ALL"] = "C.UTF-8"
    guard = _Guard(swept or data.path) if guarded else None
    if guard is not None:
        command = guard.command(command)
    with data.log_path.open("ab") as log:
        child = subprocess.Popen(
            command,
            cwd=data.path,
            env=environ,
            stdin=subprocess.DEVNULL if guard is None else guard.pipe,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    process = psutil.Process(child.pid)
    child.returncode = 0  # psutil waits for it, maybe in another process; Popen must not complain about one that runs
    return BrokerProcess(process, guard)


def find(record: BrokerRecord) -> BrokerProcess | None:
    """The process that was started for *record*, if it still runs."""
    try:
        process = psutil.Process(record.pid)
        if f"-Dpf.dev.token={record.token}" in process.cmdline():
            return BrokerProcess(process)
    except psutil.Error:  # gone, a zombie, or another user's
        pass
    return None


def _runs(process: psutil.Process) -> bool:
    """Whether it has not ended. A zombie has: in a container, process 1 may collect it late or never."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class _Guard:
    """A shell that waits on a pipe of which only this process holds the other end.

    The kernel's own means, ``PR_SET_PDEATHSIG``, exists on Linux only and fires when the *thread* that started the
    broker ends.
    """

    def __init__(self, folder: Path) -> None:
        # The broker leads a session, so the negative pid names it and all that it starts.
        script = 'read -r pid; read -r _ && exit; [ -z "$pid" ] || kill -s KILL -- "-$pid"; rm -rf -- "$1"'
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", script, "pf-dev-guard", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._shell.stdin is not None
        self.pipe = self._shell.stdin

    @staticmethod
    def command(command: list[str]) -> list[str]:
        """Runs *command* with the pipe as its standard input, after telling the guard its pid.

        It is the new process that tells: this one might be killed just before it could.
        """
        return ["/bin/sh", "-c", 'echo $$ >&0; exec "$@" </dev/null', "pf-dev-start", *command]

    def release(self) -> None:
        """The broker has been ended by other means."""
        self._shell.communicate(b"\nreleased\n")  # two lines: should the first stand where a pid was to be told
