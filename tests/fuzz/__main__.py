"""`python -m tests.fuzz`: many cases against a server of its own; exit code 1 if one has failed. Ctrl-C ends it early,
with the report of the cases so far."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.fuzz.assault import Report, assault
from tests.support.server import Server, serving

SECONDS_BETWEEN_LINES = 30.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    options = parser.parse_args()
    report = Report()
    seeds = range(options.seed, options.seed + options.cases)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, serving(Path(folder)) as server:
        try:
            asyncio.run(_assault(server, seeds, report))
        except KeyboardInterrupt:
            print("ended early", file=sys.stderr)
        # Before the server ends, which fails if it has logged an error.
        print(f"{report.cases} cases; answers by status: {dict(sorted(report.answers.items()))}", flush=True)
        for failure in report.failures:
            print(failure, flush=True)
    return 1 if report.failures else 0


async def _assault(server: Server, seeds: range, report: Report) -> None:
    """Send the cases, and print the progress at intervals."""

    async def say() -> None:
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_LINES)
            print(f"{report.cases} of {len(seeds)} cases, {len(report.failures)} failures", file=sys.stderr)

    saying = asyncio.create_task(say())
    try:
        await assault(server.port, server.admin, seeds, report)
    finally:
        saying.cancel()


if __name__ == "__main__":
    sys.exit(main())
