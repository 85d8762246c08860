"""CONTRIBUTING against the source tree: its tests and paths exist, and the quick check is quick."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / ".github/CONTRIBUTING.md").read_text()


def test_the_one_test_that_it_runs_is_there() -> None:
    (words,) = re.findall(r"pytest -k (\w+)", TEXT)
    assert any(f"def {words}" in path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize(
    "path",
    sorted(
        {
            *re.findall(r"(?:pytest|`)\s*((?:app|tests|static)/[\w./-]+)", TEXT),
            *re.findall(r"^(\.ci/\w+)", TEXT, re.MULTILINE),
        }
    ),
)
def test_every_place_that_it_names_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_the_quick_check_names_tests_that_are_there() -> None:
    (words,) = re.findall(r"pytest -q -n 2 .*?(tests/.*)", (ROOT / ".ci/run").read_text())
    assert [path for path in words.split() if not (ROOT / path).exists()] == []


def test_another_option_is_refused_with_how_it_is_used() -> None:
    done = subprocess.run(["bash", str(ROOT / ".ci/run"), "--slow"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "usage: .ci/run [--fast]\n")
