"""``python -m tests.chaos.campaign --seed 1 --minutes 5``: chaos on a real Kafka, and an exact account of it."""

import argparse
import secrets
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "topologies" / "flights"))

from tests.chaos.campaign._campaign import Plan, run_campaign


def main() -> int:
    """Run one; 0 if everything was as it must be."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition(": ")[2])
    arguments.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31), help="by default another each time")
    arguments.add_argument("--minutes", type=float, default=5.0, help="how long harm is done")
    arguments.add_argument("--brokers", type=int, default=3)
    arguments.add_argument("--rate", type=int, default=150, help="commands a second")
    given = arguments.parse_args()
    plan = Plan(given.seed, given.minutes * 60, given.brokers, given.rate)
    replay = (
        f"python -m tests.chaos.campaign --seed {plan.seed} --minutes {given.minutes:g} "
        f"--brokers {plan.brokers} --rate {plan.rate}"
    )
    started = time.monotonic()

    def say(text: str) -> None:
        sys.stdout.write(f"{time.monotonic() - started:7.1f} s  {text}\n")
        sys.stdout.flush()

    folder = Path(tempfile.mkdtemp(prefix="pf-chaos-"))
    say(replay)
    try:
        report = run_campaign(plan, folder, say)
        sys.stdout.write("\n".join(["", *report.lines(), ""]))
        failed = bool(report.differences)
    except BaseException as error:  # noqa: BLE001 - whatever ended it, the logs are kept and the seed is said
        traceback.print_exception(error)
        failed = True
    if failed:
        sys.stdout.write(f"\nlogs: {folder}\nagain: {replay}\n")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
