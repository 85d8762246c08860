"""Every optimisation of the service can be switched off, is measured, and names in its comment what measures it."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench import machine
from tests.bench.bench import Bench
from tests.bench.optimisations import operations
from tests.bench.optimisations.catalogue import ALL
from tests.bench.optimisations.measuring import measured
from tests.bench.optimisations.swap import swapped
from tests.bench.scale import QUICK
from tests.bench.scenarios import ALL as SCENARIOS
from tests.bench.scenarios import optimisations

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"\bbench(?: --quick)? --(?P<option>only|without)\s+(?P<names>[\w,-]+)")
TEXTS = [
    path
    for folder in ("app", "static")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".js", ".md") and path.is_file()
]


def _named(option: str) -> dict[str, list[str]]:
    """By name, the files of the service that name this as the benchmark which measures something."""
    found: dict[str, list[str]] = {}
    for path in [*TEXTS, ROOT / "README.md"]:
        for match in COMMAND.finditer(path.read_text(encoding="utf-8")):
            if match["option"] == option:
                for name in match["names"].strip(",").split(","):
                    found.setdefault(name, []).append(path.relative_to(ROOT).as_posix())
    return found


def test_every_benchmark_that_a_comment_names_exists() -> None:
    assert {name: files for name, files in _named("only").items() if name not in SCENARIOS} == {}
    assert {name: files for name, files in _named("without").items() if name not in {*ALL, "all"}} == {}
    assert "waits" in _named("only")


def test_every_optimisation_is_named_where_it_is_made() -> None:
    assert ALL.keys() - _named("without").keys() == set()


@pytest.mark.parametrize("name", sorted(ALL.keys() - {"collector"}))
def test_a_plain_way_has_something_whose_place_it_takes(name: str) -> None:
    with ALL[name].plain():
        pass


def test_a_plain_way_is_in_use_for_as_long_as_it_is_entered() -> None:
    class Owner:
        way = staticmethod(lambda: "quick")

    plain = swapped((Owner, "way", staticmethod(lambda: "plain")))
    with plain():
        assert Owner.way() == "plain"
    assert Owner.way() == "quick"


def test_a_gain_is_that_of_the_pairs_and_neither_way_is_favoured() -> None:
    drives: list[str | None] = []
    ways: list[str | None] = [None]

    def drive() -> float:
        drives.append(ways[-1])
        # Each takes a little longer than the one before; without `one` it takes twice as long besides.
        return (1000 + len(drives)) * (2.0 if ways[-1] == "one" else 1.0)

    gains = measured(["one", "other"], drive, ways.append, pairs=2)
    assert drives == [None, "one", None, "other", None, None, "one", None, "other"]
    assert gains["one"].cost < gains["one"].plain_cost
    assert gains["one"].saved_percent == pytest.approx(50, abs=1)
    assert gains["other"].saved_percent == pytest.approx(0, abs=1)


def test_an_optimisation_is_switched_off_and_on_in_a_running_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, few in (("BUSY_ROOMS", 2), ("LEARNT_SERVICES", 5), ("CALLS", 64)):
        monkeypatch.setattr(operations, name, few)
    accuracies = ALL["accuracies"]
    monkeypatch.setitem(ALL, "accuracies", replace(accuracies, operation=replace(accuracies.operation, pairs=4)))
    core = machine.cores()[0]
    bench = Bench(
        scale=QUICK,
        server_core=core,
        load_core=core,
        cache=tmp_path,
        viewers=[],
        peers=frozenset(),
        optimisations=("accuracies",),
    )
    (turn,) = optimisations.SCENARIO.turns(bench)
    turn.take(0)
    (case,) = bench.ledger.cases.values()
    assert bench.ledger.is_sound, bench.ledger.remarks
    # Without it each outlook reads the database.
    saved = case.spread("accuracies", "saved")
    assert saved is not None
    assert saved.middle > 20
