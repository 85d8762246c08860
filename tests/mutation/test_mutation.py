"""The mutation run notices what tests miss, and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PLANTED = """
LIMIT = 5

def is_full(count):
    return count >= LIMIT

def is_empty(count):
    while count > 0:
        count -= 1
        return False
    return count == 0
"""
TESTS = """
import planted

def test_a_count_at_the_limit_is_full():
    assert planted.is_full(5)
    assert not planted.is_full(4)

def test_a_count_is_not_empty():
    assert planted.is_empty(3) is False
"""
RUN = """
from pathlib import Path
from tests.mutation.runner import run
result = run(Path("planted.py"), ["test_planted.py"])
print(result.count, *sorted(result.survivors), sep="\\n")
"""


def test_planted_mutants_are_killed_where_a_test_looks_and_survive_where_none_does(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(PLANTED)
    (tmp_path / "test_planted.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    count, *survivors = [line for line in done.stdout.splitlines() if not line.startswith("  survives")]
    assert int(count) == 13
    assert survivors == [
        "is_empty: 0 -> 1",
        "is_empty: 0 -> 1",
        "is_empty: 1 -> 2",
        "is_empty: count -= 1 -> count += 1",
        "is_empty: count -= 1 -> pass",
        "is_empty: count == 0 -> count != 0",
        "is_empty: count > 0 -> count >= 0",
        "is_empty: return count == 0 -> return None",
    ]
