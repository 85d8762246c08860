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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--only", choices=ATTACKS, action="append", help="this attack; may be repeated")
    parser.add_argument("--seconds", type=float, default=10, help="of quiet, and of each attack")
    parser.add_argument("--viewers", type=int, default=500)
    parser.add_argument("--intakes", type=float, default=20, help="a second")
    options = parser.parse_args()
    table = Table(
        "attack",
        "intake p99 quiet, ms",
        "attacked",
        "update p99 quiet, ms",
        "attacked",
        "refused",
        "CPU quiet",
        "attacked",
        "memory, MB",
        "back after, s",
        "holds",
    )
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
        table.add_row(
            attack,
            *(
                f"{1000 * p99(values):.0f}"
                for values in (done.quiet.intakes, done.attacked.intakes, done.quiet.updates, done.attacked.updates)
            ),
            str(done.refused),
            f"{done.quiet.cpu:.0%}",
            f"{done.attacked.cpu:.0%}",
            f"+{done.grown_bytes / 1e6:.1f}",
            "never" if done.recovery_seconds is None else f"{done.recovery_seconds:.1f}",
            "yes" if done.holds() else "NO",
        )
        failed |= not done.holds()
        print(
            f"{attack}: {'held' if done.holds() else 'NOT held'}", *done.attacked.refused[:3], file=sys.stderr, sep="; "
        )
    Console(width=140).print(table)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
