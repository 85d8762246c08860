"""A few attacks shortly: nobody is refused, everything is given back. `python -m tests.hostile` judges latencies."""

from pathlib import Path

import pytest

from tests.hostile import trial


@pytest.mark.parametrize("attack", ["pings", "silent connections", "endless headers"])
def test_an_attack_changes_nothing_for_anybody(attack: str, tmp_path: Path) -> None:
    done = trial.run(attack, tmp_path, seconds=2, viewers=100, intakes_per_second=20)
    assert done.attacked.refused == []
    assert done.recovery_seconds is not None, "memory or descriptors were not given back"
    assert len(done.attacked.updates) > 100
    assert len(done.attacked.intakes) > 10
