"""The operations that need no service: they are carried out in the benchmark's own process."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from starlette.applications import Starlette

from app.api import descriptions, guides, linking, module_syntax, pages
from app.api.site import Site
from app.domain import command as do
from app.domain.item import Item
from app.domain.room import Policy
from app.engine.jobs import Envelope
from app.engine.writer import Writer
from app.parts import new_id
from app.specs import asyncapi, openapi, typescript
from app.store import Store, reading
from app.store.engines import open_engines
from app.store.migrating import migrate
from tests.bench import servers
from tests.bench.bench import Bench
from tests.bench.optimisations.measuring import Begin, Drive, Operation, Switch

Work = Callable[[], object]
START = datetime(2026, 1, 1, tzinfo=UTC)
SERVICES = 120
ROOM = "room-0"
ADMIN = do.Actor(role=do.Role.ADMIN, id="bench")


def _here(times: int, ready: Callable[[Bench], AbstractContextManager[Work]]) -> Begin:
    """`times`: how often an operation is carried out at a time."""

    @contextmanager
    def begin(bench: Bench) -> Iterator[tuple[Drive, Switch]]:
        # The catalogue names the operations below.
        from tests.bench.optimisations.catalogue import ALL

        with ExitStack() as entered, ready(bench) as work:

            def switch(name: str | None) -> None:
                entered.close()
                if name is not None:
                    entered.enter_context(ALL[name].plain())

            def drive() -> float:
                before = time.process_time()
                for _ in range(times):
                    work()
                return (time.process_time() - before) / times * 1e6

            yield drive, switch

    return begin


@contextmanager
def _site(bench: Bench) -> Iterator[Work]:
    caches = (linking._body, module_syntax.imports_of)

    def assemble() -> None:
        for cache in caches:
            cache.cache_clear()
        Site(pages.STATIC)

    yield assemble


@contextmanager
def _documents(bench: Bench) -> Iterator[Work]:
    yield lambda: [
        descriptions._answers(document) for document in (openapi.document, asyncapi.document, typescript.declarations)
    ]


def _views(path: str) -> Callable[[Bench], AbstractContextManager[Work]]:
    @contextmanager
    def ready(bench: Bench) -> Iterator[Work]:
        site = pages.current_site(reload=False)
        app = Starlette(routes=[*guides.routes(site), *pages.routes(site)])
        headers = [(b"accept-encoding", b"br"), (b"accept-language", b"de")]
        scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers}

        async def receive() -> Any:
            return {"type": "http.request", "body": b""}

        async def send(message: Any) -> None:
            assert message.get("status", 200) == 200

        loop = asyncio.new_event_loop()
        try:
            yield lambda: loop.run_until_complete(app(dict(scope), receive, send))
        finally:
            loop.close()

    return ready


@contextmanager
def _room(bench: Bench) -> Iterator[Work]:
    with servers.data_folder(bench.data) as folder:
        engines = open_engines(f"sqlite:///{folder / servers.DATABASE}")
        try:
            migrate(engines.patient_writer)
            store = Store(engines, Policy())
            _live_through(Writer(store, _minutes(), new_id))

            def load() -> None:
                with store.reading() as connection:
                    reading.load_rooms(connection, store.policy, [ROOM])

            yield load
        finally:
            engines.dispose()


def _minutes() -> Callable[[], datetime]:
    """A clock that moves on by a minute with each look."""
    numbers = count()
    return lambda: START + timedelta(minutes=next(numbers))


def _live_through(writer: Writer) -> None:
    def send(command: do.Command) -> None:
        (outcome,) = writer.process([Envelope(performer_id=ROOM, command=command)])
        if isinstance(outcome, Exception):
            raise outcome

    items = [
        Item(
            item_id=new_id(),
            performer_id=ROOM,
            user_id=f"u-{number}",
            source_feature="bench",
            source_event_id=f"e-{number}",
            escrow_transaction_id=f"x-{number}",
            idempotency_key=f"k-{number}",
            tokens=120,
            title="A song",
            description="Anything by Nina Simone",
            duration_seconds=180,
            created_at=START,
            updated_at=START,
        )
        for number in range(SERVICES)
    ]
    for item in items:
        send(do.Intake(actor=ADMIN, item=item, queue_mode=None))
        send(do.Start(actor=ADMIN, item_id=item.item_id))
        send(do.Complete(actor=ADMIN, item_id=item.item_id))


START_OF_SITE = Operation(name="making the pages ready", pairs=5, begin=_here(1, _site))
DOCUMENTS = Operation(name="making an application's documents", pairs=5, begin=_here(1, _documents))
PAGE = Operation(name="a page", pairs=5, begin=_here(1, _views("/watch/aria")))
GUIDE = Operation(name="a page of a guide", pairs=5, begin=_here(3, _views("/docs/guides/operate")))
ROOM_LOAD = Operation(name="loading a room that has learnt its waits", begin=_here(50, _room))
