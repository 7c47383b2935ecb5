"""``pf bench`` on a real broker: what it says, and that nothing is left."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pf_stream.kafka.admin import Admin
from pf_stream.kafka.link import ConnectionSettings

TOPOLOGY = """
import hashlib
from typing import Annotated
from pf_stream import Capability, Context, Emit, Intent, Key, Reactor, State, Topology, caller, on, operation

class SlowCap(Capability):
    do = operation()

class Asked(Intent, name="slow.asked", requires=SlowCap.do("/{name}")):
    name: Annotated[str, Key]

class Done(Intent, name="slow.done", topic="done", requires=SlowCap.do("/{name}")):
    name: Annotated[str, Key]

class Owned(Intent, name="slow.owned", topic="owned", requires=caller(subject="owner")):
    name: Annotated[str, Key]

class Count(State):
    n: int = 0

class Slow(Reactor[Count], id="slow"):
    @on
    def asked(self, intent: Asked, state: Count, ctx: Context) -> Emit:
        hashlib.pbkdf2_hmac("sha256", b"slow", b"slow", 600)
        state.n += 1
        return Emit(Done(name=intent.name))

class Fast(Reactor[Count], id="fast"):
    @on
    def done(self, intent: Done, state: Count, ctx: Context) -> None:
        state.n += 1

    @on
    def owned(self, intent: Owned, state: Count, ctx: Context) -> None:
        state.n += 1

slow = Topology("slow", [Slow, Fast], internal=["done"], partitions=2)
"""


def topics(servers: str) -> list[str]:
    return [name for name in Admin(ConnectionSettings(servers)).names() if "bench" in name or "slow" in name]


def test_a_topology_of_two_hops_is_measured_and_nothing_is_left(bootstrap_servers: str, tmp_path: Path) -> None:
    (tmp_path / "slowly.py").write_text(TOPOLOGY, encoding="utf-8")
    asked = [{"type": "slow.asked", "data": {"name": name}} for name in "abcdefg"]
    intents = [*asked, {"type": "slow.owned", "data": {"name": "mine"}}]
    (tmp_path / "intents.jsonl").write_text("\n".join(map(json.dumps, intents)), encoding="utf-8")
    command = [sys.executable, "-m", "pf_stream", "bench", "slowly:slow", "--intents", "intents.jsonl", "-o", "json"]
    done = subprocess.run(
        [*command, "--records", "12000", "--rate", "200", "--seconds", "2"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path.cwd()), "PF_BOOTSTRAP_SERVERS": bootstrap_servers},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    said: dict[str, Any] = json.loads(done.stdout)
    # One in eight is refused, so the figures are not of what was meant, and it says so.
    assert done.returncode == 1
    assert done.stderr.startswith("refused: ")
    assert said["refused"] == {"wrong_caller": 1000}  # of the last thousand
    assert (said["topology"], said["intents"], said["records"]) == ("slow", 12_000, 12_000 + 10_500)
    assert said["records_per_s"] == pytest.approx(said["intents_per_s"] * 22_500 / 12_000, rel=0.01)
    assert 0 < said["p50_ms"] <= said["p99_ms"] < 30_000
    assert said["cpu_us_per_record"] > 50  # of what the handler takes
    assert topics(bootstrap_servers) == []
