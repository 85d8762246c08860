"""`python -m tests.faults`: faults at random from a seed, as a table. Exit code 1 if anything was wrong."""

import argparse
import sys
import tempfile
from pathlib import Path
from random import SystemRandom

from rich.console import Console
from rich.table import Table

from tests.faults import trial
from tests.faults.breaches import BREACHES
from tests.faults.scene import NODES

SHOWN = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of faults; a long run has longer ones")
    parser.add_argument("--seed", type=int, help="which faults, when and for how long; default: any")
    parser.add_argument("--database", choices=[*NODES, "both"], default="both")
    parser.add_argument("--breach", choices=sorted(BREACHES), help="run a service that is broken on purpose")
    options = parser.parse_args()
    seed = SystemRandom().randrange(10**6) if options.seed is None else options.seed
    failed = False
    for kind in NODES if options.database == "both" else (options.database,):
        folder = Path(tempfile.mkdtemp(prefix=f"faults-{kind}-"))
        outcome = trial.run(kind, folder, seed=seed, seconds=options.seconds, breach=options.breach)
        failed |= bool(outcome.violations)
        show(outcome, f"{kind}, {NODES[kind]} process(es), {options.seconds:g} s, seed {seed}")
        for violation in outcome.violations[:SHOWN]:
            print(f"violation: {violation.what}")
        if outcome.violations:
            print(f"{len(outcome.violations)} violations; histories and logs are in {folder}")
    return 1 if failed else 0


def show(outcome: trial.Outcome, title: str) -> None:
    table = Table("fault", "times", "longest outage, s", "violations", title=title)
    for row in outcome.rows:
        table.add_row(row.fault, str(row.times), f"{row.longest_outage:.1f}", str(row.violations))
    console = Console(width=100)
    console.print(table)
    commands = ", ".join(f"{name} {number:,}" for name, number in outcome.acknowledged.most_common())
    console.print(f"acknowledged: {commands}; sockets resumed {outcome.resumed:,} times", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
