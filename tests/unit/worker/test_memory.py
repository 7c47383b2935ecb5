"""Large blocks that are freed and wanted again cost no page faults."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
from pf_stream.worker.memory import keep_freed_memory

print(keep_freed_memory())
data = bytes(2_000_000)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        bytes(bytearray(data))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""


def run(**variables: str) -> tuple[str, int]:
    """Whether memory is kept, and how many page faults fifty pairs of blocks of two megabytes cause."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | variables
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=given, capture_output=True, text=True, check=True)
    kept, faults = done.stdout.split()
    return kept, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="there is no mallopt")
def test_it_is_kept_unless_variables_say_what_is_wanted() -> None:
    kept, faults = run()
    assert kept == "True"
    assert faults < 100
    kept, faults = run(MALLOC_TRIM_THRESHOLD_="131072")
    assert kept == "False"
    assert faults > 10_000
