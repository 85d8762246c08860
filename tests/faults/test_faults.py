"""Half a minute of faults on either database; and rules that are broken on purpose are found. `python -m tests.faults`
runs for longer."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults import trial
from tests.faults.breaches import BREACHES
from tests.faults.scene import NODES

pytestmark = pytest.mark.timeout(300)
SEED = 13


@pytest.mark.parametrize("kind", NODES)
def test_whatever_fails_nothing_acknowledged_is_lost(kind: str, tmp_path: Path) -> None:
    outcome = trial.run(kind, tmp_path, seed=SEED, seconds=30)
    found = [violation.what for violation in outcome.violations]
    assert found == [], f"{len(found)} violations; the history and the logs are in {tmp_path}"
    # A run in which hardly anything fails or is acknowledged shows nothing. Half a minute of a busy machine is short.
    assert sum(row.times for row in outcome.rows) >= 5
    assert outcome.items > 20
    assert {"start-next", "complete", "pause", "cancel"} <= set(outcome.acknowledged)


@pytest.mark.parametrize("breach", BREACHES)
def test_a_service_that_is_broken_on_purpose_is_found(breach: str, tmp_path: Path) -> None:
    found: Sequence[object] = []
    try:
        found = trial.run("sqlite", tmp_path, seed=SEED, seconds=10, breach=breach, calm_seconds=5).violations
    except* AssertionError as problem:
        # It may not even start again: what it had acknowledged at its end is not there.
        found = problem.exceptions
    assert found
