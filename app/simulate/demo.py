"""The demo: the service with a sandbox wallet and simulated people, so that a visitor always finds queues that move.

Owns the demo's settings, rooms, traffic and output. The people are those of `simulate`; they use only the public
interface, as a host site does. One performer is left to the visitor: her queue fills to a few requests and waits.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from starlette.applications import Starlette

from app.domain.command import Role
from app.settings import InvalidSettings, Settings, read_settings
from app.simulate.catalogue import ANNOUNCEMENTS, USERS, draw_applause, draw_request
from app.simulate.escrow_client import EscrowClient, Hold
from app.simulate.people import Features, Performer, Viewer
from app.simulate.site import Sign, Site, Unreachable, room_path
from app.simulate.tally import Tally

KEPT_DATABASE = "sqlite:///demo.db"
PORTS_TRIED = 50
TOKEN_SECONDS = 30 * 24 * 3600
"""How long a printed link works."""

VISITOR = "robin"
"""The user whose links are printed; every queue always has a request of theirs."""
YOURS = "mira"
"""The performer whom the visitor plays."""
DRIVEN = ("nova", "juno")
ROOMS = (YOURS, *DRIVEN)

CALM: Mapping[str, Any] = {
    # No time limits: a visitor may look at one page for an hour before opening the panel.
    "rope_drop_seconds": 0,
    "disconnect_grace_seconds": 0,
    # Long enough for a visitor to see and refund a finished item that is not settled yet.
    "settle_delay_seconds": 6,
}
"""Settings of the demo, unless the environment sets them."""
FAULTS = {"latencySeconds": 0.4, "errorRate": 0.05, "lostAnswerRate": 0.02}
"""The sandbox's fault rates, as of a real wallet on a bad day."""

READY_SECONDS = 20.0
BOOKS_SECONDS = 2.0
FIRST_LINE_SECONDS = 5.0
LINE_SECONDS = 30.0
"""How often a line is printed where there is no terminal to redraw."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Habit:
    """The traffic of a room. Pairs are the bounds of a random choice."""

    fill: tuple[int, int]
    """Active items."""
    every: tuple[float, float]
    """Seconds between two requests."""
    ahead_of_visitor: int
    """Items ahead of the visitor's."""


HABITS: Mapping[str, Habit] = {
    YOURS: Habit(fill=(5, 5), every=(3, 7), ahead_of_visitor=2),
    "nova": Habit(fill=(4, 7), every=(2, 6), ahead_of_visitor=3),
    "juno": Habit(fill=(3, 5), every=(3, 8), ahead_of_visitor=2),
}


@contextmanager
def database(*, keep: bool) -> Iterator[str]:
    """The URL of the demo's database: DATABASE_URL, else with `keep` a file in this folder, else a temporary one."""
    if url := os.environ.get("DATABASE_URL"):
        yield url
    elif keep:
        yield KEPT_DATABASE
    else:
        with TemporaryDirectory(prefix="performance-queue-demo-", ignore_cleanup_errors=True) as folder:
            yield f"sqlite:///{folder}/queue.db"


def demo_settings(database_url: str, say: Callable[[str], None]) -> Settings:
    """The environment's settings with those of CALM, on a free port. `say` gets a message if that is not PORT.

    Raises InvalidSettings.
    """
    if os.environ.get("ENVIRONMENT", "").lower() == "production":
        raise InvalidSettings("ENVIRONMENT: the demo plays with tokens that anybody can sign; not in production")
    own = {name: value for name, value in CALM.items() if not os.environ.get(name.upper())}
    settings = read_settings(
        database_url=database_url,
        wallet_url="sandbox:",
        auth_jwks_url=None,
        max_token_seconds=0,  # a printed link works for weeks
        web_concurrency=1,
        **own,
    )
    port = _free_port(settings.host, settings.port)
    if settings.port not in (0, port):
        say(f"Port {settings.port} is taken; this demo is on port {port}.")
    return settings.model_copy(update={"port": port})


