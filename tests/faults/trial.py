"""One run: the processes, the clients, the faults, then a calm time and the checks."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import monotonic

import httpx2
from sqlalchemy import text

from app.store.engines import open_engines
from tests.faults import clients
from tests.faults.checker import Violation, check
from tests.faults.clients import Site, Watcher
from tests.faults.history import History, Json
from tests.faults.kinds import KINDS, Kind
from tests.faults.scene import Scene, scene

ROOMS = 6
FEATURES = 4
LONG_RUN_SECONDS = 300
"""From which on faults last as long as they do on a bad day."""
CALM_SECONDS = 90
"""The breaker may be open for a minute."""
SETTLED_SECONDS = 3.0
"""After which the last events, those of panels that have gone included, are with every socket."""
LAG_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    fault: str
    times: int
    longest_outage: float
    """Seconds without an acknowledged command."""
    violations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    rows: list[Row]
    violations: list[Violation]
    acknowledged: Counter[str]
    resumed: int
    items: int
    history: History


def run(
    kind: str,
    folder: Path,
    *,
    seed: int,
    seconds: float,
    breach: str | None = None,
    calm_seconds: float = CALM_SECONDS,
) -> Outcome:
    """A run on a database of this kind; its logs are in the folder, and on violations its history, too. `seconds`: of
    faults. `calm_seconds`: within which everything is to be as it should once they have ended."""
    history, random = History(), Random(seed)
    with scene(kind, folder, random, history, seconds, breach) as made:
        outcome = asyncio.run(_run(made, history, seed, seconds, calm_seconds))
    if outcome.violations:
        history.write(folder / "history.jsonl")
    return outcome


async def _run(made: Scene, history: History, seed: int, seconds: float, calm_seconds: float) -> Outcome:
    await asyncio.gather(*(made.start(number) for number in range(len(made.nodes))))
    rooms = [f"star-{number}" for number in range(ROOMS)]
    limits = httpx2.Limits(max_connections=200)
    async with httpx2.AsyncClient(timeout=30, trust_env=False, limits=limits) as http:
        site = Site(made, history, Random(seed + 1), http, rooms, {})
        watchers = [
            Watcher(room, node, site.token("admin", "ops") if node == at % 2 else None)
            for at, room in enumerate(rooms)
            for node in range(len(made.nodes))
        ]
        return await _load(site, watchers, seed, seconds, calm_seconds)


async def _load(site: Site, watchers: list[Watcher], seed: int, seconds: float, calm_seconds: float) -> Outcome:
    commands = [clients.feature(site, f"feature-{number}", 0.15) for number in range(FEATURES)]
    panels = [
        (clients.socket_panel if at % 3 == 0 else clients.panel)(site, room) for at, room in enumerate(site.rooms)
    ]
    history = site.history
    history.began = monotonic()
    async with asyncio.TaskGroup() as group:
        lag = group.create_task(_measure_lag(history))
        working = [group.create_task(work) for work in (*commands, *panels)]
        admin = group.create_task(clients.administrator(site))
        watching = [group.create_task(clients.watch(site, watcher)) for watcher in watchers]
        kinds = [kind for kind in KINDS if site.scene.kind in kind.databases]
        end = history.began + seconds
        await asyncio.gather(
            _inject(site, [kind for kind in kinds if kind.inside], Random(seed + 2), end, seconds),
            _inject(site, [kind for kind in kinds if not kind.inside], Random(seed + 3), end, seconds),
        )
        site.stopping.set()
        await asyncio.wait(working, timeout=calm_seconds)
        open_operations = await _until_paid(site, calm_seconds)
        queues = await _queues(site)
        await asyncio.wait(watching, timeout=30)
        admin.cancel()
        for task in (lag, *watching, *working):
            task.cancel()
    if open_operations:
        history.see(f"{open_operations} wallet operations are open when all has been calm for long")
    violations = await asyncio.to_thread(check, site, watchers, queues)
    return _outcome(site, watchers, violations)


async def _inject(site: Site, kinds: Sequence[Kind], random: Random, end: float, seconds: float) -> None:
    """Inject one fault after another until the end: every kind once, then every kind again in another order."""
    is_long = seconds >= LONG_RUN_SECONDS
    left: list[Kind] = []
    await asyncio.sleep(1)
    while monotonic() < end:
        if not left:
            left = random.sample(kinds, len(kinds))
        kind = left.pop()
        lasts = random.uniform(*(kind.long_seconds if is_long else kind.seconds))
        with site.history.fault(kind.name) as fault:
            async with kind.inject(site.scene, random) as detail:
                fault.detail = detail
                await asyncio.sleep(lasts)
        await asyncio.sleep(random.uniform(0.5, 5.0 if is_long else 1.0))


async def _measure_lag(history: History) -> None:
    while True:
        began = monotonic()
        await asyncio.sleep(LAG_SECONDS)
        late = monotonic() - began - LAG_SECONDS
        if late > LAG_SECONDS:
            history.lags.append((began, late))


async def _until_paid(site: Site, seconds: float) -> int:
    """Wait until the wallet has executed all operations; returns those that are left when the time is up."""
    deadline = monotonic() + seconds
    while True:
        left = await asyncio.to_thread(_open_operations, site.scene.database_url)
        if left == 0 or monotonic() > deadline:
            return left
        await asyncio.sleep(0.3)


def _open_operations(database_url: str) -> int:
    engines = open_engines(database_url)
    try:
        with engines.reader.begin() as connection:
            question = "SELECT count(*) FROM wallet_operations WHERE status <> 'done'"
            return int(connection.execute(text(question)).scalar_one())
    finally:
        engines.dispose()


async def _queues(site: Site) -> dict[tuple[int, str, bool], Json]:
    """Every room from each process, for everybody and for administrators, when nothing changes any more."""
    found: dict[tuple[int, str, bool], Json] = {}
    admin = site.token("admin", "ops")
    await asyncio.sleep(SETTLED_SECONDS)
    for node in range(len(site.scene.nodes)):
        for room in site.rooms:
            for is_admin in (False, True):
                path = f"/v1/performers/{room}/queue"
                with suppress(httpx2.HTTPError):
                    found[node, room, is_admin] = await site.get(node, path, admin if is_admin else None)
    site.calm.set()
    return found


def _outcome(site: Site, watchers: Sequence[Watcher], violations: list[Violation]) -> Outcome:
    history = site.history
    times = Counter(fault.kind for fault in history.faults)
    wrong = Counter("at the end" if each.at is None else history.at_fault(each.at) for each in violations)
    rows = [
        Row(
            fault=kind,
            times=times[kind],
            longest_outage=max((history.outage(fault) for fault in history.faults if fault.kind == kind), default=0.0),
            violations=wrong[kind],
        )
        for kind in (*(kind.name for kind in KINDS if kind.name in times), "none", "at the end")
        if times[kind] or wrong[kind]
    ]
    return Outcome(
        rows=rows,
        violations=violations,
        acknowledged=Counter(call.operation for call in history.calls if call.is_acknowledged),
        resumed=sum(watcher.resumed for watcher in watchers),
        items=sum(call.operation == "intake" and call.is_acknowledged for call in history.calls),
        history=history,
    )
