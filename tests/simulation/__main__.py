"""``make simulate``: many seeds, or one again. Prints what is needed to replay a failure; exits with 1 if there is one."""

import argparse
import os
import sys
import traceback
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.world import Simulation


def failure(seed: int) -> tuple[int, str]:
    """What went wrong under a seed, as text; nothing if all promises were kept."""
    try:
        Simulation(seed).run()
    except Exception as error:  # noqa: BLE001 - whatever it is, the other seeds go on
        notes = "\n".join(getattr(error, "__notes__", []))
        shown = "" if isinstance(error, AssertionError) else "".join(traceback.format_exception(error))
        return seed, f"{shown}{error}\n{notes}"
    return seed, ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many, from 0 on")
    parser.add_argument("--seed", type=int, help="this one alone")
    arguments = parser.parse_args()
    seeds = range(arguments.seeds) if arguments.seed is None else [arguments.seed]
    failed = []
    with ProcessPoolExecutor(min(len(seeds), os.cpu_count() or 1)) as pool:
        for done, (seed, text) in enumerate(pool.map(failure, seeds, chunksize=min(20, len(seeds))), 1):
            if text:
                failed.append(seed)
                sys.stdout.write(f"seed {seed} failed\n{text}\n\n")
            if done % 1000 == 0 and done < len(seeds):
                sys.stdout.write(f"{done} of {len(seeds)} seeds, {len(failed)} failed\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(seeds)} seeds, {len(failed)} failed{': ' if failed else ''}{', '.join(map(str, failed))}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
