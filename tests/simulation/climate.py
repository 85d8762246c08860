"""The rates of failures in a world, drawn once from its seed: few in some worlds, many in others."""

from dataclasses import dataclass, field
from random import Random

from app.domain.room import Policy
from app.sandbox.faults import FaultRates


@dataclass(kw_only=True)
class Climate:
    """Rates are probabilities per occasion, 0 to 1; `calm` sets all to 0."""

    shared: bool
    """Two processes on one database, as on PostgreSQL; otherwise one at a time, as on SQLite."""
    policy: Policy
    max_attempts: int
    verify_holds: bool
    items: int
    commands: int
    seconds: float
    """How long people act before all is calm."""
    steady_clocks: bool
    """No clock jumps, so that a lease is a lease."""

    wallet: FaultRates
    latency_seconds: float = 0.0
    late_delivery: float = 0.0
    """A request that arrives at the wallet only after its sender has given up."""
    connection: float = 0.0
    """A connection to the wallet that is refused or breaks."""
    death: float = 0.0
    """A process dies at a crash point: before or after a commit."""
    death_at_wallet: float = 0.0
    """A process dies before or after a wallet call."""
    lost_answer: float = 0.0
    """A caller does not get its answer although the process lives."""
    database: float = 0.0
    """The database is away for one transaction."""
    unclear_commit: float = 0.0
    """A commit took effect, but the connection broke before it said so. Shared databases only."""
    lost_event: float = 0.0
    repeated_event: float = 0.0
    late_event: float = 0.0
    outages: list[tuple[float, float]] = field(default_factory=list)
    """When nobody reaches the wallet: beginning and length in seconds."""

    def calm(self) -> None:
        self.wallet = FaultRates()
        self.latency_seconds = self.late_delivery = self.connection = self.lost_answer = 0.0
        self.death = self.death_at_wallet = self.database = self.unclear_commit = 0.0
        self.lost_event = self.repeated_event = self.late_event = 0.0
        self.outages = []


def draw_climate(random: Random) -> Climate:
    trouble = random.choice((0.0, 0.5, 0.5, 1.0, 1.0, 1.0, 2.0, 2.0))
    shared = random.random() < 0.4

    def rate(most: float) -> float:
        return random.random() * most * trouble

    seconds = random.uniform(5, 14)
    return Climate(
        shared=shared,
        policy=Policy(
            max_depth=random.choice((2, 50)),
            rope_drop_seconds=random.choice((0, 6)),
            started_timeout_seconds=random.choice((0, 4)),
            default_duration_seconds=2,
            disconnect_grace_seconds=random.choice((0, 4)),
            settle_delay_seconds=random.choice((0, 0, 3)),
        ),
        max_attempts=random.choice((1, 3, 6)),
        verify_holds=random.random() < 0.3,
        items=random.randint(2, 5),
        commands=random.randint(6, 18),
        seconds=seconds,
        steady_clocks=random.random() < 0.6,
        wallet=FaultRates(
            error=rate(0.1),
            conflict=rate(0.05),
            timeout_before=rate(0.05),
            timeout_after=rate(0.05),
            lost_answer=rate(0.05),
            duplicate=rate(0.05),
            wrong_answer=rate(0.05),
        ),
        latency_seconds=random.choice((0.0, 0.05, 0.4)),
        late_delivery=rate(0.04),
        connection=rate(0.04),
        death=rate(0.015),
        death_at_wallet=rate(0.04),
        lost_answer=rate(0.05),
        database=rate(0.02),
        unclear_commit=rate(0.02) if shared else 0.0,
        lost_event=rate(0.2) if shared else 0.0,
        repeated_event=rate(0.2) if shared else 0.0,
        late_event=rate(0.2) if shared else 0.0,
        outages=[(random.uniform(0, seconds), random.uniform(1, 6))] if random.random() < 0.2 * trouble else [],
    )
