"""The simulated day: its client follows the contract, and a run notices false answers."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from app.domain.command import Role
from app.domain.errors import ItemNotFound
from app.domain.item import Item
from app.domain.room import Room
from app.engine.deadline import Deadline
from app.engine.queries import Queries
from app.simulate.catalogue import CATALOGUES, PERFORMERS, USERS, draw_applause, draw_request, performer_name, user_name
from app.simulate.escrow_client import EscrowClient
from app.simulate.live import LiveSocket
from app.simulate.run import Plan, Refused, Run
from app.simulate.screen import run_in_terminal
from app.simulate.site import Site
from app.simulate.tally import Latency, ServerClock, Tally
from app.simulate.view import Taken, View
from app.wire import frames
from app.wire.requests import IntakeRequest, read
from tests.support.server import Server, serving

AT = "2026-01-31T12:00:{:02d}.000Z"


def shown(number: int, status: str = "created", **fields: Any) -> dict[str, Any]:
    return {"itemId": f"item-{number}", "status": status, "position": number, "createdAt": AT.format(number), **fields}


def snapshot(*items: dict[str, Any], version: int = 5, mine: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    room = {"performerId": "mira", "depth": len(items), "version": version}
    return {
        "type": "snapshot",
        "epoch": "e",
        "version": version,
        "room": room,
        "items": list(items),
        "mine": list(mine),
    }


def update(since: int, version: int, *items: dict[str, Any]) -> dict[str, Any]:
    events = [{"event": "queue.item.changed", "item": item, "at": AT.format(30)} for item in items]
    return {"type": "update", "from": since, "version": version, "events": events}


def seeing(*items: dict[str, Any], **fields: Any) -> View:
    view = View()
    assert view.take(snapshot(*items, **fields)) is Taken.SNAPSHOT
    return view


# A client's view


def test_an_update_that_follows_on_is_applied_and_the_rest_is_renumbered() -> None:
    view = seeing(shown(1), shown(2), shown(3))
    assert view.take(update(5, 7, shown(1, "finished"), shown(3, "started"))) is Taken.APPLIED
    assert view.version == 7
    assert [(item["itemId"], item["position"]) for item in view.queue] == [("item-3", 1), ("item-2", 2)]
    assert view.on_stage is not None
    assert view.on_stage["itemId"] == "item-3"


def test_items_of_one_moment_are_ordered_by_id() -> None:
    late, early = {**shown(2), "createdAt": AT.format(1)}, shown(1)
    assert [item["itemId"] for item in seeing(late, early).queue] == ["item-1", "item-2"]


@pytest.mark.parametrize(("since", "version", "taken"), [(4, 5, Taken.OLD), (3, 4, Taken.OLD), (6, 7, Taken.GAP)])
def test_an_update_that_does_not_follow_on_changes_nothing(since: int, version: int, taken: Taken) -> None:
    view = seeing(shown(1))
    assert view.take(update(since, version, shown(1, "finished"))) is taken
    assert (view.version, list(view.items)) == (5, ["item-1"])


def test_an_update_before_any_snapshot_is_a_gap() -> None:
    assert View().take(update(0, 1, shown(1))) is Taken.GAP


def test_an_own_item_is_followed_and_forgotten_when_it_has_ended() -> None:
    own = {"type": "position", "itemId": "item-2", "status": "created", "position": 1, "ahead": 0, "version": 6}
    view = seeing(shown(1), shown(2))
    view.take(own)
    assert view.mine["item-2"]["position"] == 1
    view.take({**own, "status": "refunded", "position": 0})
    assert view.mine == {}


def test_a_view_equals_the_snapshot_it_came_from() -> None:
    mine = ({**shown(2), "ahead": 1},)
    truth = snapshot(shown(1), shown(2), mine=mine)
    assert seeing(shown(1), shown(2), mine=mine).differences(truth) == []


OWN = {**shown(2), "ahead": 1}


@pytest.mark.parametrize(
    ("truth", "named_difference"),
    [
        (snapshot(shown(1), mine=(OWN,)), "queue: seen ['item-1', 'item-2'], is ['item-1']"),
        (snapshot(shown(1), shown(2, paused=True), mine=(OWN,)), "item item-2: paused differ"),
        (snapshot(shown(1), shown(2)), "own items: seen ['item-2'], are []"),
        (snapshot(shown(1), shown(2), mine=({**OWN, "ahead": 7},)), "own item item-2: ahead differ"),
        ({**snapshot(shown(1), shown(2), mine=(OWN,)), "room": {"performerId": "mira"}}, "room: depth, version differ"),
    ],
)
def test_every_way_to_differ_is_named(truth: dict[str, Any], named_difference: str) -> None:
    differences = seeing(shown(1), shown(2), mine=(OWN,)).differences(truth)
    assert named_difference in differences


# Counters


def test_percentiles_are_right_to_a_few_percent() -> None:
    latency = Latency()
    for milliseconds in range(1, 1001):
        latency.add(milliseconds / 1000)
    assert latency.percentile(0.5) == pytest.approx(0.5, rel=0.05)
    assert latency.percentile(0.99) == pytest.approx(0.99, rel=0.05)
    assert latency.percentile(1) == latency.longest == 1.0
    assert Latency().percentile(0.5) is None


def test_the_quickest_answer_gives_the_skew_of_the_servers_clock() -> None:
    clock = ServerClock()
    assert clock.age("2026-01-31T12:00:00.000Z", 0.0) is None
    noon = 1769860800.0
    clock.observe(noon, noon + 4, "2026-01-31T12:00:12.000Z")
    clock.observe(noon, noon + 2, "2026-01-31T12:00:11.000Z")
    assert clock.age("2026-01-31T12:00:11.000Z", noon + 3) == pytest.approx(2)


# Drawn requests


def test_every_request_that_can_be_drawn_is_a_valid_intake() -> None:
    random = Random(1)
    for number in range(600):
        draw = draw_request if number % 3 else draw_applause
        request = draw(random, performer_name(number), user_name(number))
        read(
            IntakeRequest,
            {
                "idempotencyKey": "key",
                "sourceFeature": request.catalogue.feature,
                "sourceEventId": "event",
                "performerId": request.performer_id,
                "userId": request.user_id,
                "escrowTransactionId": "escrow",
                "tokens": request.tokens,
                "title": request.title,
                "description": request.description,
                "durationSeconds": request.seconds,
                "metadata": dict(request.metadata),
            },
        )
    drawn = {draw_request(random, "mira", "ada").catalogue.feature for _ in range(200)}
    assert drawn == {catalogue.feature for catalogue in CATALOGUES}


def test_nobody_shares_a_name() -> None:
    assert len({performer_name(number) for number in range(100)}) == 100
    assert len({user_name(number) for number in range(1000)}) == 1000
    assert (performer_name(0), user_name(0)) == (PERFORMERS[0], USERS[0])


# Runs


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path, settle_delay_seconds=0, coalesce_ms=5) as server:
        yield server


def plan(server: Server, **fields: Any) -> Plan:
    values = {"performers": 2, "viewers": 10, "rate": 12, "seconds": 4, "speed": 40, "seed": 7}
    return Plan(url=server.url, **{**values, **fields})


def sign(server: Server) -> Callable[[Role, str], str]:
    return lambda role, sub: server.sign(role, sub)


async def test_a_run_against_the_real_service_finds_everything_true(server: Server) -> None:
    wallet_url = f"{server.url}/sandbox"
    run = Run(plan(server), sign(server), lambda tally: EscrowClient(wallet_url, None, tally))
    report = await run.run()
    assert report["consistent"], report["checks"]
    assert report["checks"]["unverified"] == 0
    accepted = report["intake"]["outcomes"]["accepted"]
    assert accepted > 10
    assert report["holds"]["held"] >= accepted
    assert report["checks"]["itemsVerified"] == report["checks"]["itemsAcknowledged"] == accepted
    # Every view is compared twice at the end: with a snapshot, and with the queue read over HTTP.
    assert report["checks"]["viewsCompared"] >= 2 * (2 + 10)
    assert report["commands"]["acknowledged"]["start-next"] > 0
    assert report["commands"]["acknowledged"]["complete"] > 0
    assert report["updateLatency"]["count"] > 100
    assert report["positionLatency"]["count"] > 0
    assert report["plan"]["seed"] == 7


async def test_in_private_rooms_every_viewer_has_a_token(tmp_path: Path) -> None:
    with serving(tmp_path, public_rooms=False) as server:
        report = await Run(plan(server, seconds=2), sign(server)).run()
    assert report["consistent"], report["checks"]
    assert report["sockets"]["closed"] == {}
    assert report["updateLatency"]["count"] > 0


async def test_a_socket_that_was_away_resumes_and_is_right(server: Server) -> None:
    async with Site(server.url, sign(server)) as site, server.api() as api:
        tally = Tally()
        live = LiveSocket(site, tally, "mira", token=None, random=Random(1))
        await api.intake("mira")
        async with running(live):
            await live.arrived.wait()
            before = live.view.version
            await live.leave()
            item = await api.intake("mira")
            while item["itemId"] not in live.view.items:
                live.news.clear()
                await live.news.wait()
            assert await live.check()
        assert tally.resumed == 1
        assert before is not None
        assert live.view.version is not None
        assert live.view.version > before
        assert tally.comparisons > 0
        assert tally.differences == []


async def test_an_update_that_leaves_events_out_is_noticed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    lie_about_ends(monkeypatch)
    report = await Run(plan(server), sign(server)).run()
    assert not report["consistent"]
    assert report["checks"]["viewsDifferent"] > 0
    assert any("queue: seen" in difference for difference in report["checks"]["differences"])
    assert report["checks"]["itemsMissing"] == []


async def test_an_acknowledged_item_that_is_gone_is_noticed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Queries.item

    async def item(self: Queries, item_id: str, deadline: Deadline | None = None) -> tuple[Item, Room]:
        if item_id[-1] in "0123":
            raise ItemNotFound("There is no such item.")
        return await found(self, item_id, deadline)

    server.replace(monkeypatch, Queries, "item", item)
    report = await Run(plan(server, seconds=2, rate=20), sign(server)).run()
    assert not report["consistent"]
    assert {item_id[-1] for item_id in report["checks"]["itemsMissing"]} <= set("0123")
    assert report["checks"]["itemsMissing"] != []


async def test_a_run_that_is_stopped_reports_what_it_has_seen(server: Server) -> None:
    def sign_and_stop(role: Role, sub: str) -> str:
        if role is Role.FEATURE:
            run.stop()  # the first feature is about to ask for something
        return server.sign(role, sub)

    run = Run(plan(server, seconds=600), sign_and_stop)
    report = await run.run()
    assert report["endedEarly"]
    assert report["seconds"] < 60
    assert report["intake"]["outcomes"]["accepted"] >= 1
    assert report["consistent"]


async def test_a_run_does_not_begin_where_nobody_answers() -> None:
    nobody = Plan(url="http://127.0.0.1:9", performers=1, viewers=0, rate=1, seconds=1, speed=1, seed=1)
    with pytest.raises(Refused, match=r"127\.0\.0\.1:9 cannot be reached"):
        await Run(nobody, lambda role, sub: "token").run()


async def test_a_run_does_not_begin_with_tokens_of_another_key(server: Server) -> None:
    with pytest.raises(Refused, match="AUTH_SECRET"):
        await Run(plan(server), lambda role, sub: "not-a-token").run()


@asynccontextmanager
async def running(live: LiveSocket) -> AsyncIterator[None]:
    task = asyncio.create_task(live.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# The command


def test_the_exit_code_says_whether_all_was_true(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_in_terminal(Run(plan(server, seconds=2), sign(server)), tmp_path / "good.json") == 0
    assert "Every view was right" in capsys.readouterr().out
    assert json.loads((tmp_path / "good.json").read_text())["consistent"] is True
    lie_about_ends(monkeypatch)
    assert run_in_terminal(Run(plan(server), sign(server)), tmp_path / "bad.json") == 1
    assert "differed from the truth" in capsys.readouterr().out
    assert json.loads((tmp_path / "bad.json").read_text())["consistent"] is False


def command(server: Server, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "app", "simulate", "--url", server.url, "--performers", "2", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "AUTH_SECRET": server.settings.auth_secret},
    )


def test_the_command_ends_early_at_ctrl_c_and_still_reports(server: Server, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    with command(server, "--seconds", "600", "--rate", "20", "--json", str(report)) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if " load " in line:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Every view was right" in out
    assert "Traceback" not in err
    assert json.loads(report.read_text())["endedEarly"] is True


def test_the_command_says_in_one_line_that_there_is_no_server(server: Server) -> None:
    with command(server, "--url", "http://127.0.0.1:9") as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.splitlines() == ["performance-queue: http://127.0.0.1:9 cannot be reached (ConnectError)."]


def lie_about_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the ends of items out of updates, with versions that still join up."""
    honest = frames.update

    def update(events: Any, *arguments: Any, **options: Any) -> bytes:
        return honest([event for event in events if event.name != "queue.item.finished"], *arguments, **options)

    monkeypatch.setattr(frames, "update", update)
