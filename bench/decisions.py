"""Speed and memory of capability decisions, and what refused tokens cost those who send valid ones.

No Kafka: tokens, requirements and the lane are those of the flights topology. All figures are processor time of one process.
What is compared is measured in turns, round after round. See bench/README.md.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any, Final

import psutil
from biscuit_auth import Biscuit, BlockBuilder

sys.path.insert(0, str(Path(__file__).parent.parent / "topologies" / "flights"))

from bench.machine import cpu_name
from flights import FlightCap, FlightDeparted, flights
from pf_stream.core import Authority, CommitUnit, Lane, Limits, SourceRecord, plan
from pf_stream.core.records import APPEND_TIME
from pf_stream.security import Claims, Refusal, SigningKey, TrustRoots, Verifier, attenuate, mint
from pf_stream.security.envelope import Envelope, to_base64url

NOW_MS: Final = 1_767_225_600_000
KEY: Final = SigningKey.generate(1)
ROOTS: Final = TrustRoots.of(KEY)
FORGED: Final = SigningKey.generate(1)
PLAN: Final = next(group for group in plan(flights, 1) if group.name == "intents")
TOPIC: Final = flights.topic_name("intents")
ROUTE: Final = next(source for source in PLAN.sources if source.topic == TOPIC).routes[b"flights.departed.v1"]
INTENT: Final = FlightDeparted(tailnum="N1", carrier="UA", origin="EWR", flight=1, dest="X")
CARRIERS: Final = 16
REFUSED_PER_S: Final = 1000
_ends: Final = count()


@dataclass(slots=True)
class Row:
    """A line of the table."""

    what: str
    """What is measured."""
    unit: str
    """Its unit."""
    target: str
    """``<=`` or ``>=`` and a number; empty where there is none."""
    values: list[float] = field(default_factory=list)
    """One for each round."""

    @property
    def met(self) -> bool | None:
        """Whether the median is on the right side; None without a target."""
        if not self.target:
            return None
        relation, number = self.target.split()
        median = statistics.median(self.values)
        return median <= float(number) if relation == "<=" else median >= float(number)


def main() -> int:
    """Run the rounds; 0 if all targets were met."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--rounds", type=int, default=7, help="7")
    arguments.add_argument("--tokens", type=int, default=100_000, help="how many live ones, for their memory; 100000")
    arguments.add_argument("-o", "--output", choices=["table", "json"], default="table")
    arguments.add_argument("--live", metavar="FILE", help=argparse.SUPPRESS)  # the process whose memory is measured
    given = arguments.parse_args()
    if given.live is not None:
        return _hold(Path(given.live))
    conditions = {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "biscuit-python": version("biscuit-python"),
        "rounds": given.rounds,
        "load": round(os.getloadavg()[0], 2),
    }
    rows: dict[str, Row] = {}
    for number in range(given.rounds):
        for what, unit, target, value in (*_speed(number), *_hostile(number)):
            rows.setdefault(what, Row(what, unit, target)).values.append(value)
    for what, unit, target, value in _memory(given.tokens):
        rows[what] = Row(what, unit, target, [value])
    if given.output == "json":
        print(json.dumps({"conditions": conditions, "rows": [asdict(row) | {"met": row.met} for row in rows.values()]}))
    else:
        print(json.dumps(conditions))
        _table(list(rows.values()))
    return 0 if all(row.met is not False for row in rows.values()) else 1


Measured = tuple[str, str, str, float]
"""What, its unit, its target, and the value of a round."""


# --- tokens -----------------------------------------------------------------------------------------------------------


def _token(name: object, blocks: int = 1, carrier: str = "**", key: SigningKey = KEY, lifetime_s: float = 900) -> bytes:
    """A token as issuers and the engine make them; each *name* has an end of its own."""
    token = mint(
        key,
        subject=f"client {name}",
        audience=flights.namespace,
        capabilities=[FlightCap.report(f"/{carrier}/**" if carrier != "**" else "/**")],
        now_ms=NOW_MS,
        lifetime_s=lifetime_s + next(_ends) % 3600,
    )
    for _ in range(blocks - 1):
        token = attenuate(
            token,
            ROOTS,
            capabilities=[FlightCap.report("/**")],
            intent_types=[FlightDeparted.__intent__.type],
            topics=[TOPIC],
        )
    return token.encode()


def _appended(token: bytes, source: str) -> bytes:
    """*token* with a block that says whatever its holder likes."""
    root = ROOTS.key(KEY.kid)
    assert root is not None
    parent = Biscuit.from_bytes(Envelope.read(token).data, root)
    return to_base64url(bytes(parent.append(BlockBuilder(source)).to_bytes())).encode()


def _bomb(token: bytes, facts: int, number: int) -> bytes:
    """Datalog that would take hours."""
    return _appended(
        token,
        "".join(f"f({number}, {at});" for at in range(facts)) + "check if f($a, $b), f($c, $d), f($e, $g), f($h, $i);",
    )


# --- decisions --------------------------------------------------------------------------------------------------------


