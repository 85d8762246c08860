"""The metrics as a Prometheus server reads them: each number moves when its event happens, and none carries an id."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.live.watched_room import Traffic
from app.metrics.loop_lag import LoopLag
from app.metrics.readings import DatabaseReadings, Readings
from app.metrics.registry import VERSION, Metrics
from app.metrics.workers import OWN_ONLY
from app.store.disk import DiskUsage
from app.wallet.breaker import Breaker, BreakerState
from app.wire.websocket import CloseCode
from tests.support.hub_harness import FakeConnection, World, until
from tests.support.server import Api, Server, intake_body, ok, problem, serving

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
WAIT_SECONDS = 10


def read(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@dataclass
class Scraped:
    """A service's metrics, and their changes since the last call."""

    api: Api
    before: Samples = field(default_factory=dict)
    now: Samples = field(default_factory=dict)

    async def scrape(self) -> None:
        response = await self.api.get("/metrics")
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        self.before, self.now = self.now, read(response.text)

    def value(self, name: str, **labels: str) -> float:
        return self.now.get((name, tuple(sorted(labels.items()))), 0.0)

    def change(self, name: str, **labels: str) -> float:
        return self.value(name, **labels) - self.before.get((name, tuple(sorted(labels.items()))), 0.0)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Scrape until `holds()`."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not holds():
                await self.scrape()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service for this file alone, so that no other test changes its metrics."""
    with serving(tmp_path_factory.mktemp("metrics"), user_intakes_per_minute=3) as server:
        yield server


@pytest.fixture
async def scraped(alone: Server) -> AsyncIterator[Scraped]:
    async with alone.api() as api:
        scraped = Scraped(api)
        await scraped.scrape()
        yield scraped


async def test_requests_are_counted_by_the_template_of_their_path(scraped: Scraped, performer_id: str) -> None:
    api = scraped.api
    item = await api.intake(performer_id)
    for _ in range(2):
        ok(await api.get(f"/v1/queue/items/{item['itemId']}", api.server.admin))
    problem(await api.get("/v1/queue/items/none", api.server.admin), 404, "ITEM_NOT_FOUND")
    problem(await api.send("DELETE", f"/v1/queue/items/{item['itemId']}"), 405, "METHOD_NOT_ALLOWED")
    problem(await api.get("/v1/somewhere/else"), 404, "NOT_FOUND")
    await scraped.scrape()
    route = "/v1/queue/items/{itemId}"
    assert scraped.change("queue_http_requests_total", method="GET", route=route, status="200") == 2
    assert scraped.change("queue_http_requests_total", method="GET", route=route, status="404") == 1
    assert scraped.change("queue_http_requests_total", method="DELETE", route=route, status="405") == 1
    assert scraped.change("queue_http_requests_total", method="GET", route="none", status="404") == 1
    assert scraped.change("queue_http_request_seconds_count", method="GET", route=route) == 3
    assert 0 < scraped.change("queue_http_request_seconds_sum", method="GET", route=route) < WAIT_SECONDS
    assert scraped.change("queue_http_request_seconds_bucket", method="GET", route=route, le="+Inf") == 3


async def test_commands_are_counted_by_outcome(scraped: Scraped, performer_id: str) -> None:
    api = scraped.api
    body = intake_body(performer_id)
    feature = api.server.feature()
    ok(await api.post("/v1/queue/items", feature, body), 201)
    ok(await api.post("/v1/queue/items", feature, body))
    await api.start_next(performer_id)
    await api.intake(performer_id)
    start_next = await api.post(f"/v1/performers/{performer_id}/queue/start-next", api.server.performer(performer_id))
    problem(start_next, 409, "ALREADY_PROCESSING")
    await scraped.scrape()
    assert scraped.change("queue_commands_total", command="Intake", outcome="ok") == 2
    assert scraped.change("queue_commands_total", command="Intake", outcome="replayed") == 1
    assert scraped.change("queue_commands_total", command="StartNext", outcome="ok") == 1
    assert scraped.change("queue_commands_total", command="StartNext", outcome="ALREADY_PROCESSING") == 1
    batches = scraped.change("queue_lane_batch_seconds_count")
    assert batches >= 5
    assert scraped.change("queue_lane_batch_commands_count") == batches
    assert scraped.change("queue_lane_batch_commands_sum") >= 5
    assert scraped.change("queue_lane_batch_seconds_sum") > 0
    assert scraped.value("queue_lane_waiting_commands") == 0


async def test_items_that_end_are_counted_by_how(scraped: Scraped, performer_id: str) -> None:
    api = scraped.api

    def ended(status: str) -> float:
        return scraped.value("queue_items_ended_total", status=status)

    before = {status: ended(status) for status in ("finished", "abandoned", "refunded")}
    done, declined, kept = [await api.intake(performer_id) for _ in range(3)]
    performer = api.server.performer(performer_id)
    for item, words in ((done, ("start", "complete")), (declined, ("abandon",))):
        for word in words:
            ok(await api.post(f"/v1/queue/items/{item['itemId']}/{word}", performer))
    refund = {"reason": "technical_error"}
    ok(await api.post(f"/v1/queue/items/{kept['itemId']}/refund", performer, refund))
    # The abandoned one, too, once the wallet has confirmed.
    await scraped.until(lambda: ended("refunded") == before["refunded"] + 2)
    assert (ended("finished"), ended("abandoned")) == (before["finished"] + 1, before["abandoned"] + 1)


async def test_intakes_are_counted_by_their_result(scraped: Scraped, performer_id: str) -> None:
    api = scraped.api
    body = intake_body(performer_id, userId="eager")
    feature = api.server.feature()
    ok(await api.post("/v1/queue/items", feature, body), 201)
    ok(await api.post("/v1/queue/items", feature, body))
    problem(await api.post("/v1/queue/items", feature, {**body, "tokens": 0}), 422, "VALIDATION_ERROR")
    problem(await api.post("/v1/queue/items", feature, {**body, "tokens": 1}), 422, "DUPLICATE_IDEMPOTENCY_KEY")
    # Only what was queued counts for the limit of three.
    for _ in range(2):
        ok(await api.post("/v1/queue/items", feature, intake_body(performer_id, userId="eager")), 201)
    problem(
        await api.post("/v1/queue/items", feature, intake_body(performer_id, userId="eager")),
        429,
        "RATE_LIMIT_EXCEEDED",
    )
    problem(await api.post("/v1/queue/items", None, body), 401, "UNAUTHORIZED")
    await scraped.scrape()
    assert {
        dict(labels)["result"]: scraped.change(name, **dict(labels))
        for name, labels in scraped.now
        if name == "queue_intakes_total" and scraped.change(name, **dict(labels))
    } == {"queued": 3, "replayed": 1, "VALIDATION_ERROR": 1, "DUPLICATE_IDEMPOTENCY_KEY": 1, "RATE_LIMIT_EXCEEDED": 1}


async def test_sockets_and_their_frames_are_counted(scraped: Scraped, performer_id: str) -> None:
    api = scraped.api
    async with api.server.live(performer_id) as one, api.server.live(performer_id) as other:
        for live in (one, other):
            await live.until("snapshot")
        await api.intake(performer_id)
        for live in (one, other):
            await live.reach(1)
        await scraped.scrape()
        assert scraped.value("queue_sockets") == 2
        assert scraped.value("queue_watched_rooms") == 1
        # A snapshot and an update each; the room had the event once.
        assert scraped.change("queue_socket_frames_total") == 4
        assert scraped.change("queue_room_events_total") == 1
        assert scraped.value("queue_lagging_sockets") == 0
        await one.connection.send("no frame")
        assert await one.closed() == 4501
    await scraped.until(lambda: scraped.value("queue_sockets") == 0)
    assert scraped.value("queue_watched_rooms") == 0
    assert scraped.value("queue_socket_closes_total", code="4501") == 1
    assert scraped.value("queue_socket_closes_total", code="other") == 1


async def test_a_live_reader_of_the_log_is_counted(scraped: Scraped) -> None:
    headers = {"Authorization": f"Bearer {scraped.api.server.admin}", "Accept": "text/event-stream"}
    async with scraped.api.http.stream("GET", "/v1/events", headers=headers) as response:
        assert response.status_code == 200
        await scraped.until(lambda: scraped.value("queue_event_streams") == 1)
    await scraped.until(lambda: scraped.value("queue_event_streams") == 0)


async def test_wallet_operations_and_the_breaker_are_shown(scraped: Scraped, performer_id: str) -> None:
    await scraped.api.intake(performer_id)
    await scraped.api.command("complete", await scraped.api.start_next(performer_id))
    await scraped.scrape()
    # Settlement waits for an hour here.
    assert 0 < scraped.value("queue_wallet_oldest_open_operation_seconds") < 3600
    assert scraped.change("queue_wallet_operations", status="pending") == 1
    assert scraped.value("queue_wallet_operations", status="dead") == 0
    assert scraped.value("queue_wallet_breaker", state="closed") == 1
    assert scraped.value("queue_wallet_breaker", state="open") == 0
    assert scraped.value("queue_info", database="sqlite", version=VERSION) == 1
    assert scraped.value("process_resident_memory_bytes") > 0
    assert scraped.value("queue_database_bytes") > 4096
    assert scraped.value("queue_disk_free_bytes") > 0


async def test_calls_to_the_wallet_are_counted_by_kind_and_outcome(tmp_path: Path, performer_id: str) -> None:
    with serving(tmp_path, settle_delay_seconds=0) as server:
        async with server.api() as api:
            scraped = Scraped(api)
            await api.intake(performer_id)
            await api.command("complete", await api.start_next(performer_id))
            labels = {"kind": "settle", "outcome": "succeeded"}
            await scraped.until(lambda: scraped.value("queue_wallet_calls_total", **labels) == 1)
            assert scraped.value("queue_wallet_call_seconds_count", kind="settle") == 1
            assert scraped.value("queue_wallet_call_seconds_count", kind="refund") == 0
            await scraped.until(lambda: scraped.value("queue_wallet_oldest_open_operation_seconds") == 0)


async def test_no_number_carries_an_id(scraped: Scraped, performer_id: str) -> None:
    api = scraped.api
    item = await api.intake(performer_id)
    ok(await api.get(f"/v1/users/{item['userId']}/queue/items", api.server.admin))
    text = (await api.get("/metrics")).text
    for secret in (performer_id, item["itemId"], item["userId"], item["title"], api.server.admin):
        assert secret not in text


async def test_two_services_in_one_process_count_apart(tmp_path: Path, scraped: Scraped) -> None:
    with serving(tmp_path) as second:
        async with second.api() as api:
            other = Scraped(api)
            await other.scrape()
    assert other.value("queue_intakes_total", result="queued") == 0
    assert scraped.value("queue_intakes_total", result="queued") > 0


# Without a service


@dataclass
class Deliveries:
    delivered: int = 5
    failed: int = 2


@dataclass
class Numbers:
    """Readings with fixed numbers, and with a database, a disk and a breaker that the test chooses."""

    database: Callable[[], Awaitable[DatabaseReadings]]
    disk: DiskUsage | None = None
    breaker: Breaker = field(default_factory=lambda: Breaker(threshold=1))

    def readings(self) -> Readings:
        return Readings(
            waiting_commands=lambda: 7,
            lane_wait_seconds=lambda: 0.75,
            event_loop_lag_seconds=lambda: 0.125,
            sockets=lambda: 0,
            watched_rooms=lambda: 0,
            lagging_sockets=lambda: 0,
            event_streams=lambda: 0,
            clock_skew_seconds=lambda: 0.25,
            heartbeat_age_seconds=lambda: 0.5,
            traffic=Traffic(),
            breaker=self.breaker,
            deliveries=Deliveries(),
            pushes={"gone": 6},
            database=self.database,
            disk=lambda: self.disk,
            connections=lambda: 3,
            items=lambda: {"created": 12, "started": 3},
            silent_connections=lambda: 2,
            connection_capacity=lambda: 100,
            addresses=lambda: 1,
            refusals={"head_time": 4},
        )


def answer_of_the_database() -> DatabaseReadings:
    return DatabaseReadings(
        operations={"dead": 2},
        oldest_open_operation_seconds=700.5,
        webhook_endpoints={"active": 3, "parked": 1},
        push_subscriptions=8,
        wallet_differences=4,
        wallet_check_age_seconds=86400.0,
    )


async def samples_of(metrics: Metrics) -> Samples:
    return read((await metrics.text()).decode())


async def test_a_database_that_is_away_hides_nothing_else() -> None:
    async def database() -> DatabaseReadings:
        raise ConnectionError("away")

    metrics = Metrics(database="postgresql", close_codes=[])
    metrics.watch(Numbers(database).readings())
    samples = await samples_of(metrics)
    assert samples["queue_lane_waiting_commands", ()] == 7
    assert not any(name == "queue_wallet_operations" for name, _ in samples)


async def test_a_database_that_does_not_answer_is_waited_for_only_so_long() -> None:
    async def database() -> DatabaseReadings:
        await asyncio.Event().wait()
        return answer_of_the_database()

    metrics = Metrics(database="postgresql", close_codes=[], database_seconds=0.01)
    metrics.watch(Numbers(database).readings())
    async with asyncio.timeout(WAIT_SECONDS):
        samples = await samples_of(metrics)
    assert not any(name == "queue_wallet_operations" for name, _ in samples)


async def test_an_open_breaker_is_shown() -> None:
    async def database() -> DatabaseReadings:
        return answer_of_the_database()

    numbers = Numbers(database)
    now = datetime(2026, 1, 31, tzinfo=UTC)
    permit = numbers.breaker.admit(now)
    assert permit is not None
    numbers.breaker.failed(permit, now)
    metrics = Metrics(database="sqlite", close_codes=[])
    metrics.watch(numbers.readings())
    samples = await samples_of(metrics)
    assert {state: samples["queue_wallet_breaker", (("state", state),)] for state in BreakerState} == {
        "closed": 0,
        "open": 1,
        "half_open": 0,
    }
    assert samples["queue_wallet_breaker_opened_total", ()] == 1
    assert samples["queue_wallet_operations", (("status", "dead"),)] == 2
    assert samples["queue_wallet_operations", (("status", "pending"),)] == 0


async def test_metrics_that_are_the_same_in_every_process_are_not_added_up() -> None:
    async def database() -> DatabaseReadings:
        return answer_of_the_database()

    metrics = Metrics(database="sqlite", close_codes=[])
    metrics.watch(Numbers(database).readings())
    text = (await metrics.text()).decode()
    same = set(re.findall(r"^# HELP (\S+) .*the same in every process", text, re.MULTILINE))
    assert len(same) >= 5
    assert same <= OWN_ONLY


async def test_the_metrics_for_alerts_are_shown() -> None:
    async def database() -> DatabaseReadings:
        return answer_of_the_database()

    metrics = Metrics(database="sqlite", close_codes=[])
    metrics.watch(Numbers(database, DiskUsage(used=4096, free=8192)).readings())
    samples = await samples_of(metrics)
    assert samples["queue_wallet_oldest_open_operation_seconds", ()] == 700.5
    assert samples["queue_wallet_differences", ()] == 4
    assert samples["queue_wallet_check_age_seconds", ()] == 86400
    assert samples["queue_webhook_endpoints", (("status", "parked"),)] == 1
    assert samples["queue_webhook_deliveries_total", (("outcome", "delivered"),)] == 5
    assert samples["queue_webhook_deliveries_total", (("outcome", "failed"),)] == 2
    assert samples["queue_push_total", (("outcome", "gone"),)] == 6
    assert samples["queue_push_subscriptions", ()] == 8
    assert samples["queue_lane_wait_seconds", ()] == 0.75
    assert samples["queue_event_loop_lag_seconds", ()] == 0.125
    assert samples["queue_database_bytes", ()] == 4096
    assert samples["queue_disk_free_bytes", ()] == 8192


async def test_a_database_elsewhere_shows_no_disk() -> None:
    async def database() -> DatabaseReadings:
        return answer_of_the_database()

    metrics = Metrics(database="postgresql", close_codes=[])
    metrics.watch(Numbers(database).readings())
    samples = await samples_of(metrics)
    assert not {name for name, _ in samples} & {"queue_database_bytes", "queue_disk_free_bytes"}


async def test_the_event_loop_is_late_by_what_keeps_it_busy() -> None:
    lag = LoopLag(seconds=0.01)
    assert lag.seconds == 0
    task = asyncio.create_task(lag.run())
    await until(lambda: lag.seconds > 0)
    busy_until = time.monotonic() + 0.3
    while time.monotonic() < busy_until:
        pass
    await until(lambda: lag.seconds > 0.25)
    task.cancel()


async def test_a_histogram_counts_a_value_in_every_bucket_from_its_own_on() -> None:
    metrics = Metrics(database="sqlite", close_codes=[])
    for size in (1, 2, 3, 300):
        metrics.batch(size, 0.001, [])
    samples = await samples_of(metrics)
    of_bound = {
        dict(labels)["le"]: value
        for (name, labels), value in samples.items()
        if name == "queue_lane_batch_commands_bucket"
    }
    assert (of_bound["1.0"], of_bound["2.0"], of_bound["4.0"], of_bound["256.0"], of_bound["+Inf"]) == (1, 2, 3, 3, 4)
    assert samples["queue_lane_batch_commands_sum", ()] == 306


async def test_made_up_methods_and_codes_do_not_make_up_series() -> None:
    metrics = Metrics(database="sqlite", close_codes=[4500])
    for number in range(50):
        metrics.request(f"METHOD{number}", "none", 405, 0.001)
        metrics.closes[3000 + number] += 1
    metrics.closes[4500] += 1
    samples = await samples_of(metrics)
    requests = {labels: value for (name, labels), value in samples.items() if name == "queue_http_requests_total"}
    assert requests == {(("method", "other"), ("route", "none"), ("status", "405")): 50}
    closes = {labels: value for (name, labels), value in samples.items() if name == "queue_socket_closes_total"}
    assert closes == {(("code", "other"),): 50, (("code", "4500"),): 1}


async def test_a_socket_that_lags_is_counted_and_so_is_cutting_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    line, hub = FakeConnection(), world.hub
    await world.join(line)
    line.is_lagging = True
    world.intake()
    world.publish()
    await until(lambda: hub.traffic.events == 1)
    assert (hub.traffic, hub.lagging) == (Traffic(frames=1, events=1, lagged=1), 1)
    now = asyncio.get_running_loop().time()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now + 31)
    assert hub.tidy(30) == 1
    assert [code for code, _ in line.cut] == [CloseCode.TOO_SLOW]
    assert hub.traffic.cut_off == 1
