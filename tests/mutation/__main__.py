"""python -m tests.mutation: changes the code in small ways, one at a time, and says which changes no test notices."""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path

from tests.mutation import client
from tests.mutation.runner import Result, run
from tests.support import environment

TESTS: dict[str, tuple[str, ...]] = {
    "app/domain/*.py": ("--noconftest", "tests/domain"),
    "app/domain/activity.py": ("tests/store/test_activity.py", "tests/api/test_figures.py"),
    "app/wallet/answers.py": ("--noconftest", "tests/wallet/test_answers.py", "tests/wallet/test_client.py"),
    "app/wallet/outbox.py": (
        "tests/wallet/test_outbox.py",
        "tests/wallet/test_dead_letters.py",
        "tests/tracing/test_wallet_attempts.py",
    ),
    "app/engine/writer.py": (
        "tests/engine/test_writer.py",
        "tests/engine/test_writer_attempts.py",
        "tests/engine/test_writer_failures.py",
        "tests/engine/test_writer_records.py",
    ),
}
"""The tests that each module has to answer to, as arguments of pytest; of several patterns the last one counts. Without
conftest.py's fixtures the service is not imported: mutants that take effect at import have that done anew."""
EXPLAINED = Path(__file__).with_name("survivors.txt")
"""A line a survivor: `module scope: before -> after | why no test can or need notice it`."""
WANTED_SHARE = 0.95


def modules() -> dict[Path, tuple[str, ...]]:
    paths = {path: tests for pattern, tests in TESTS.items() for path in sorted(Path().glob(pattern))}
    return {path: tests for path, tests in paths.items() if path.name != "__init__.py"}


def explained() -> dict[str, str]:
    """By mutant: the reason why it may survive."""
    lines = EXPLAINED.read_text().splitlines()
    return dict(line.rsplit(" | ", 1) for line in lines if line and not line.startswith("#"))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="MODULE", help="a path or a part of one")
    parser.add_argument("--changed", action="store_true", help="modules that differ from the last commit")
    chosen = parser.parse_args(arguments)
    wanted = {path: tests for path, tests in modules().items() if _is_wanted(path, chosen)}
    with ExitStack() as stack:
        if "TEST_DATABASE_URL" not in os.environ:
            os.environ["TEST_DATABASE_URL"] = stack.enter_context(environment.postgres(lambda line: None))
        # A process for modules with the same tests: what one imports stays out of the next one's way.
        fork = get_context("fork")
        results: list[Result] = []
        for tests in dict.fromkeys(wanted.values()):
            paths = [path for path in wanted if wanted[path] == tests]
            with fork.Pool(1) as pool:
                results += pool.apply(run, (paths, tests))
        if _is_wanted(client.MODULE, chosen):
            results.append(client.run())
    return report(results, explained())


def report(results: Sequence[Result], reasons: Mapping[str, str]) -> int:
    """Print a line a module; 1 if too many survive, one survives unexplained, or a reason is given for none."""
    count = killed = 0
    complaints = []
    print(f"{'module':32} mutants killed survive explained")
    for result in results:
        names = [f"{result.module} {survivor}" for survivor in result.survivors]
        left = [name for name in names if name not in reasons]
        complaints += [f"not explained: {name}" for name in left]
        given = [name for name in reasons if name.startswith(f"{result.module} ")]
        complaints += [f"explained, but does not survive: {name}" for name in given if name not in names]
        count, killed = count + result.count, killed + result.count - len(names)
        print(
            f"{result.module!s:32} {result.count:7} {result.count - len(names):6} {len(names):7}"
            f" {len(names) - len(left):9}"
        )
    share = killed / count if count else 1.0
    print(f"{killed} of {count} killed: {share:.1%}", *complaints, sep="\n")
    return int(bool(complaints) or share < WANTED_SHARE)


def _is_wanted(path: Path, chosen: argparse.Namespace) -> bool:
    is_named = not chosen.only or any(part in str(path) for part in chosen.only)
    return is_named and (not chosen.changed or str(path) in _changed())


def _changed() -> set[str]:
    command = ["git", "diff", "--name-only", "HEAD"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


if __name__ == "__main__":
    sys.exit(main())