def _speed(number: int) -> Iterator[Measured]:
    """One round of decisions, each kind once."""
    for blocks, target in ((1, 200_000), (3, 100_000)):
        authority = Authority(Verifier(ROOTS, flights.namespace))
        token = _token(("speed", number), blocks)
        authority.decide(token, ROUTE, ("UA", "EWR"), INTENT, NOW_MS)
        if blocks == 1:
            kept = [bytes(bytearray(token)) for _ in range(20_000)]  # each record has bytes of its own
            values = [(f"U{at % 16}", f"E{at % 300}") for at in range(20_000)]
            for one in values[:4800]:
                authority.decide(token, ROUTE, one, INTENT, NOW_MS)

            def look(authority: Authority = authority, kept: list[bytes] = kept, values: list[Any] = values) -> None:
                for token, value in zip(kept, values, strict=True):
                    claims = authority.recent.get(token)
                    assert claims is not None
                    assert (ROUTE, value) in claims.notes
                    assert not ROUTE.checks.each
                    assert claims.not_before_ms <= NOW_MS < claims.expires_ms

            yield "token and resource known", "us", "<= 1.5", _cpu_s(look) / 20_000 * 1e6
        fresh = [("UA", f"E{number} {at}") for at in range(10_000)]

        def decide(authority: Authority = authority, token: bytes = token, fresh: list[Any] = fresh) -> None:
            for value in fresh:
                authority.decide(token, ROUTE, value, INTENT, NOW_MS)

        rate = len(fresh) / _cpu_s(decide)
        yield f"token known, resource new, {_blocks(blocks)}", "1/s", f">= {target}", rate
    for blocks in (1, 3):
        ours = theirs = 0.0
        tokens = [_token(("fresh", number, at), blocks) for at in range(300)]
        verifier = Verifier(ROOTS, flights.namespace)
        for at in range(0, len(tokens), 20):
            some = tokens[at : at + 20]
            theirs += _cpu_s(partial(_each, _biscuit, some))
            ours += _cpu_s(partial(_each, verifier.verify, some))
        assert all(isinstance(verifier.verify(token), Claims) for token in tokens)
        yield f"first sight, {_blocks(blocks)}", "us", "", ours / len(tokens) * 1e6
        yield f"first sight, {_blocks(blocks)}, times biscuit-python's", "", "<= 1.3", ours / theirs


def _biscuit(token: bytes) -> Biscuit:
    root = ROOTS.key(KEY.kid)
    assert root is not None
    return Biscuit.from_bytes(urlsafe_b64decode(token + b"=" * (-len(token) % 4)), root)


def _each(what: Callable[[bytes], object], tokens: Sequence[bytes]) -> None:
    for token in tokens:
        what(token)


def _blocks(count: int) -> str:
    return "1 block" if count == 1 else f"{count} blocks"


def _cpu_s(what: Callable[[], object]) -> float:
    gc.collect()
    before = time.process_time()
    what()
    return time.process_time() - before


# --- refused tokens among valid ones ----------------------------------------------------------------------------------


class _Counting(Verifier):
    """Counts what it has not seen."""

    __slots__ = ("verified",)

    def __init__(self, roots: TrustRoots, audience: str) -> None:
        super().__init__(roots, audience)
        self.verified: list[bytes] = []

    def _verify(self, token: bytes) -> Claims | Refusal:
        self.verified.append(token)
        return super()._verify(token)


class _Traffic:
    """A lane of the flights topology without a broker."""

    def __init__(self) -> None:
        self.verifier = _Counting(ROOTS, flights.namespace)
        self.lane = Lane(PLAN, 0, Authority(self.verifier), Limits())
        self.lane.restore([])
        for topic in self.lane.begin("life"):
            self.lane.start_at(topic, 0, bytes(16))
        self._offsets = count()

    def records(self, tokens: Sequence[bytes], number: int, prefix: str = "E") -> list[SourceRecord]:
        """So many flights, with *tokens* in turn."""
        return [
            self._record(
                token,
                FlightDeparted(tailnum=f"N{at % 500}", carrier="UA", origin=f"{prefix}{at % 300}", flight=1, dest="X"),
            )
            for at, token in enumerate(islice(cycle(tokens), number))
        ]

    def _record(self, token: bytes, intent: FlightDeparted) -> SourceRecord:
        spec = intent.__intent__
        headers: list[tuple[str, bytes | None]] = [
            ("ce_specversion", b"1.0"),
            ("ce_type", spec.type.encode()),
            ("ce_source", b"/bench"),
            ("ce_id", b"1"),
            ("content-type", b"application/json"),
            ("pf-context", bytes(bytearray(token))),
        ]
        return SourceRecord(next(self._offsets), NOW_MS, spec.key_of(intent), spec.encode(intent), headers, APPEND_TIME)

    def run(self, records: Sequence[SourceRecord]) -> float:
        """Handle *records* and commit; the processor time."""
        before = time.process_time()
        left = iter(records)
        exhausted = False
        while not exhausted:
            exhausted = self.lane.step(TOPIC, left, NOW_MS)
            assert isinstance(self.lane.seal(), CommitUnit)
            self.lane.acknowledged()
        return time.process_time() - before


