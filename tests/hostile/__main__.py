"""`python -m tests.hostile`: every attack in turn, as a table. Exit code 1 if one has changed anything for anybody.

The times mean something on a machine that does nothing else; the server's CPU, memory and descriptors anywhere.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.hostile import trial
from tests.hostile.attacks import ATTACKS
from tests.hostile.crowd import p99

COLUMNS = (
    "attack",
    "update p99, ms: quiet",
    "attacked",
    "ratio",
    "intake p99, ms: quiet",
    "attacked",
    "ratio",
    "refused",
    "CPU: quiet",
    "attacked",
    "MB: before",
    "most",
    "after",
    "descriptors: before",
    "most",
    "after",
    "back after, s",
    "holds",
)


def row(done: trial.Outcome) -> list[str]:
    """One line of the table."""
    quiet, attacked = done.quiet, done.attacked
    uses = (done.before, done.highest, done.after)
    return [
        done.attack,
        *(f"{1000 * p99(each.updates):.0f}" for each in (quiet, attacked)),
        f"{done.update_ratio:.1f}",
        *(f"{1000 * p99(each.intakes):.0f}" for each in (quiet, attacked)),
        f"{done.intake_ratio:.1f}",
        str(done.refused),
        *(f"{each.cpu:.0%}" for each in (quiet, attacked)),
        *(f"{use.memory / 1e6:.0f}" for use in uses),
        *(str(use.descriptors) for use in uses),
        "never" if done.recovery_seconds is None else f"{done.recovery_seconds:.1f}",
        "yes" if done.holds() else "NO",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--only", choices=ATTACKS, action="append", help="this attack; may be repeated")
    parser.add_argument("--seconds", type=float, default=10, help="of quiet, and of each attack")
    parser.add_argument("--viewers", type=int, default=500)
    parser.add_argument("--intakes", type=float, default=20, help="a second")
    options = parser.parse_args()
    table = Table(*COLUMNS)
    failed = False
    for attack in options.only or ATTACKS:
        with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
            done = trial.run(
                attack,
                Path(folder),
                seconds=options.seconds,
                viewers=options.viewers,
                intakes_per_second=options.intakes,
            )
        table.add_row(*row(done))
        failed |= not done.holds()
        print(
            f"{attack}: {'held' if done.holds() else 'NOT held'}", *done.attacked.refused[:3], file=sys.stderr, sep="; "
        )
    Console(width=180).print(table)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
