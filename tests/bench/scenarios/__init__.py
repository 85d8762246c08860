"""The scenarios, one a module: what is set up, what is driven, what is noted, and the bar for our own figures."""

from tests.bench.bench import Scenario
from tests.bench.scenarios import (
    analytics,
    disk,
    fanout,
    growth,
    intake,
    latency,
    life,
    memory,
    mixed,
    optimisations,
    postgres,
    reads,
    reconnect,
    retention,
    rooms,
    scaling,
    stalled,
    startup,
    tracing,
    waits,
)

ALL: dict[str, Scenario] = {
    module.SCENARIO.name: module.SCENARIO
    for module in (
        fanout,
        life,
        latency,
        memory,
        stalled,
        rooms,
        intake,
        postgres,
        mixed,
        reads,
        growth,
        retention,
        analytics,
        disk,
        startup,
        reconnect,
        scaling,
        tracing,
        waits,
        optimisations,
    )
}
