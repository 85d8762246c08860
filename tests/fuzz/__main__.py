"""`python -m tests.fuzz`: many cases against a server of its own; exit code 1 if one has failed."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.fuzz.assault import assault
from tests.support.server import serving


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, serving(Path(folder)) as server:
        report = asyncio.run(assault(server.port, server.admin, range(options.seed, options.seed + options.cases)))
    print(f"{report.cases} cases; answers by status: {dict(sorted(report.answers.items()))}")
    print(*report.failures, sep="\n")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