def _free_port(host: str, wanted: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in range(wanted, min(wanted + PORTS_TRIED, 65536)) if wanted else (0,):
        with suppress(OSError), socket.create_server((host, port), family=family) as probe:
            chosen: int = probe.getsockname()[1]
            return chosen
    raise InvalidSettings(f"PORT: neither {wanted} nor the {PORTS_TRIED - 1} after it can be had on {host}")


class Demo:
    """The people of the demo, from the start of the server until its end."""

    def __init__(self, settings: Settings, sign: Sign, clock: Callable[[], datetime], console: Console) -> None:
        self._settings = settings
        self._sign = sign
        self._clock = clock
        self._console = console
        self._random = Random()
        self._tally = Tally(remembers=False)
        self._books: Mapping[str, Any] = {}
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104 - not bound here
        self._url = f"http://{host}:{settings.port}"
        # One socket of the visitor in each room; the output shows its view.
        self._visitors: dict[str, Viewer] = {}

    def join(self, app: Starlette) -> None:
        """Add the people to `app`'s lifespan. They leave before the server drains all other sockets."""
        lifespan, drain = app.router.lifespan_context, app.state.drain
        people: list[asyncio.Task[None]] = []

        async def send_home() -> None:
            for task in people:
                task.cancel()
            await asyncio.gather(*people, return_exceptions=True)

        async def drain_after_them() -> None:
            await send_home()
            await drain()

        @asynccontextmanager
        async def with_people(app: Starlette) -> AsyncIterator[None]:
            async with lifespan(app):
                people.append(asyncio.create_task(self._run(), name="demo"))
                yield
                await send_home()

        app.router.lifespan_context = with_people
        app.state.drain = drain_after_them

    async def _run(self) -> None:
        try:
            async with AsyncExitStack() as stack:
                site = await stack.enter_async_context(Site(self._url, self._sign))
                wallet_url = f"{self._url}/sandbox"
                escrow_client = EscrowClient(wallet_url, self._settings.wallet_api_token, self._tally)
                await stack.enter_async_context(escrow_client)
                wallet = await stack.enter_async_context(Site(wallet_url, self._sign))
                await self._ready(site)
                await self._live(site, wallet, escrow_client.hold)
        except Exception:
            # The server keeps running, so that an error of the demo closes nobody's page.
            log.exception("the demo's people have stopped")

    async def _ready(self, site: Site) -> None:
        async with asyncio.timeout(READY_SECONDS):
            while True:
                with suppress(Unreachable):
                    if (await site.call("GET", "/healthz")).ok:
                        return
                await asyncio.sleep(0.02)

    # Traffic

    async def _live(self, site: Site, wallet: Site, hold: Hold) -> None:
        features = Features(site, self._tally, hold, self._random)
        viewer = partial(Viewer, site, self._tally, random=self._random)
        self._visitors = {name: viewer(name, user_id=VISITOR) for name in ROOMS}
        performers = [Performer(site, self._tally, name, random=self._random, speed=1) for name in DRIVEN]
        crowd = [
            *(viewer(name, user_id=user_id) for name, users in _regulars().items() for user_id in users),
            *(viewer(name, user_id=None) for name in ROOMS),
        ]
        async with asyncio.TaskGroup() as life:
            watching = [*self._visitors.values(), *crowd]
            for live in (*(performer.socket for performer in performers), *(viewer.socket for viewer in watching)):
                life.create_task(live.run())
            await asyncio.gather(*(self._open(features, name) for name in ROOMS))
            await asyncio.gather(*(visitor.socket.arrived.wait() for visitor in self._visitors.values()))
            self._print_links()
            await self._set_faults(wallet)
            for performer in performers:
                life.create_task(performer.work())
            for person in crowd:
                if person.performer_id != YOURS:
                    life.create_task(person.fidget(every_seconds=30))
            for name in ROOMS:
                life.create_task(self._feed(features, name))
            life.create_task(self._oddities(site, features, hold))
            life.create_task(self._watch_books(wallet))
            life.create_task(self._show() if self._console.is_terminal else self._print_lines())

    async def _open(self, features: Features, performer_id: str) -> None:
        """Fill a room before the links are printed; does nothing if a kept database has filled it."""
        habit = HABITS[performer_id]
        if await self._depth(performer_id) >= habit.fill[0]:
            return
        for _ in range(2):
            await features.ask(draw_applause(self._random, performer_id, self._random.choice(USERS)))
        for place in range(habit.fill[0]):
            user_id = VISITOR if place == habit.ahead_of_visitor else self._random.choice(_regulars()[performer_id])
            await features.ask(draw_request(self._random, performer_id, user_id))

    async def _depth(self, performer_id: str) -> int:
        socket = self._visitors[performer_id].socket
        await socket.arrived.wait()
        return len(socket.view.items)

    async def _feed(self, features: Features, performer_id: str) -> None:
        habit, random = HABITS[performer_id], self._random
        view = self._visitors[performer_id].socket.view
        full = habit.fill[1]
        while True:
            await asyncio.sleep(random.uniform(*habit.every))
            room, waiting = view.room or {}, len(view.items)
            if not room.get("accepting", True) or waiting >= room.get("maxDepth", waiting + 1):
                continue  # the intake would be refused, after tokens were held for it
            if random.random() < 0.15:
                full = random.randint(*habit.fill)
            if not view.mine and waiting > habit.ahead_of_visitor - 1:
                await features.ask(draw_request(random, performer_id, VISITOR))
            elif waiting < full:
                await features.ask(draw_request(random, performer_id, random.choice(USERS)))
            elif performer_id != YOURS and random.random() < 0.25:
                await features.ask(draw_applause(random, performer_id, random.choice(USERS)))

    async def _oddities(self, site: Site, features: Features, hold: Hold) -> None:
        """Make an announcement, and a payment that fails for administrators to see: its escrow holds too few tokens."""
        token = site.token(Role.PERFORMER, DRIVEN[0])
        with suppress(Unreachable):
            await site.call("PATCH", room_path(DRIVEN[0]), token=token, body={"announcement": ANNOUNCEMENTS[0]})
        held = draw_applause(self._random, DRIVEN[0], self._random.choice(USERS))
        escrow = await hold(held)
        if escrow is not None:
            await features.post(replace(held, tokens=3 * held.tokens), escrow)

    async def _set_faults(self, wallet: Site) -> None:
        with suppress(Unreachable):
            await wallet.call("PUT", "/faults", token=self._settings.wallet_api_token, body=FAULTS)

    async def _watch_books(self, wallet: Site) -> None:
        while True:
            with suppress(Unreachable):
                answer = await wallet.call("GET", "/books", token=self._settings.wallet_api_token)
                if answer.ok:
                    self._books = answer.body
            await asyncio.sleep(BOOKS_SECONDS)

    # Output

    def _print_links(self) -> None:
        console = self._console
        console.print(
            Panel(
                f"[bold]{YOURS}[/] is yours: open her panel, press “Start next”, and watch your own request move up in"
                f" her line.\n{' and '.join(DRIVEN)} perform by themselves. You are the viewer [bold]{VISITOR}[/].",
                title="Performance Queue",
                title_align="left",
                padding=(1, 2),
                expand=False,
            )
            if console.is_terminal
            else f"Performance Queue. {YOURS} is yours to drive; {' and '.join(DRIVEN)} perform by themselves;"
            f" you are the viewer {VISITOR}.",
            soft_wrap=not console.is_terminal,
        )
        for title, about, path, token in self._links():
            url = f"{self._url}{path}" + (f"#token={token}" if token else "")
            console.print(Text.assemble((f"{title:<9}", "bold"), about), soft_wrap=True)
            # Not wrapped: a terminal recognises a link only on one line.
            console.print(Text(f"  {url}\n", style=f"cyan link {url}"), soft_wrap=True)
        if console.is_terminal:
            console.print("[dim]Ctrl-C stops the demo.[/]\n")

    def _links(self) -> Iterator[tuple[str, str, str, str | None]]:
        sign = self._sign
        viewer = sign(Role.VIEWER, VISITOR)
        anyone = None if self._settings.public_rooms else viewer
        yield "Watch", f"{DRIVEN[0]} performs, and your request moves up", f"/watch/{DRIVEN[0]}", viewer
        yield "Watch", f"your request in {YOURS}'s line, which waits for you", f"/watch/{YOURS}", viewer
        yield "Panel", f"{YOURS}: nobody drives her, she is yours", "/panel", sign(Role.PERFORMER, YOURS)
        for name in DRIVEN:
            yield "Panel", f"{name}: performs by herself, join in if you like", "/panel", sign(Role.PERFORMER, name)
        yield "Overlay", f"{DRIVEN[0]}'s queue for a stream", f"/overlay/{DRIVEN[0]}", anyone
        yield "Admin", "rooms, payments, analytics", "/admin", sign(Role.ADMIN, "demo")
        yield "Wallet", "the sandbox's books", "/sandbox/books", None

    async def _show(self) -> None:
        with Live(self._status(), console=self._console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(self._status(), refresh=True)
                await asyncio.sleep(0.5)

    def _status(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for name in ROOMS:
            view = self._visitors[name].socket.view
            stage = view.on_stage
            doing = Text(self._doing(name), style="" if stage else "dim", overflow="ellipsis", no_wrap=True)
            place = next((str(own["position"]) for own in view.mine.values()), "–")
            waiting = len(view.items) - (stage is not None)
            table.add_row(f"[bold]{name}[/]", doing, f"{waiting} waiting", f"[dim]you:[/] {place}")
        table.add_row("[dim]wallet[/]", Text(self.books(), style="dim" if self._books.get("balanced", True) else "red"))
        return table

    async def _print_lines(self) -> None:
        pause = FIRST_LINE_SECONDS
        while True:
            await asyncio.sleep(pause)
            pause = LINE_SECONDS
            rooms = (f"{name}: {self._doing(name)}, {len(self._visitors[name].socket.view.items)}" for name in ROOMS)
            line = f"{time.strftime('%H:%M:%S')}  {'; '.join(rooms)} in line. {self.books()}"
            self._console.print(line, soft_wrap=True, highlight=False, markup=False)

    def _doing(self, performer_id: str) -> str:
        view = self._visitors[performer_id].socket.view
        stage, room = view.on_stage, view.room or {}
        if stage is not None:
            return f"{stage['title']} (paused)" if stage["paused"] else str(stage["title"])
        if room.get("paused"):
            return "away for a moment" if room.get("pauseReason") == "performer_disconnected" else "on a break"
        if performer_id == YOURS and view.items:
            return "waits for you"
        return "between two requests"

    def books(self) -> str:
        """The sums of the sandbox's ledger in one line; empty until they have been read."""
        if not self._books:
            return ""
        books = {name: f"{value:,}" for name, value in self._books.items() if name != "balanced"}
        state = "The books balance" if self._books["balanced"] else "THE BOOKS DO NOT BALANCE"
        return (
            f"{state}: {books['granted']} granted = {books['available']} with users + {books['escrow']} held"
            f" + {books['earned']} earned."
        )


def _regulars() -> Mapping[str, tuple[str, ...]]:
    """By room: the users who watch it for the whole demo."""
    return {name: USERS[number::8][:3] for number, name in enumerate(ROOMS)}