def _hostile(number: int) -> Iterator[Measured]:
    """One second of valid traffic alone, then with a thousand refused tokens for each kind that a client can make."""
    old = _token(("old", number))
    mine = _token(("mine", number))
    long, most = (
        attenuate(old, ROOTS, topics=[f"topic {at}" for at in range(number)]).encode() for number in (100, 60)
    )

    def of(at: int) -> tuple[object, int, int]:
        return "refused", number, at

    kinds: dict[str, tuple[str, Callable[[int], bytes]]] = {
        "forged": (">= 0.5", lambda at: _token(of(at), key=FORGED)),
        "expired": (">= 0.5", lambda at: _expired(of(at))),
        "insufficient": (">= 0.5", lambda at: _token(of(at), carrier="XX")),
        "too costly, 12 statements": (">= 0.5", lambda at: _bomb(old, 11, at)),
        "too costly, a block of 500 bytes": (">= 0.5", lambda at: _bomb(old, 28, at)),
        "too costly, a block of 1,000 bytes": (">= 0.5", lambda at: _bomb(old, 52, at)),
        "too costly, a block of 4,000 bytes": (">= 0.5", lambda at: _bomb(old, 250, at)),
        "too costly, behind 3,000 bytes of the profile": (">= 0.5", lambda at: _bomb(long, 11, at)),
        "too costly, behind 1,600 bytes of the profile": ("", lambda at: _bomb(most, 11, at)),
        "valid, one token narrowed 1,000 times": (
            "",
            lambda at: _appended(mine, f'check if topic("{TOPIC}") or topic("{at}")'),
        ),
    }
    valid = [_token(("valid", number, at)) for at in range(CARRIERS)]
    for kind, (target, make) in kinds.items():
        traffic, undisturbed = _Traffic(), _Traffic()
        for one in (traffic, undisturbed):
            one.run(one.records(valid, 6000))
            one.verifier.verified.clear()
        junk = [make(at) for at in range(REFUSED_PER_S)]
        spent = alone = 0.0
        at = 0
        while at < len(junk):
            alone += undisturbed.run(undisturbed.records(valid, 200))
            spent += traffic.run(traffic.records(valid, 200))
            due = min(int(spent * REFUSED_PER_S) - at, len(junk) - at)
            if due > 0:
                spent += traffic.run(traffic.records(junk[at : at + due], due))
                at += due
        again = sum(token in set(valid) for token in traffic.verifier.verified)
        yield f"valid traffic among 1,000/s: {kind}", "of its rate alone", target, alone / spent
        yield f"valid tokens verified again: {kind}", "", "<= 0", float(again)


def _expired(name: object) -> bytes:
    return mint(
        KEY,
        subject=f"client {name}",
        audience=flights.namespace,
        capabilities=[FlightCap.report("/**")],
        now_ms=NOW_MS - 7_200_000,
    ).encode()


# --- memory -----------------------------------------------------------------------------------------------------------


def _memory(tokens: int) -> Iterator[Measured]:
    """Resident memory of live tokens, in a process that does nothing else."""
    for blocks in (1, 3):
        with tempfile.NamedTemporaryFile("wb", suffix=".tokens") as file:
            file.write(ROOTS[KEY.kid].encode() + b"\n")
            for at in range(tokens + _FIRST):
                file.write(_token(("live", at), blocks) + b"\n")
            file.flush()
            result = subprocess.run(
                [sys.executable, __file__, "--live", file.name], capture_output=True, check=True, text=True
            )
        added, estimated = json.loads(result.stdout)
        yield f"live tokens, {_blocks(blocks)}", "MB for 100,000", "<= 300", added / tokens * 0.1
        yield f"their estimate, {_blocks(blocks)}, lower", "of what was measured", ">= 0.7", estimated / added
        yield f"their estimate, {_blocks(blocks)}, upper", "of what was measured", "<= 1.3", estimated / added


def _hold(path: Path) -> int:
    """Verify the tokens of a file, keep them, and print the resident memory that they added, and the estimate."""
    with path.open("rb") as file:
        verifier = Verifier(
            TrustRoots({KEY.kid: file.readline().decode().strip()}), flights.namespace, cache_bytes=4 << 30
        )
        process = psutil.Process()
        estimated = before = 0
        for at, line in enumerate(file):
            token = line.strip()
            claims = verifier.verify(token)
            assert isinstance(claims, Claims)
            if at == _FIRST:
                before = process.memory_info().rss
            elif at > _FIRST:
                estimated += claims.size
        print(json.dumps([process.memory_info().rss - before, estimated]))
    return 0


_FIRST: Final = 100
"""Tokens that are not counted: they make what all have in common."""


def _table(rows: Sequence[Row]) -> None:
    print("\n| what | unit | target | median | least | most | met |")
    print("|---|---|---|---:|---:|---:|---|")
    for row in rows:
        figures = (statistics.median(row.values), min(row.values), max(row.values))
        shown = " | ".join(f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" for value in figures)
        met = {True: "yes", False: "NO", None: ""}[row.met]
        print(f"| {row.what} | {row.unit} | {row.target} | {shown} | {met} |")


if __name__ == "__main__":
    sys.exit(main())
