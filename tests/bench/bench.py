"""A scenario's inputs, and the turns that the runner takes in each round."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.figures import Bar, Ledger, Remark
from tests.bench.load.callers import Tally
from tests.bench.load.crowd import Report
from tests.bench.scale import Scale


def cache_folder() -> Path:
    """The folder for peers and databases: in the user's cache, never in the project."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "performance-queue-bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The settings and results of one run."""

    scale: Scale
    server_core: int
    load_core: int
    cache: Path
    viewers: list[str]
    """The command of the viewers' program."""
    peers: frozenset[str]
    """The names of the peers to run; what is not asked for is not installed."""
    log: Path | None = None
    """An exported event log for `waits` to score in place of generated nights."""
    optimisations: tuple[str, ...] = ()
    """The names of those that `optimisations` measures; none: all of them."""
    ledger: Ledger = field(default_factory=Ledger)

    @property
    def data(self) -> Path:
        return self.cache / "data"

    def absent(self, scenario: str, peer: str, reason: str) -> None:
        self.ledger.remark(Remark(scenario=scenario, kind="absent", text=f"{peer}: {reason}"))

    def check(self, scenario: str, subject: str, report: Report, *, viewers: int, events: int) -> None:
        """Check that every viewer got every event in order and once; otherwise add a warning to the figures."""
        if report.is_complete(viewers=viewers, events=events):
            return
        self.ledger.remark(
            Remark(
                scenario=scenario,
                kind="wrong",
                text=f"{subject}: of {viewers} viewers {report.open} stayed and got {report.least} to {report.most} of "
                f"{events} events, {report.gaps} gaps, {report.repeats} repeats",
            )
        )

    def check_calls(self, scenario: str, subject: str, tally: Tally) -> None:
        """Check that every call succeeded and that the callers were not saturated."""
        if tally.failures:
            text = f"{subject}: answers {dict(sorted(tally.statuses.items()))}"
            self.ledger.remark(Remark(scenario=scenario, kind="wrong", text=text))
        self.check_load(scenario, subject, tally.cpu, tally.seconds)

    def check_load(self, scenario: str, subject: str, cpu: float, seconds: float) -> None:
        if cpu > 0.9 * seconds:
            text = f"{subject}: the load had no time to spare, rates and latencies are partly its own"
            self.ledger.remark(Remark(scenario=scenario, kind="saturated", text=text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One subject's part of a round. `take` gets the number of the round."""

    subject: str
    take: Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    name: str
    about: str
    turns: Callable[[Bench], list[Turn]]
    bars: Callable[[Scale], tuple[Bar, ...]]
    rounds: int | None = None
    """At most so many rounds, where one takes long and varies little."""
    finish: Callable[[Bench], None] | None = None
    """Takes away what `turns` has made on the disk."""
