"""The real service, whose optimisations can be switched off and on while it runs.

`python -m tests.bench.optimisations.service FILE`, configured by the environment as `python -m app serve` is. SIGUSR1
puts the plain way in the place of the optimisation that the file names, SIGUSR2 that one back. The file is removed once
that is done.
"""

import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from app.__main__ import cli
from tests.bench.optimisations.catalogue import ALL
from tests.bench.optimisations.measuring import BACK, PLAIN


def main(named: Path) -> None:
    entered = ExitStack()

    def use_plain(number: int, frame: FrameType | None) -> None:
        entered.enter_context(ALL[named.read_text()].plain())
        named.unlink()

    def put_back(number: int, frame: FrameType | None) -> None:
        entered.close()
        named.unlink()

    signal.signal(PLAIN, use_plain)
    signal.signal(BACK, put_back)
    cli(["serve"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
