"""`python -m tests.faults.served serve`: the service, with a wall clock that a file sets, and a breach if wanted.

The app reads the wall clock in one place, by `time.time_ns`. libfaketime is no way: its release in Debian 12 fails
`clock_nanosleep`, by which Python sleeps.
"""

import os
import sys
import time

OFFSET_FILE = "FAULTS_CLOCK_FILE"
BREACH = "FAULTS_BREACH"


def step_clock(path: str) -> None:
    """Add the seconds in a file to the wall clock; the file is read at every call."""
    true_time_ns = time.time_ns
    descriptor = os.open(path, os.O_RDONLY)

    def time_ns() -> int:
        return true_time_ns() + round(float(os.pread(descriptor, 32, 0) or b"0") * 1e9)

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9


def main() -> None:
    step_clock(os.environ[OFFSET_FILE])
    from app.__main__ import cli  # only now: it imports the clock by name

    if breach := os.environ.get(BREACH):
        from tests.faults.breaches import BREACHES

        BREACHES[breach]()
    sys.argv[0] = "app"
    cli()


if __name__ == "__main__":
    main()
