"""Finds the previous release in the repository's history, for tests that run it beside the present one."""

import subprocess
from functools import cache

from tests.support.cluster import ROOT
from tests.support.environment import Unobtainable

FIRST_OF_THIS_RELEASE = "app/store/migrations/versions/0005_room_limits.py"
"""The previous release is the parent of the commit that added this file."""


@cache
def commit() -> str:
    """The commit of the previous release. Raises Unobtainable if the history lacks it, as in a shallow clone, or if
    there is no repository."""
    brought_by = git("log", "--diff-filter=A", "--format=%H %P", "--", FIRST_OF_THIS_RELEASE).decode().splitlines()
    if not brought_by:
        raise Unobtainable("no commit added the first file of this release")
    _, *parents = brought_by[-1].split()
    if not parents:
        raise Unobtainable("the oldest commit here is newer; is this a shallow clone?")
    found = parents[0]
    git("cat-file", "-e", f"{found}:./app/__main__.py")
    return found


def git(*words: str) -> bytes:
    """The output of a git command in the source tree. Raises Unobtainable if it fails."""
    try:
        return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True).stdout
    except FileNotFoundError:
        raise Unobtainable("there is no git") from None
    except subprocess.CalledProcessError as problem:
        said = problem.stderr.decode(errors="replace").strip().splitlines()
        raise Unobtainable(said[0] if said else f"git {words[0]} fails") from None
