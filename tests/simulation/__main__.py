"""`python -m tests.simulation`: many seeds' worlds, with a report; or one of them, with its full trace."""

import argparse
import sys
from time import perf_counter

from tests.simulation.databases import open_databases
from tests.simulation.world import Report, run_world


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="the first of them")
    parser.add_argument("--trace", action="store_true", help="tell what happened")
    options = parser.parse_args()
    total, began = Report(), perf_counter()
    with open_databases() as databases:
        for seed in range(options.seed, options.seed + options.seeds):
            world = run_world(seed, databases)
            total.add(world.report)
            if options.trace:
                print(f"# {world.climate}", *world.trace, sep="\n")
            for violation in world.report.violations:
                print(f"seed {seed}: {violation}")
    print(f"{perf_counter() - began:.1f} s: {total}")
    return 1 if total.violations else 0


if __name__ == "__main__":
    sys.exit(main())
