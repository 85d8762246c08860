"""The mutation run notices what tests miss, and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutation.__main__ import report
from tests.mutation.runner import Result

ROOT = Path(__file__).parents[2]

PLANTED = """
from functools import lru_cache

LIMIT = 5

@lru_cache
def doubled(count):
    return count * 2

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

def test_a_count_is_doubled():
    assert planted.doubled(3) == 6

def test_a_count_that_was_doubled_before_is_doubled():
    assert planted.doubled(3) == 6

def test_a_count_is_not_empty():
    assert planted.is_empty(3) is False
"""
RUN = """
from pathlib import Path
from tests.mutation.runner import run
(result,) = run([Path("planted.py")], ["test_planted.py"])
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
    count, *survivors = [line for line in done.stdout.splitlines() if not line.startswith(("planted.py", "  survives"))]
    assert int(count) == 16
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


@pytest.mark.parametrize(
    ("survivors", "complaints"),
    [
        (["f: 1 -> 2"], []),
        (["f: 1 -> 2", "f: 3 -> 4"], ["not explained: app/one.py f: 3 -> 4"]),
        ([], ["explained, but does not survive: app/one.py f: 1 -> 2"]),
    ],
)
def test_each_survivor_needs_its_reason_and_each_reason_its_survivor(
    survivors: list[str], complaints: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    reasons = {"app/one.py f: 1 -> 2": "either is as good", "app/other.py f: 1 -> 2": "another module's"}
    assert report([Result(Path("app/one.py"), 100, survivors)], reasons) == int(bool(complaints))
    assert capsys.readouterr().out.splitlines()[3:] == complaints


def test_too_many_survivors_are_too_many_though_each_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    survivors = [f"f: {number} -> {number + 1}" for number in range(6)]
    reasons = {f"app/one.py {survivor}": "either is as good" for survivor in survivors}
    assert report([Result(Path("app/one.py"), 100, survivors)], reasons) == 1
    assert "94 of 100 killed: 94.0%" in capsys.readouterr().out
    assert report([Result(Path("app/one.py"), 120, survivors)], reasons) == 0
